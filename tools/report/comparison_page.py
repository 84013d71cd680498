"""The page of a comparison: the table, its figures, the cases, and how to make it again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .comparison import Comparison, Member
from .comparison_rows import MethodRow, annotated_values, method_rows, ordered
from .comparison_tables import costs, methods_table, structures
from .figures import Series, curves, intervals
from .frame import document
from .gallery import gallery, pictures
from .numbers import Model
from .page import facts, step_row
from .pair_figures import pairs, strips
from .results import Run, Study
from .sections import legend
from .viewer import viewer, viewer_scripts

__all__ = ["comparison_facts", "render_comparison"]


def render_comparison(comparison: Comparison, volumes: Mapping[str, Any], title: str | None = None) -> str:
    """The whole HTML document of a comparison.

    Args:
        comparison: what was measured.
        volumes: for the viewer, as :func:`~.volumes.viewer_volumes` gives them.
        title: heading.
    """
    rows = ordered(method_rows(comparison))
    study = Study(comparison.name, [r for m in comparison.members for r in _first_runs(m)])
    sections = [
        ("overview", "Overview", _overview(comparison, rows, title)),
        ("costs", "Costs", costs(rows)),
        ("structures", "Structures", structures(comparison)),
        ("cases", "Cases", _cases(comparison, rows)),
        ("viewer", "Viewer", viewer(volumes)),
        ("training", "Training", _training(comparison)),
        ("overlays", "Overlays", gallery(study)),
        ("inside", "Inside", pictures(study)),
        ("reproduce", "Reproduce", _reproduce(comparison)),
    ]
    return document(title or comparison.name, sections, wide=True, after=viewer_scripts(volumes))


def _first_runs(member: Member) -> list[Run]:
    """The first seed under the member's name; experts of different tasks under their own."""
    runs = [r for r in member.model.runs if r.rows or r.pictures]
    if any(r.kind == "expert" for r in runs):
        return [_named(r, f"{member.title}: {r.task}") for r in runs]
    return [_named(r, member.title) for r in runs[:1]]


def _named(run: Run, title: str) -> Run:
    return Run(**{**run.__dict__, "id": title, "title": title, "kind": "run"})


def _overview(comparison: Comparison, rows: Sequence[MethodRow], title: str | None) -> str:
    record, models = comparison.record, comparison.models
    when = str(record.get("created") or "")[:16].replace("T", " ")
    words = str((record.get("budget") or {}).get("words", ""))
    eyebrow = " · ".join(p for p in (f"{len(comparison.members)} methods", f"budget: {words}", when) if p)
    html = (
        f'<p class="eyebrow">{escape(eyebrow)}</p><h1>{escape(title or "One collection, one split, one budget")}</h1>'
    )
    html += f'<p class="lead">{_finding(comparison, rows)}</p>{_notices(comparison)}'
    stats = {r.member.model.key: r.measures["dice"].mean for r in rows}
    known = [r.member.model for r in rows if r.member.model in models]
    if known:
        html += f'<div class="card narrow">{intervals(known, stats, "dice", "mean Dice with 95 % interval")}</div>'
    note = (
        "Dice and HD95 (MONAI) as means over the structures that the annotation shows, with 95 % intervals (cases "
        "drawn within their task); p from Wilcoxon’s signed-rank test over cases against "
        f"{escape(comparison.reference.title)}, two-sided, corrected by Holm. HD95 has no value where a structure was "
        "not found: see “missed” beside it. “Invented” were predicted in cases that do not show them. Every method "
        "answers for the structures of a case’s own task; answers are not cleaned up. ± is the standard deviation of "
        "the seeds’ means. "
        f"{_prompts(rows)}Click a heading to sort."
    )
    return f'{html}<p class="sub spaced">{note}</p><div class="card scroll">{methods_table(comparison, rows)}</div>'


def _prompts(rows: Sequence[MethodRow]) -> str:
    if not any(r.member.prompted for r in rows):
        return ""
    told = {
        "a box" if run.rules.get("prompt") == "box" else f"{run.rules['clicks']} clicks"
        for r in rows
        if r.member.prompted
        for run in r.member.model.runs
        if run.rules.get("clicks")
    }
    by = escape(" or ".join(sorted(told)) or "boxes or clicks")
    return (
        f"<b>Prompted</b> methods are told by {by} for each structure, made from the annotation as no user could, "
        "where to look; the others are not, and only these compete for the best mean. "
    )


