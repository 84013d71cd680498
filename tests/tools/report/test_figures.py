"""Drawings say what they are drawn from: every value is read off again by the ticks of its axis."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import pytest

from tools.report.diagram import HIGH, diagram
from tools.report.figures import Series, bar, curves, dumbbells, intervals, scale, scatter, ticks
from tools.report.numbers import Model, Stat
from tools.report.page import _training
from tools.report.results import Run, Study

STATS = {"a": Stat(0.62, 0.55, 0.71, 9), "b": Stat(0.8, 0.78, 0.83, 9)}
MODELS = [Model("a", "first", ()), Model("b", "second", ())]


def of(drawing: Element | None, tag: str, cls: str = "") -> list[Element]:
    assert drawing is not None
    return [e for e in drawing.iter() if e.tag.endswith(tag) and cls in [*(e.get("class") or "").split(), ""]]


def axis(drawing: Element | None, *, upright: bool) -> np.poly1d:
    """Values by positions, from the ticks: those across have one height, those upwards stand at the left."""
    ticks = [e for e in of(drawing, "text", "tick") if re.fullmatch(r"−?[\d.]+", e.text or "")]
    own = [e for e in ticks if (e.get("text-anchor") == "end") == upright]
    places = np.array([float(e.get("y" if upright else "x") or "nan") - (4 if upright else 0) for e in own])
    values = np.array([float((e.text or "").replace("−", "-")) for e in own])
    fitted = np.poly1d(np.polyfit(places, values, 1))
    assert len(own) >= 2 and np.allclose(fitted(places), values, atol=np.ptp(values) * 2e-3)
    return fitted


def places(elements: list[Element], name: str) -> np.ndarray:
    return np.array([float(e.get(name) or "nan") for e in elements])


def test_intervals() -> None:
    drawing = intervals(MODELS, STATS, "dice", "Dice")
    across = axis(drawing, upright=False)
    assert across(places(of(drawing, "circle"), "cx")) == pytest.approx([0.62, 0.8], abs=1e-3)
    spans = of(drawing, "line", "span")
    assert across(places(spans, "x1")) == pytest.approx([0.55, 0.78], abs=1e-3)
    assert across(places(spans, "x2")) == pytest.approx([0.71, 0.83], abs=1e-3)
    assert intervals(MODELS, {k: Stat(0, 0, 0, 0) for k in STATS}, "dice", "Dice") is None


def test_a_small_bar_spans_its_scale() -> None:
    drawing = bar(STATS["a"], "a", 0.5, 1.0, width=106)  # 100 wide between margins of 3
    (span,), (dot,) = of(drawing, "line", "span"), of(drawing, "circle")
    assert [span.get("x1"), span.get("x2"), dot.get("cx")] == ["13.0", "45.0", "27.0"]
    beyond = bar(Stat(0.4, 0.2, 1.2, 3), "a", 0.5, 1.0, width=106)
    assert [e.get("x1") for e in of(beyond, "line", "span")] == ["3.0"] and "103.0" in str(of(beyond, "line")[1].attrib)
    assert bar(Stat(0, 0, 0, 0), "a", 0, 1) is None


def test_cases_side_by_side() -> None:
    cases = [("case 1", {"a": 0.3, "b": 0.9}), ("case 2", {"a": 0.5, "b": float("nan")})]
    drawing = dumbbells(cases, MODELS, "Dice")
    across = axis(drawing, upright=False)
    assert across(places(of(drawing, "circle"), "cx")) == pytest.approx([0.3, 0.9, 0.5], abs=1e-3)
    (join,) = of(drawing, "line", "join")
    assert [across(float(join.get(k) or "nan")) for k in ("x1", "x2")] == pytest.approx([0.3, 0.9], abs=1e-3)


def test_one_against_the_other() -> None:
    drawing = scatter([("x", 0.2, 0.6), ("y", 0.7, 0.4), ("z", 0.5, 0.5)], ("alone", "with"), "a")
    dots = of(drawing, "circle")
    assert axis(drawing, upright=False)(places(dots, "cx")) == pytest.approx([0.2, 0.7, 0.5], abs=2e-3)
    assert axis(drawing, upright=True)(places(dots, "cy")) == pytest.approx([0.6, 0.4, 0.5], abs=2e-3)
    assert [e.text for e in of(drawing, "text", "note")] == ["1 better", "1 worse"]


@pytest.mark.parametrize("unit", [False, True])
def test_lines_over_epochs(unit: bool) -> None:
    points = [(1.0, 0.42), (5.0, 0.58), (9.0, 0.55)]
    drawing = curves([Series("s", "a", points)], "a measure", unit=unit)
    (path,) = of(drawing, "polyline")
    drawn = np.array([[float(v) for v in p.split(",")] for p in (path.get("points") or "").split()])
    assert axis(drawing, upright=False)(drawn[:, 0]) == pytest.approx([1, 5, 9], abs=0.02)
    assert axis(drawing, upright=True)(drawn[:, 1]) == pytest.approx([0.42, 0.58, 0.55], abs=2e-3)
    bottom = axis(drawing, upright=True)(10.0 + (250 - 10 - 40))
    assert bottom == pytest.approx(0.0, abs=2e-3) if unit else bottom > 0.3


def test_dice_starts_at_nothing_and_the_loss_where_it_is() -> None:
    """On the page an overlap has its whole axis, so that a small gain does not look like a large one."""
    history: list[dict[str, float | None]] = [
        {"epoch": e, "loss": 0.4 + 0.01 * e, "val_mean_dice": 0.5 + 0.01 * e} for e in (1.0, 2.0, 3.0)
    ]
    found = _training(Study(Path("x"), [Run("r", "run", "a run", Path("x"), history=history)]))
    assert found is not None
    dice, loss = [card.picture for card in found["cards"]]
    assert axis(dice, upright=True)(210.0) == pytest.approx(0.0, abs=2e-3)
    assert axis(loss, upright=True)(210.0) > 0.4


def _outside(drawing: Element | None) -> list[Element]:
    """What lies beyond the frame, texts by the point that they start or end at."""
    assert drawing is not None
    _, _, width, height = (float(v) for v in (drawing.get("viewBox") or "").split())
    ends = (("x", width), ("x1", width), ("x2", width), ("cx", width), ("y", height), ("y1", height), ("y2", height),
            ("cy", height))  # fmt: skip
    return [e for e in drawing.iter() for name, most in ends if not 0 <= float(e.get(name) or 0) <= most]


def test_everything_lies_within_its_frame() -> None:
    cases = [(f"case {i}", {"a": 0.3, "b": 0.9}) for i in range(4)]
    runs = [Run("e", "expert", "an expert", Path("x")), Run("s", "amalgamated", "a student", Path("x"))]
    study = Study("x", runs, chain={"steps": []})
    drawings = {
        "intervals": intervals(MODELS, STATS, "dice", "Dice"),
        "dumbbells": dumbbells(cases, MODELS, "Dice"),
        "scatter": scatter([("x", 0.2, 0.6), ("y", 0.7, 0.4)], ("alone", "with"), "a"),
        "curves": curves([Series("s", "a", [(1.0, 0.4), (2.0, 0.6)])], "Dice"),
        "diagram": diagram(study, {"amalgamated": STATS["a"]}),
    }
    for name, drawing in drawings.items():
        assert _outside(drawing) == [], name
    scores = of(drawings["diagram"], "text", "score")
    assert [e.text for e in scores] == ["0.620"]
    below = [e for e in of(drawings["diagram"], "text", "boxnote") if e.text == "Dice"]
    assert below[0].get("x") == scores[0].get("x"), "what the number is stands below it"
    assert 0 < float(below[0].get("y") or 0) - float(scores[0].get("y") or 0) < HIGH


@pytest.mark.parametrize(
    ("low", "high", "count", "found"),
    [
        (0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 1, 4, [0, 0.25, 0.5, 0.75, 1]),
        (0, 10, 1, [0, 10]),
        (0, 10, 0, [0, 10]),
        (1, 9, 5, [2, 4, 6, 8]),
        (-30, 40, 3, [-25, 0, 25]),
        (0.41, 0.59, 4, [0.45, 0.5, 0.55]),
        (0, 9.99, 1, [0]),
        (3, 3, 5, [3]),
        (5, 3, 5, [5]),
        (0, 999, 1, [0]),
        (0, 1e-3, 2, [0, 5e-4, 1e-3]),
    ],
)
def test_ticks_are_round(low: float, high: float, count: int, found: list[float]) -> None:
    assert ticks(low, high, count) == pytest.approx(found)
    assert ticks(0, 11) == [0, 2.5, 5, 7.5, 10], "about five where nobody says how many"


def test_a_scale_leaves_room_and_ends_where_the_measure_does() -> None:
    wide, narrow = Stat(0.5, 0.13, 0.9, 3), Stat(0.5, 0.46, 0.6, 3)
    assert scale([wide, narrow], "dice") == (0.1, 1.0) and scale([narrow], "iou") == (0.4, 1.0)
    assert scale([Stat(0, 0.01, 0, 2)], "dice") == (0.0, 1.0) == scale([Stat(0.5, 0.4, 0.6, 0)], "dice")
    for measure in ("hd95", "hd"):
        assert scale([Stat(5, 4, 10, 2), Stat(5, 4, 8, 2)], measure) == (0.0, pytest.approx(10.3))
    assert scale([Stat(0, 0, 0, 2)], "hd") == (0.0, pytest.approx(1.03e-6))


def test_what_never_changes_is_a_level_line() -> None:
    """A number so large that no margin is added to it; one epoch; a bar of no width."""
    drawing = curves([Series("s", "a", [(1.0, 1e12), (2.0, 1e12)])], "a loss")
    (path,) = of(drawing, "polyline")
    assert path.get("points") == "46.0,210.0 446.0,210.0"
    (path,) = of(curves([Series("s", "a", [(3.0, 0.5)])], "Dice", unit=True), "polyline")
    assert (path.get("points") or "").startswith("46.0,")
    assert of(bar(Stat(0.5, 0.5, 0.5, 3), "a", 0.5, 0.5, width=106), "circle")[0].get("cx") == "3.0"
