"""Drawings are as somebody last looked at them: ``approved/`` holds each as an SVG that a browser shows.

Who changes a drawing looks at the new one (the failure names its file) and copies it there: so a line that moved by
accident is seen, and one that moved on purpose is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from common.engine.interactive.charts import dice_card, gate_card
from common.engine.interactive.pictures import Frame
from tools.amalgamate.lesson_map import lesson_map
from tools.amalgamate.lessons import Lesson
from tools.report.diagram import diagram
from tools.report.figures import Series, bar, curves, dumbbells, intervals, scatter
from tools.report.numbers import Model, Stat
from tools.report.pair_figures import pairs, strips
from tools.report.results import Run, Study

APPROVED = Path(__file__).with_name("approved")
A, B = Model("a", "first", ()), Model("b", "second, with a name beyond the width", ())
STATS = {"a": Stat(0.62, 0.55, 0.71, 9), "b": Stat(0.8, 0.78, 0.83, 9)}
CASES_A = {("t", f"case {i}"): v for i, v in enumerate((0.31, 0.62, 0.7, 0.84, 0.9, 0.5))}
CASES_B = {**{k: 0.9 - v / 3 for k, v in CASES_A.items()}, ("t", "case 5"): 0.5, ("t", "case 6"): math.nan}


def _rows(*dice: float) -> list[dict[str, object]]:
    return [{"task": "t", "case": f"c{i}", "structure": "liver", "dice": v} for i, v in enumerate(dice)]


def _study(experts: int, students: tuple[str, ...]) -> Study:
    told = {
        "t0": {"modality": ["CT", "T2 MR"], "structures": ["a", "b"], "cases": {"training": 4}},
        "t1": {"modality": "a modality whose name is longer than what fits", "structures": [], "cases": {}},
    }
    runs = [Run(f"expert:t{i}", "expert", f"Expert {i}", Path("x"), rows=_rows(0.7, 0.8)) for i in range(experts)]
    runs += [Run("external:all that it was ever trained on", "external", "an external one", Path("x"))]
    for kind in students:
        runs += [Run(f"{kind}{s}", kind, kind, Path("x"), status=("done", "failed")[s]) for s in range(2)]
    return Study("x", runs, chain={"steps": [], "tasks": told})


def _frame(name: str, number: int, prompt: int, kind: str, dice: float | None, scores: list[float] | None) -> Frame:
    return Frame(name, number, prompt, kind, [], 1.0, dice, scores, None, 1)


FRAMES = [
    _frame("liver", 1, 1, "inside", 0.62, [0.6, 0.36, 0.04]),
    _frame("liver", 1, 2, "outside", 0.81, None),
    _frame("spleen", 2, 1, "box", math.nan, [0.05, 0.94, 0.01]),
    _frame("spleen", 2, 2, "inside", 0.4, [0.1, 0.85, 0.049]),
]
LONG = [_frame("liver", 1, i, "inside", min(0.95, i / 20), [i / 40, 1 - i / 40]) for i in range(1, 31)]
LESSONS = [
    Lesson("a teacher of long name", "ct", "CT", "liver", 9, 9),
    Lesson("a teacher of long name", "ct", "CT", "spleen", 9, 1),
    Lesson("other", "mr", "MR", "liver", 0, 0),
    Lesson("other", "mr", "MR", "left kidney", 400, 1),
    Lesson("other", "ct", "CT", "liver", 0, None, "it reads MR"),
]
DRAWINGS: dict[str, Callable[[], ElementTree.Element | None]] = {
    "bar": lambda: bar(STATS["a"], "a", 0.5, 1.0),
    "intervals": lambda: intervals([A, B], STATS, "dice", "Dice"),
    "intervals_hd95": lambda: intervals([A, B], {"a": Stat(7.2, 5, 9, 4), "b": Stat(3, 2, 4.5, 4)}, "hd95", "mm"),
    "dumbbells": lambda: dumbbells(
        [("case 1", {"a": 0.3, "b": 0.9}), ("a case of seventeen", {"a": 0.5}), ("sixteen letters ", {"b": 0.55})],
        [A, B],
        "Dice",
    ),
    "dumbbells_24": lambda: dumbbells([(f"c{i}", {"a": i / 30, "b": 0.8}) for i in range(24)], [A, B], "Dice"),
    "dumbbells_25": lambda: dumbbells([(f"c{i}", {"a": i / 30, "b": 0.8}) for i in range(25)], [A, B], "Dice"),
    "dumbbells_alike": lambda: dumbbells([("one", {"a": 0.5})], [A, B], "Dice"),
    "scatter": lambda: scatter([("x", 0.2, 0.6), ("y", 0.7, 0.4), ("z", 0.5, 0.5)], ("alone", "with"), "a"),
    "curves": lambda: curves([Series("s", "a", [(1.0, 0.42), (5.0, 0.58), (9.0, 0.55)])], "a loss"),
    "curves_unit": lambda: curves([Series("s", "a", [(1, 0.42), (2, 0.5)]), Series("e", "b", [])], "Dice", unit=True),
    "diagram": lambda: diagram(_study(2, ("amalgamated", "alone")), STATS | {"amalgamated": STATS["b"]}),
    "diagram_of_many": lambda: diagram(_study(5, ("amalgamated",)), {}),
    "strips": lambda: strips([(A, CASES_A), (B, {k: v for k, v in CASES_B.items() if v == v})], "Dice"),
    "strips_alike": lambda: strips([(A, {("t", "one"): 0.5}), (B, {})], "Dice"),
    "pairs": lambda: pairs((A, CASES_A), (B, CASES_B)),
    "dice_over_prompts": lambda: (dice_card(FRAMES) or FRAMES[0]).chart,  # type: ignore[union-attr]
    "dice_over_many_prompts": lambda: (dice_card(LONG) or FRAMES[0]).chart,  # type: ignore[union-attr]
    "gate": lambda: (gate_card(FRAMES, ("general", "one", "two")) or FRAMES[0]).chart,  # type: ignore[union-attr]
    "lessons": lambda: lesson_map(LESSONS, {"other": "run3"}),
    "gate_of_many": lambda: (gate_card(LONG, ("general", "one")) or FRAMES[0]).chart,  # type: ignore[union-attr]
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_as_it_was_looked_at(name: str, tmp_path: Path) -> None:
    drawing = DRAWINGS[name]()
    assert drawing is not None
    drawing.set("xmlns", "http://www.w3.org/2000/svg")
    ElementTree.indent(drawing)
    found = ElementTree.tostring(drawing, encoding="unicode") + "\n"
    new, known = tmp_path / f"{name}.svg", APPROVED / f"{name}.svg"
    new.write_text(found, encoding="utf-8")
    assert known.is_file() and known.read_text(encoding="utf-8") == found, f"look at {new}; if it is good: {known}"


def test_no_drawing_is_kept_that_nobody_draws() -> None:
    assert {p.stem for p in APPROVED.iterdir()} == set(DRAWINGS)


def test_a_legend_names_what_is_drawn() -> None:
    dice, gate = dice_card(FRAMES), gate_card(FRAMES, ("general", "one", "two"))
    assert dice is not None and [name for _, name in dice.legend] == ["liver", "spleen"]
    assert gate is not None and [name for _, name in gate.legend] == ["general", "one"], "two is never 5 %"
    assert gate.legend[0][0] == "#8b95a3" and len({colour for colour, _ in [*dice.legend, *gate.legend]}) == 4
    assert dice_card([FRAMES[2]]) is gate_card([FRAMES[1]], ()) is None


def test_nothing_known_is_no_drawing() -> None:
    nothing = {("t", "one"): math.nan}
    assert strips([(A, {})], "Dice") is pairs((A, nothing), (B, CASES_B)) is pairs((A, CASES_A), (B, nothing)) is None
    assert dumbbells([("one", {"a": math.nan})], [A], "Dice") is None
    assert scatter([("x", math.nan, 1.0), ("y", 1.0, math.nan)], ("a", "b"), "a") is curves([], "Dice") is None
    assert lesson_map(LESSONS[-1:], {}) is None
    assert diagram(Study("x", []), {}) is diagram(Study("x", [], chain={}), {}) is None
