"""The page of a session: outlines match masks, marks match voxels, and everything is inside one file.

Also the test of ``common.engine.interactive.charts``.
"""

import base64
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.path import Path as Polygon
from monai.data import MetaTensor
from PIL import Image
from scipy import ndimage

from common.engine.interactive.page import render_session, write_session_page
from common.engine.interactive.pictures import outline, session_frames
from common.engine.interactive.session import Session
from common.errors import ConfigError, PromptError

Build = Callable[..., Any]


def inside(path: str, width: int, height: int) -> np.ndarray:
    """Even-odd fill of an SVG path at pixel centres ``[row, column]``."""
    at = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1).reshape(-1, 2)
    filled = np.zeros(len(at), bool)
    for part in filter(None, path.split("M")):
        points = np.array(part.rstrip("Z").split(), float).reshape(-1, 2)
        filled ^= Polygon(np.vstack([points, points[:1]])).contains_points(at)
    return filled.reshape(height, width)


@pytest.mark.parametrize("seed", range(3))
def test_outlines_enclose_what_is_positive(seed: int) -> None:
    random = np.random.default_rng(seed)
    plane = ndimage.gaussian_filter(random.normal(size=(23, 17)), 1.5) * 8
    shown = inside(outline(plane), 23, 17)
    clear = np.abs(plane.T[::-1]) > 0.3
    assert (shown == (plane > 0).T[::-1])[clear].all()
    assert outline(-np.ones((4, 4))) == "" and inside(outline(np.ones((4, 5))), 4, 5).all()


def session(growing: Build, **options: Any) -> tuple[Session, MetaTensor]:
    affine = torch.diag(torch.tensor([1.5, 1.5, 1.5, 1.0], dtype=torch.float64))
    target = torch.zeros(1, 40, 44, 36)
    target[0, 10:22, 14:28, 9:21] = 1
    image = MetaTensor(100 + 60 * target + torch.randn(target.shape, generator=torch.Generator().manual_seed(0)))
    image.affine = affine
    one = Session(network=growing(**options), image=image)
    one.click("left <ball>", (15, 20, 14))
    one.click("left <ball>", (12, 15, 10), inside=False)
    one.click("other", (30, 30, 30))
    one.box("other", [[26, 26, 26], [34, 34, 34]])
    return one, MetaTensor(target, affine=affine)


def test_frames_show_the_click_where_it_is(growing: Build) -> None:
    one, target = session(growing)
    one.volume.volume[0, 15, 20, 14] = 1000.0
    frames = session_frames(one, {"left <ball>": target}, window=(0.0, 1000.0))
    assert [(f.name, f.prompt, f.kind, f.number) for f in frames] == [
        ("left <ball>", 1, "inside", 1),
        ("left <ball>", 2, "outside", 1),
        ("other", 1, "inside", 2),
        ("other", 2, "box", 2),
    ]
    for view in frames[0].views:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(view.image.partition(",")[2]))).convert("L"))
        row, column = np.unravel_index(int(pixels.argmax()), pixels.shape)
        (mark,) = view.marks
        x, y, width, height = view.part
        assert (round(width), round(height)) == pixels.shape[::-1]
        assert (mark.x - x, mark.y - y) == (column + 0.5, row + 0.5) and mark.near and mark.new and mark.inside
    later = frames[1].views[0].marks
    assert [m.new for m in later] == [False, True] and not later[0].near and not later[1].inside


def test_planes_are_drawn_as_radiologists_look(growing: Build) -> None:
    one, _ = session(growing)
    axial, coronal, sagittal = (f.marks[0] for f in session_frames(one)[0].views)
    assert (axial.x, axial.y) == (40 - 15 - 0.5, 44 - 20 - 0.5)  # x runs to the patient's left on RAS: mirrored
    assert (coronal.x, coronal.y) == (40 - 15 - 0.5, 36 - 14 - 0.5)
    assert (sagittal.x, sagittal.y) == (20 + 0.5, 36 - 14 - 0.5)


def test_outlines_of_frames_are_masks_before_and_after(growing: Build) -> None:
    one, target = session(growing)
    frames = session_frames(one, {"left <ball>": target})
    first, second = (one.volume.full(one.windows.merged(e.state), -1.0) for e in one.events[:2])
    view = frames[1].views[0]
    at = 10

    def flat(volume: torch.Tensor) -> np.ndarray:
        return volume[..., at].numpy().T[::-1, ::-1]

    clear = (np.abs(flat(first)) > 0.5) & (np.abs(flat(second)) > 0.5)
    assert (inside(view.mask, 40, 44) == (flat(second) > 0))[clear].all()
    lost = (flat(first) > 0) & (flat(second) <= 0)
    assert lost.any() and (inside(view.loss, 40, 44) == lost)[clear].all() and view.gain == ""
    assert (inside(view.target, 40, 44) == (flat(target[0]) > 0)).all()
    assert frames[0].views[0].gain == "" and frames[2].views[0].others and frames[3].views[0].box is not None
    mask = (second > 0) & (target[0] >= 0)
    dice = 2 * (mask & (target[0] > 0)).sum() / (mask.sum() + (target[0] > 0).sum())
    assert frames[1].dice == pytest.approx(float(dice)) and frames[2].dice is None
    assert frames[1].volume_ml == pytest.approx(float(mask.sum()) * 1.5**3 / 1000)


class Balanced(HTMLParser):
    """Counts open tags; an unbalanced page is a broken page."""

    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [v or "" for k, v in attrs if k in ("href", "src")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [v or "" for k, v in attrs if k in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(growing: Build, tmp_path: Path) -> None:
    one, target = session(growing, experts=2)
    file = write_session_page(
        tmp_path / "a b" / "sitzung ü.html", one, targets={"left <ball>": target}, experts=["general", "a & b", "c"]
    )
    page = file.read_text(encoding="utf-8")
    parser = Balanced()
    parser.feed(page)
    assert parser.open == [] and all(link.startswith(("data:image/webp", "#f")) for link in parser.links)
    assert page.count('class="frame"') == 4 and "left &lt;ball&gt;" in page and "a &amp; b" in page
    assert "<ball>" not in page and "Dice over prompts" in page and "What the gate weighs" in page
    ids = re.findall(r'<g class="view" id="(\w+)"', page)
    assert len(ids) == len(set(ids)) == 12 and all(f"#{i}" in page for i in ids if i.endswith("axial"))
    assert sorted(p.name for p in file.parent.iterdir()) == [file.name]


def test_without_truth_and_gate_there_are_no_charts(growing: Build) -> None:
    one, _ = session(growing)
    page = render_session(session_frames(one))
    assert "Dice over prompts" not in page and "What the gate weighs" not in page and " ml</b>" in page
    assert 'data-layer="truth"' not in page


def test_refusals(growing: Build, tmp_path: Path) -> None:
    one, target = session(growing, experts=2)
    with pytest.raises(ConfigError, match="one name per output"):
        write_session_page(tmp_path / "a.html", one, experts=["general"])
    with pytest.raises(PromptError, match="no object of that name"):
        write_session_page(tmp_path / "a.html", one, targets={"spleen": target})
    while one.events:
        one.undo()
    with pytest.raises(PromptError, match="nothing to show"):
        write_session_page(tmp_path / "a.html", one)
    assert not list(tmp_path.iterdir())
