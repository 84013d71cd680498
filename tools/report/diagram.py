"""The drawing of what was amalgamated: experts on the left, one student on the right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from xml.etree.ElementTree import Element

from common.pages import shape

from .figures import svg, text
from .numbers import Model, Stat, statistic
from .results import Run, Study

__all__ = ["diagram"]

WIDTH, LEFT, BOX, HIGH, GAP = 940.0, 4.0, 320.0, 66.0, 14.0
MIDDLE, RIGHT, HUB = 392.0, 628.0, 178.0


def diagram(study: Study, stats: Mapping[str, Stat]) -> Element | None:
    """Experts, the amalgamation and the students, each with its mean Dice.

    Args:
        study: of a chain.
        stats: overall Dice of the models, by key.
    """
    experts = [*study.kind("expert"), *study.kind("external")]
    if study.chain is None or not experts:
        return None
    students = [k for k in ("amalgamated", "alone") if study.kind(k)]
    height = max(len(experts) * (HIGH + GAP) - GAP, 2 * HIGH + 70.0) + 20
    centre = height / 2
    top = centre - (len(experts) * (HIGH + GAP) - GAP) / 2
    target = centre - 55 if "alone" in students else centre
    body: list[Element] = []
    for i, run in enumerate(experts):
        y = top + i * (HIGH + GAP)
        body.append(_link(LEFT + BOX, y + HIGH / 2, MIDDLE, target, run.kind))
        body += _expert(run, study, y)
    body.append(_rect(MIDDLE, target - 44, HUB, 88, 44, "hub"))
    for line, (down, style) in zip(
        study.words["hub"], ((-8, "hubtext"), (12, "hubnote"), (27, "hubnote")), strict=True
    ):
        body.append(text(MIDDLE + HUB / 2, target + down, line, style, "middle"))
    body.append(_link(MIDDLE + HUB, target, RIGHT, target, "amalgamated"))
    body += _student("amalgamated", study, stats, target - HIGH / 2 - 6)
    if "alone" in students:
        body += _student("alone", study, stats, centre + 55)
    return svg(WIDTH, height, body, "Experts are amalgamated into one student", "figure diagram")


def _rect(x: float, y: float, width: float, height: float, rx: float, cls: str) -> Element:
    place = {"x": f"{x:g}", "y": f"{y:.1f}", "width": f"{width:.0f}", "height": f"{height:.0f}"}
    return shape("rect", {**place, "rx": f"{rx:g}", "class": cls})


def _link(x1: float, y1: float, x2: float, y2: float, kind: str) -> Element:
    bend = (x2 - x1) / 2
    dash = " dashed" if kind == "external" else ""
    path = f"M{x1:.0f},{y1:.0f} C{x1 + bend:.0f},{y1:.0f} {x2 - bend:.0f},{y2:.0f} {x2:.0f},{y2:.0f}"
    return shape("path", {"d": path, "class": f"link {kind}{dash}"})


def _expert(run: Run, study: Study, y: float) -> list[Element]:
    task = ((study.chain or {}).get("tasks") or {}).get(run.task, {})
    modality = task.get("modality", "")
    modality = ", ".join(map(str, modality)) if isinstance(modality, list | tuple) else str(modality)
    count, cases = len(task.get("structures", ())), (task.get("cases") or {}).get("training")
    parts = [modality, f"{count} structures" if count else "", f"{cases} cases" if cases else ""]
    role = "expert" if run.kind == "expert" else "task-agnostic expert"
    described = " · ".join(p for p in (*parts, "" if task else role) if p)
    name = run.title if run.kind == "expert" and not task else run.task  # trained on more than one task
    return _box(LEFT, y, BOX, run.kind, name, described[:46], _dice(run), run.status)


def _student(key: str, study: Study, stats: Mapping[str, Stat], y: float) -> list[Element]:
    runs = study.kind(key)
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else "1 seed"
    title, note = study.words[key], study.words[f"note_{key}"]
    stat = stats.get(key)
    status = "done" if all(r.status == "done" for r in runs) else runs[-1].status
    score = f"{stat.mean:.3f}" if stat and stat.n else ""
    return _box(RIGHT, y, WIDTH - RIGHT - 4, key, title, f"{note} · {seeds}", score, status)


def _dice(run: Run) -> str:
    mean = statistic(Model("expert", run.title, (run,)).values("dice")).mean
    return f"{mean:.3f}" if math.isfinite(mean) else ""


def _box(x: float, y: float, width: float, kind: str, title: str, note: str, score: str, status: str) -> list[Element]:
    body = [
        _rect(x, y, width, HIGH, 12, f"box {kind}" + ("" if status == "done" else " pending")),
        _rect(x, y + 14, 4, HIGH - 28, 2, f"edge {kind}"),
        text(x + 18, y + 29, title if len(title) < 30 else title[:28] + "…", "boxtitle"),
        text(x + 18, y + 49, note if status == "done" else f"{note} · {status}", "boxnote"),
    ]
    if score:
        body.append(text(x + width - 16, y + 32, score, "score", "end"))
        body.append(text(x + width - 16, y + 50, "Dice", "boxnote", "end"))
    return body
