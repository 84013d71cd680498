"""The page of a comparison: what its sections are filled with, the table, its figures, the cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .comparison import Comparison, Member
from .comparison_rows import MethodRow, annotated_values, method_rows, ordered
from .comparison_tables import costs, methods_table, structures
from .figures import Series, curves, intervals
from .frame import document
from .gallery import gallery, pictures
from .numbers import Model
from .page import facts, step
from .pair_figures import pairs, strips
from .results import Run, Study
from .sections import Card
from .viewer import viewer

__all__ = ["comparison_facts", "render_comparison"]


class Finding(NamedTuple):
    """What was measured: the best of each way, and how many others differ from the reference.

    Args:
        cases: how many.
        split: which.
        tops: way, title and mean Dice of the best that is not prompted and of the best that is.
        waiting: whether the reference is not evaluated yet.
        others: members that were tested against it.
        clear: of these, how many differ.
        few: cases, when they are too few for a small p; else 0.
        smallest: p that these cases allow.
    """

    cases: int
    split: str
    tops: list[tuple[str, str, float]]
    waiting: bool
    others: int
    clear: int
    few: int
    smallest: str


def render_comparison(comparison: Comparison, volumes: Mapping[str, Any], title: str | None = None) -> str:
    """The whole HTML document of a comparison.

    Args:
        comparison: what was measured.
        volumes: for the viewer, as :func:`~.volumes.viewer_volumes` gives them.
        title: heading.
    """
    rows = ordered(method_rows(comparison))
    study = Study(comparison.name, [r for m in comparison.members for r in _first_runs(m)])
    sections = {
        "overview": _overview(comparison, rows, title),
        "costs": costs(rows),
        "structures": structures(comparison),
        "cases": _cases(comparison, rows),
        "viewer": viewer(volumes) or volumes.get("note"),
        "training": _training(comparison),
        "overlays": gallery(study),
        "inside": pictures(study),
        "reproduce": _reproduce(comparison),
    }
    return document("comparison.html.j2", title or comparison.name, sections)


def _first_runs(member: Member) -> list[Run]:
    """The first seed under the member's name; experts of different tasks under their own."""
    runs = [r for r in member.model.runs if r.rows or r.pictures]
    if any(r.kind == "expert" for r in runs):
        return [_named(r, f"{member.title}: {r.task}") for r in runs]
    return [_named(r, member.title) for r in runs[:1]]


def _named(run: Run, title: str) -> Run:
    return Run(**{**run.__dict__, "id": title, "title": title, "kind": "run"})


def _overview(comparison: Comparison, rows: Sequence[MethodRow], title: str | None) -> dict[str, Any]:
    record, models = comparison.record, comparison.models
    when = str(record.get("created") or "")[:16].replace("T", " ")
    words = str((record.get("budget") or {}).get("words", ""))
    stats = {r.member.model.key: r.measures["dice"].mean for r in rows}
    known = [r.member.model for r in rows if r.member.model in models]
    return {
        "eyebrow": " · ".join(p for p in (f"{len(comparison.members)} methods", f"budget: {words}", when) if p),
        "heading": title or "One collection, one split, one budget",
        "finding": _finding(comparison, rows),
        "notices": _notices(comparison),
        "intervals": intervals(known, stats, "dice", "mean Dice with 95 % interval"),
        "reference": comparison.reference.title,
        "prompts": _prompts(rows),
        "table": methods_table(comparison, rows),
    }


def _prompts(rows: Sequence[MethodRow]) -> str:
    """What prompted methods are told; empty without one."""
    prompted = [r.member for r in rows if r.member.prompted]
    told = {
        "a box" if run.rules.get("prompt") == "box" else f"{run.rules['clicks']} clicks"
        for member in prompted
        for run in member.model.runs
        if run.rules.get("clicks")
    }
    return (" or ".join(sorted(told)) or "boxes or clicks") if prompted else ""


def _finding(comparison: Comparison, rows: Sequence[MethodRow]) -> Finding | None:
    known = [r for r in rows if r.measures["dice"].mean.n]
    if not known:
        return None
    ways = {w: [r for r in known if r.member.prompted == so] for w, so in (("", False), ("told where to look, ", True))}
    others = [r.measures["dice"] for r in known if r.measures["dice"].test.n]
    few = min((r.test.n for r in others), default=0)
    return Finding(
        cases=max(r.measures["dice"].mean.n for r in known),
        split=str(comparison.record.get("split", "")),
        tops=[(w, own[0].member.title, own[0].measures["dice"].mean.mean) for w, own in ways.items() if own],
        waiting=not any(r.member is comparison.reference for r in known),
        others=len(others),
        clear=sum(r.p_holm < 0.05 for r in others),
        few=few if 0 < few < 7 else 0,
        smallest=f"{2 / 2**few:.2g}",
    )