def _finding(comparison: Comparison, rows: Sequence[MethodRow]) -> str:
    known = [r for r in rows if r.measures["dice"].mean.n]
    if not known:
        return "Nothing has been evaluated yet."
    n = max(r.measures["dice"].mean.n for r in known)
    ways = (
        ("", [r for r in known if not r.member.prompted]),
        ("told where to look, ", [r for r in known if r.member.prompted]),
    )
    tops = [
        f"{w}{escape(own[0].member.title)} <b>{own[0].measures['dice'].mean.mean:.3f}</b>" for w, own in ways if own
    ]
    split = escape(str(comparison.record.get("split", "")))
    said = f"Highest mean Dice over {n} cases of the {split} split: {'; '.join(tops)}"
    others = [r for r in known if r.measures["dice"].test.n]
    clear = [r for r in others if r.measures["dice"].p_holm < 0.05]
    title = escape(comparison.reference.title)
    if not any(r.member is comparison.reference for r in known):
        return f"{said}. {title}, the reference, is not evaluated yet."
    told = f"{len(clear)} of {len(others)} others differ from {title} at p &lt; 0.05 after correction"
    few = min((r.measures["dice"].test.n for r in others), default=0)
    note = f"; with {few} cases no p below {2 / 2**few:.2g} is possible" if others and 0 < few < 7 else ""
    return f"{said}. {told}{note}." if others else f"{said}."


def _notices(comparison: Comparison) -> str:
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
    notes += [f"Left out: {why}."] if why else []
    return "".join(f'<p class="notice">{escape(n)}</p>' for n in notes)


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


def _cases(comparison: Comparison, rows: Sequence[MethodRow]) -> str:
    values = annotated_values(comparison, "dice")
    members = [(r.member.model, _case_means(values[r.member.model.key])) for r in rows if r.member.model.key in values]
    if not members:
        return ""
    reference = next((m for m in members if m[0] is comparison.reference.model), members[0])
    panels = "".join(
        f'<div class="card"><h3>{escape(m[0].title)}</h3>{pairs(reference, m)}</div>'
        for m in members
        if m is not reference
    )
    note = "The mean Dice of each case; hover for the case and the number."
    picture = strips(members, "mean Dice of the case")
    html = f'<h2>Case by case</h2><p class="sub">{note}</p><div class="card scroll">{picture}</div>'
    if panels:
        title = escape(reference[0].title)
        html += (
            f'<h3 class="spaced">Each case, from {title} to another method</h3><div class="grid small">{panels}</div>'
        )
    return html


def _case_means(values: Mapping[tuple[str, str, str], float]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], list[float]] = {}
    for (task, case, _), v in values.items():
        if math.isfinite(v):
            found.setdefault((task, case), []).append(v)
    return {c: sum(v) / len(v) for c, v in found.items()}


def _training(comparison: Comparison) -> str:
    series = [
        Series(r.title, m.model.key, _points(r, "loss")) for m in comparison.members for r in m.model.runs if r.history
    ]
    picture = curves(series, "training loss over epochs")
    if not picture:
        return ""
    names = [Model(m.model.key, m.title, ()) for m in comparison.members if any(r.history for r in m.model.runs)]
    note = "Losses of different methods are different sums: compare their course, not their height."
    return f'<h2>Training</h2><p class="sub">{note}</p>{legend(names)}<div class="card">{picture}</div>'


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


def _reproduce(comparison: Comparison) -> str:
    made_with = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in comparison_facts(comparison) if v)
    rows = "".join(step_row(s) for chain in comparison.chains.values() for s in chain.get("steps", ()))
    head = "<tr><th>Step</th><th>State</th><th>Time</th><th>Command</th></tr>"
    command = escape(str(comparison.record.get("command", "")))
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    return (
        f'<h2>Reproduce</h2><div class="card"><h3>One command</h3><pre>{command}</pre>'
        f'<h3 class="spaced">Made with</h3><dl>{made_with}</dl></div><div class="card scroll spaced">{table}</div>'
    )
