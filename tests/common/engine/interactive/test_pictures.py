"""Outlines by the number, and a session's frames as somebody last looked at them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.engine.interactive.pictures import Frame, PlaneView, _grey_levels, outline, session_frames
from tests.common.engine.interactive.test_page import session

APPROVED = Path(__file__).with_name("approved_frames.txt")


def test_an_outline_runs_along_the_edges_of_pixels() -> None:
    plane = -np.ones((4, 4))
    assert outline(plane) == ""
    plane[1:3, 1], plane[3, 3] = 1, 3  # what is more certain reaches further
    assert outline(plane) == ("M3.0 2.5 2.5 3.0 1.5 3.0 1.0 2.5 1.5 2.0 2.5 2.0ZM4.2 0.5 3.5 1.2 2.8 0.5 3.5 -0.2Z")
    whole = "M2.0 0.5 2.0 2.5 1.5 3.0 0.5 3.0 0.0 2.5 0.0 0.5 0.5 0.0 1.5 0.0Z"
    assert outline(np.ones((2, 3))) == whole


@pytest.mark.parametrize(
    ("low", "high", "levels"),
    [(-1000, 1000, (-160.0, 240.0)), (-400, 600, (-390.0, 595.0)), (-500, 500, (-490.0, 495.0)), (0, 0, (0.0, 1e-6))],
)
def test_grey_levels_are_those_of_soft_tissue_where_there_is_air(
    low: int, high: int, levels: tuple[float, float]
) -> None:
    assert _grey_levels(torch.linspace(low, high, 1001)) == pytest.approx(levels)


def _numbers(values: Any) -> str:
    return " ".join(f"{float(v):.4g}" for v in values)


def _view(view: PlaneView) -> Iterator[str]:
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(view.image.partition(",")[2]))).convert("L"))
    yield f"  {view.name} part {_numbers(view.part)} of {pixels.shape} box {view.box and _numbers(view.box)}"
    yield f"    windows {[_numbers(w) for w in view.windows]}"
    for mark in view.marks:
        yield f"    mark {_numbers(mark[:2])} inside {mark.inside} near {mark.near} new {mark.new}"
    for name in ("mask", "gain", "loss", "target"):
        yield f"    {name} {getattr(view, name)}"
    for number, path in view.others:
        yield f"    other {number} {path}"


def _frame(frame: Frame) -> Iterator[str]:
    dice = None if frame.dice is None else round(frame.dice, 4)
    scores = None if frame.scores is None else _numbers(frame.scores)
    yield f"{frame.name} {frame.number} prompt {frame.prompt} {frame.kind} {frame.volume_ml:.5g} ml dice {dice}"
    yield f"  scores {scores} chosen {frame.chosen} windows {frame.windows} scored {frame.scored}"
    for view in frame.views:
        yield from _view(view)


def test_frames_are_as_they_were_looked_at(growing: Callable[..., Any], tmp_path: Path) -> None:
    """Of four prompts about two objects, one of which has a target; who changes them looks at the session's page."""
    one, target = session(growing, experts=2)
    frames = session_frames(one, {"left <ball>": target})
    found = "\n".join(line for frame in frames for line in _frame(frame)) + "\n"
    (tmp_path / APPROVED.name).write_text(found, encoding="utf-8")
    assert APPROVED.is_file() and APPROVED.read_text(encoding="utf-8") == found, tmp_path
