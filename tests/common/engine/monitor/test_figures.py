"""Figures are built as somebody last looked at them: ``approved/`` tells the parts of each, line by line.

Who changes a figure looks at the new picture (the failure names it) and copies what tells of it there. How letters and
lines become pixels is matplotlib's business, and differs between machines.

Also the test of ``common.engine.monitor.history``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import rc_context, rcParamsDefault
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from monai.data import MetaTensor

from common.data.phantom.preview import contact_sheet
from common.engine.monitor.case_pictures import draw_planes, three_planes
from common.engine.monitor.gate_pictures import GateSlice, draw_gate_slice, draw_usage
from common.engine.monitor.history import draw_curves
from common.engine.monitor.overlays import draw_overlay, radiological
from common.labels import LabelSpace
from common.methods.ic_moe.vote_pictures import draw_vote
from common.methods.ka2er.attention_maps import draw_attention
from common.methods.sam_med3d_moe.forgetting_picture import draw_forgetting
from common.methods.samora.stage_two.fusion_pictures import draw_views, view_rows
from tools.amalgamate.pictures import Layer, Shown, draw

APPROVED = Path(__file__).with_name("approved")
NAMES = LabelSpace(("liver", "spleen", "aorta"))
AFFINE = np.array([[0, 3.0, 0, 5], [-2.0, 0, 0, 7], [0, 0, 1.5, 9], [0, 0, 0, 1]])


# ---- what a figure is made of ------------------------------------------------------------------------------------


def _short(value: Any) -> str:
    if isinstance(value, float | int | np.generic):
        return f"{float(value):.4g}"
    if isinstance(value, tuple | list | np.ndarray):
        return "(" + " ".join(map(_short, value)) + ")"
    return str(value)


def _array(values: Any) -> str:
    """Shape, and two sums of which the second knows the order."""
    array = np.ma.filled(np.ma.asarray(values).astype(float), -9.0)
    ramp = np.linspace(1, 2, array.size).reshape(array.shape)
    return f"{array.shape} mean {_short(array.mean())} inclined {_short((array * ramp).mean())}"


def _text(one: Any) -> str:
    return f"{one.get_text()!r} at {_short(one.get_position())} size {one.get_fontsize():g} {to_hex(one.get_color())}"


def _legend(legend: Any) -> Iterator[str]:
    yield f"legend {legend._loc} columns {legend._ncols} frame {legend.get_frame_on()}"
    for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
        colours = [
            getattr(handle, f"get_{what}")() for what in ("facecolor", "color") if hasattr(handle, f"get_{what}")
        ]
        shown = to_hex(np.ravel(colours[0])[:4] if not isinstance(colours[0], str) else colours[0], keep_alpha=True)
        yield f"  {_text(text)} of {shown}"


def _panel(panel: Any) -> Iterator[str]:
    place = panel.get_position(original=True).bounds
    yield f"panel {_short(place)} x {_short(panel.get_xlim())} y {_short(panel.get_ylim())} axis {panel.axison}"
    yield f"  aspect {_short(panel.get_aspect())} labels {panel.get_xlabel()!r} {panel.get_ylabel()!r}"
    yield f"  title {_text(panel.title)}"
    for one in panel.images:
        yield f"  image {_array(one.get_array())} in {_short(one.get_extent())} from {_short(one.get_clim())}"
        yield f"    {one.get_cmap().name} {one.origin} alpha {one.get_alpha()} {one.get_interpolation()}"
    for one in panel.lines:
        yield f"  line {_short(one.get_xydata())} {to_hex(one.get_color())} {one.get_linewidth():g} {one.get_marker()}"
    for one in panel.collections:
        kind = "marks" if isinstance(one, PathCollection) else "outline"
        points = one.get_offsets() if kind == "marks" else np.concatenate([p.vertices for p in one.get_paths()])
        dashes = [part for _, part in one.get_linestyles() if part is not None]
        style = f"{_short(np.ravel(one.get_linewidths()))} dashed {bool(dashes)}"
        yield f"  {kind} {_array(points)} {_short(np.ravel(one.get_edgecolors())[:4])} {style}"
    for one in panel.patches:
        yield f"  patch {_short(one.get_bbox().bounds)} {one.get_fill()} {to_hex(one.get_edgecolor())}"
    for one in panel.texts:
        yield f"  text {_text(one)} turned {one.get_rotation():g}"
    if panel.get_legend() is not None:
        yield from _legend(panel.get_legend())


def told(figure: Figure) -> Iterator[str]:
    yield f"figure {_short(figure.get_size_inches())} {to_hex(figure.get_facecolor())}"
    for one in figure.texts:
        yield f"text {_text(one)}"
    for panel in figure.axes:
        yield from [f"bar {panel.get_ylabel()!r}"] if panel.get_label() == "<colorbar>" else _panel(panel)
    for legend in figure.legends:
        yield from _legend(legend)


@pytest.fixture(autouse=True)
def plain_settings() -> Iterator[None]:
    """nnU-Net's own plots change matplotlib's settings for the whole process."""
    with rc_context(rcParamsDefault):
        yield


# ---- the figures -------------------------------------------------------------------------------------------------


def grid(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=float).reshape(shape)


def masks(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    label, pred = np.zeros(shape, int), np.zeros(shape, int)
    label[2:5, 1:4], pred[3:6, 2:4] = 1, 1
    label[6:8, 4:6], pred[6:8, 3:6] = 3, 2
    return label, pred


def overlay(folder: Path) -> None:
    label, pred = masks(9, 8, 6)
    arrays, spacing = radiological((grid(9, 8, 6), label, pred), torch.as_tensor(AFFINE))
    image, label, pred = arrays
    draw_overlay(folder / "x.png", image=image, label=label, pred=pred, labels=NAMES, spacing=spacing, title="case 1")


def overlay_flat(folder: Path) -> None:
    _, pred = masks(9, 7)
    draw_overlay(folder / "x.png", image=grid(9, 7), label=None, pred=pred, labels=NAMES, title="flat")


def overlay_bare(folder: Path) -> None:
    draw_overlay(folder / "x.png", image=np.full((5, 4, 4), np.nan), label=None, pred=None, labels=NAMES)


def planes(folder: Path) -> None:
    label, pred = masks(9, 8, 6)
    image = MetaTensor(torch.as_tensor(grid(9, 8, 6))[None], affine=torch.as_tensor(AFFINE))
    shown = three_planes(label, pred, AFFINE, image, 3)
    assert [p.pixel for p in shown] == [(3.0, 2.0), (3.0, 1.5), (2.0, 1.5)]
    draw_planes(shown, LabelSpace(tuple("abcdefg")), "a title", folder / "x.png")


def planes_flat(folder: Path) -> None:
    label, pred = masks(9, 7)
    draw_planes(three_planes(label, pred, np.diag([2.0, 3, 1, 1]), None, 1), NAMES, "flat", folder / "x.png")


def usage(folder: Path) -> None:
    table = {"CT": {"CT": 0.7, "T2 of a body": 0.3}, "MR": {"CT": 0.4, "T2 of a body": 0.6}}
    draw_usage(folder / "x.png", {"encoder": table, "decoder": {}})


def usage_of_two(folder: Path) -> None:
    table = {"CT": {"CT": 0.59, "MR": 0.41}}
    draw_usage(folder / "x.png", {"encoder": table, "decoder": table})


def gates(folder: Path) -> None:
    maps = {"encoder": np.stack([grid(6, 5) / 30, 1 - grid(6, 5) / 30])}
    one = GateSlice("c1", "t", "CT", grid(6, 5), grid(6, 5) > 12, maps, (2.0, 1.0))
    draw_gate_slice(folder / "x.png", one, ("CT", "MR"))


def curves(folder: Path) -> None:
    rows: list[dict[str, float | None]] = [
        {"epoch": e, "iteration": e, "lr": 0.1, "loss": 1 / e, "extra": 2.0 * e, "val_mean_dice": None, "val_hd": 7.0}
        for e in (1.0, 2.0, 3.0)
    ]
    draw_curves([*rows, {"epoch": 4.0, "loss": float("nan"), "val_mean_dice": 0.5}], folder / "x.png")


def curves_of_losses(folder: Path) -> None:
    draw_curves([{"epoch": float(e), "seconds": 1.0, "loss": float(e)} for e in range(40)], folder / "x.png")


def votes(folder: Path) -> None:
    label, pred = (torch.as_tensor(m) for m in masks(8, 8))
    views = SimpleNamespace(
        answers={"basic": label, "adaptive": pred, "answer": pred}, votes=label % 3, chosen=["adaptive"],
        scores={"adaptive": 0.51234}, features={"basic": torch.as_tensor(grid(3, 8, 8)) / 200},
        cams={"basic": torch.as_tensor(grid(8, 8)) / 64},
    )  # fmt: skip
    draw_vote(folder / "x.png", torch.as_tensor(grid(1, 8, 8)) / 64, views, label=label, title="a vote")


def attention(folder: Path) -> None:
    draw_attention(folder / "x.png", grid(4, 6, 8), {"an expert": grid(4, 6, 8) / 64}, title="ct")


def forgetting(folder: Path) -> None:
    dice = {"1 click": {"general": 0.5, "experts": 0.7, "mixture": 0.65}}
    groups = {"one": {"structures": 2, "dice": dice}, "all others": {"structures": 5, "dice": dice}}
    draw_forgetting({"prompts": ["1 click"], "groups": groups}, folder / "x.png")


def fusion(folder: Path) -> None:
    label, pred = (torch.as_tensor(m) for m in masks(8, 8))
    views = SimpleNamespace(
        answers={"all": label, "without one": pred, "no expert": label * 0},
        asked={"all": {"step 1": torch.as_tensor(grid(8, 8)) / 32}},
        changed={"without one": torch.as_tensor(grid(8, 8)) / 100, "no expert": torch.as_tensor(grid(8, 8)) / 10},
    )
    draw_views(folder / "x.png", grid(8, 8), views, title="a slice")
    rows = view_rows(views)
    assert [r["without"] for r in rows] == ["one", "all"]
    assert [r["pixels_of_another_class"] for r in rows] == [
        float((a != label).float().mean()) for a in (pred, label * 0)
    ]
    assert [r["embedding_distance"] for r in rows] == pytest.approx([0.315, 3.15])


def beside(folder: Path) -> None:
    label, pred = (torch.as_tensor(m) for m in masks(9, 8, 6))
    image = MetaTensor(torch.as_tensor(grid(1, 9, 8, 6)), affine=torch.as_tensor(AFFINE))
    draw(folder, Shown("t", "c", image, (Layer("student", label), Layer("expert", pred))), NAMES)


FIGURES: dict[str, Callable[[Path], None]] = {
    f.__name__: f
    for f in (overlay, overlay_flat, overlay_bare, planes, planes_flat, usage, usage_of_two, gates, curves,
              curves_of_losses, votes, attention, forgetting, fusion, beside)
}  # fmt: skip


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    save = Figure.savefig

    def heard(self: Figure, path: Any, **options: Any) -> None:
        lines.extend([*told(self), f"saved {sorted((k, str(v)) for k, v in options.items())}"])
        save(self, path, **options)

    monkeypatch.setattr(Figure, "savefig", heard)
    return lines


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_as_it_was_looked_at(name: str, kept: list[str], tmp_path: Path) -> None:
    FIGURES[name](tmp_path)
    new, known = tmp_path / f"{name}.txt", APPROVED / f"{name}.txt"
    new.write_text("\n".join(kept) + "\n", encoding="utf-8")
    (picture,) = (p for p in tmp_path.iterdir() if p.suffix == ".png")
    assert kept and known.is_file() and known.read_text(encoding="utf-8") == new.read_text(encoding="utf-8"), (
        f"look at {picture}; if it is good, {new} is the new {known}"
    )


def test_the_contact_sheet_has_a_row_for_each_dataset(phantom_dir: Path, kept: list[str], tmp_path: Path) -> None:
    contact_sheet([phantom_dir / "phantom_ct", phantom_dir / "phantom_mr"], tmp_path / "x.png", columns=2)
    known = APPROVED / "contact_sheet.txt"
    (tmp_path / "contact_sheet.txt").write_text("\n".join(kept) + "\n", encoding="utf-8")
    assert known.is_file() and known.read_text(encoding="utf-8") == "\n".join(kept) + "\n", tmp_path


def test_no_figure_is_kept_that_nobody_draws() -> None:
    assert {p.stem for p in APPROVED.iterdir()} == {*FIGURES, "contact_sheet"}