def _notices(comparison: Comparison) -> list[str]:
    notes = [f"{m.title}: {m.failure.splitlines()[0]}" for m in comparison.members if m.failure]
    silent = [m.title for m in comparison.members if not m.failure and m.model not in comparison.models]
    notes += [f"Not evaluated yet: {', '.join(silent)}. The same command continues."] if silent else []
    cut = [m.title for m in comparison.members if m.costs.clock]
    notes += [f"The clock ended trainings before their schedule was over: {', '.join(cut)}."] if cut else []
    early = [m.title for m in comparison.members if m.costs.early]
    notes += [f"Trainings ended before their budget: {', '.join(early)}."] if early else []
    notes += _unlike(comparison)
    left_out = comparison.record.get("left_out") or {}
    why = "; ".join(f"{name} {reason}" for name, reason in left_out.items())
    return notes + ([f"Left out: {why}."] if why else [])


def _unlike(comparison: Comparison) -> list[str]:
    """What members do not share although a reader would take it for granted."""
    notes = []
    own = {m.title: {k[:2] for k in m.model.values("dice")} for m in comparison.members if m.model in comparison.models}
    every = set[tuple[str, str]]().union(*own.values())
    shared = {k[:2] for v in annotated_values(comparison, "dice").values() for k in v}
    if every - shared:
        gone = {t: sum(c[0] == t for c in every - shared) for t in sorted({t for t, _ in every - shared})}
        lacking = [title for title, cases in own.items() if every - cases]
        told = ", ".join(f"{n} of {task}" for task, n in gone.items())
        why = f", as they lack in {', '.join(lacking)}" if lacking else ", as nothing is annotated there"
        notes.append(f"Left out of every figure: cases {told}{why}.")
    for what, seen in (
        (
            "machines, so that times and memory cannot be compared",
            {x for m in comparison.members for x in m.costs.machines},
        ),
        ("commits of the code", {c for m in comparison.members for c in m.commits}),
    ):
        notes += [f"Runs are of different {what}: {', '.join(sorted(seen))}."] if len(seen) > 1 else []
    if comparison.record.get("split") == "validation":
        notes.append("Scored on the validation cases: presets that keep the best checkpoint have chosen it by them.")
    return notes


def _cases(comparison: Comparison, rows: Sequence[MethodRow]) -> dict[str, Any] | None:
    values = annotated_values(comparison, "dice")
    members = [(r.member.model, _case_means(values[r.member.model.key])) for r in rows if r.member.model.key in values]
    if not members:
        return None
    reference = next((m for m in members if m[0] is comparison.reference.model), members[0])
    cards = [Card(m[0].title, pairs(reference, m)) for m in members if m is not reference]
    return {"strips": strips(members, "mean Dice of the case"), "reference": reference[0].title, "cards": cards}


def _case_means(values: Mapping[tuple[str, str, str], float]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], list[float]] = {}
    for (task, case, _), v in values.items():
        if math.isfinite(v):
            found.setdefault((task, case), []).append(v)
    return {c: sum(v) / len(v) for c, v in found.items()}


def _training(comparison: Comparison) -> dict[str, Any] | None:
    series = [
        Series(r.title, m.model.key, _points(r, "loss")) for m in comparison.members for r in m.model.runs if r.history
    ]
    picture = curves(series, "training loss over epochs")
    names = [Model(m.model.key, m.title, ()) for m in comparison.members if any(r.history for r in m.model.runs)]
    return None if picture is None else {"models": names, "picture": picture}


def _points(run: Run, column: str) -> list[tuple[float, float]]:
    points = [(r.get("epoch"), r.get(column)) for r in run.history]
    return [(x, y) for x, y in points if x is not None and y is not None and math.isfinite(y)]


def comparison_facts(comparison: Comparison) -> list[tuple[str, str]]:
    """What the comparison was made with."""
    record = comparison.record
    presets = ", ".join(dict.fromkeys(f"{m.bundle} {m.preset}" for m in comparison.members))
    budget = str((record.get("budget") or {}).get("words", ""))
    own = [("Budget of every training", budget), ("Presets", presets), ("Reference", comparison.reference.title)]
    return [*own, *facts(record)]


def _reproduce(comparison: Comparison) -> dict[str, Any]:
    return {
        "command": comparison.record.get("command", ""),
        "facts": comparison_facts(comparison),
        "steps": [step(s) for chain in comparison.chains.values() for s in chain.get("steps", ())],
    }
