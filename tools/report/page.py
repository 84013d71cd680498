"""The page: sections in order, everything inline."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .diagram import diagram
from .figures import Series, curves
from .frame import document
from .gallery import gallery, pictures
from .numbers import Model, models_of, statistic, variant_keys
from .results import Run, Study
from .sections import cases, common, distance_of, finding, hero, key, legend, tables

__all__ = ["duration", "facts", "render", "step_row"]


def render(study: Study, title: str | None = None) -> str:
    """The whole HTML document of a study."""
    models = models_of(study)
    sections = [
        ("overview", "Overview", _overview(study, models, title)),
        ("structures", "Structures", _structures(models, distance_of((study.chain or {}).get("tasks")))),
        ("cases", "Cases", _cases(models)),
        ("training", "Training", _training(study)),
        ("overlays", "Overlays", gallery(study)),
        ("inside", "Inside", pictures(study)),
        ("reproduce", "Reproduce", _reproduce(study)),
    ]
    return document(title or study.name, sections)


def _overview(study: Study, models: Sequence[Model], title: str | None) -> str:
    chain = study.chain or {}
    when = str(chain.get("created", ""))[:16].replace("T", " ")
    eyebrow = " · ".join(p for p in (str(chain.get("bundle", "")), when) if p)
    experts = len(study.kind("expert")) + len(study.kind("external"))
    counted = f"{experts} experts, one student" if study.chain and experts else study.name
    name = title or study.words.get("title") or counted
    html = f'<p class="eyebrow">{escape(eyebrow)}</p><h1>{escape(name)}</h1><p class="lead">{finding(models)}</p>'
    html += _unfinished(chain)
    html += hero(models) if models else ""
    stats = {k: statistic(v) for k, v in common(models, "dice").items()}
    drawing = diagram(study, stats)
    if drawing:
        html += f'<div class="card scroll" style="margin-top:20px">{drawing}</div>'
    return html


def _unfinished(chain: dict[str, Any]) -> str:
    open_steps = [s for s in chain.get("steps", ()) if s.get("status") != "done"]
    if not open_steps:
        return ""
    names = ", ".join(
        f"{escape(s.get('title', s['id']))} ({escape(s.get('status', 'unknown'))})" for s in open_steps[:4]
    )
    more = f" and {len(open_steps) - 4} more" if len(open_steps) > 4 else ""
    return f'<p class="notice">This chain is not finished: {names}{more}. The same command continues it.</p>'


def _structures(models: Sequence[Model], distance: str) -> str:
    if not models:
        return ""
    rules = models[0].runs[0].rules
    rule = "absent from both maps is left out; predicted or annotated alone scores Dice 0 and has no distance"
    if rules.get("empty_rule") == "legacy":
        rule = "empty structures follow the legacy rule of the TransUNet family"
    prompts = {str(r.rules["prompt_source"]) for m in models for r in m.runs if r.rules.get("prompt_source")}
    asked = f" Prompts: {escape(', '.join(sorted(prompts)))}." if prompts else ""
    note = (
        f"Mean and 95 % interval per structure; the best mean is bold, a coloured difference excludes zero. "
        f"A structure {rule}. Surface Dice at {escape(str(rules.get('surface_tolerance_mm', 2.0)))} mm.{asked} "
        "Click a heading to sort."
    )
    return f'<h2>Structure by structure</h2><p class="sub">{note}</p>{tables(models, distance)}'


def _cases(models: Sequence[Model]) -> str:
    if not models:
        return ""
    note = "Each row is one case with a dot per model; hover for the numbers."
    return f'<h2>Case by case</h2><p class="sub">{note}</p>{cases(models)}'


def _series(runs: Sequence[Run], column: str, chain: bool, colors: Mapping[str, str]) -> list[Series]:
    found = []
    for i, run in enumerate(runs):
        points = [(r.get("epoch"), r.get(column)) for r in run.history]
        known = [(x, y) for x, y in points if x is not None and y is not None and math.isfinite(y)]
        color = colors.get(run.variant, run.kind) if chain else f"run{i % 6}"
        found.append(Series(run.title, color, known))
    return found


def _key_metric(run: Run) -> str | None:
    """The validation column that is shown: the mean Dice, else the first."""
    columns = [c for c in (run.history[0] if run.history else {}) if c.startswith("val_")]
    preferred = [c for c in columns if c in ("val_mean_dice", "val_dice", "val_val_mean_dice", "val_val_dice")]
    return next(iter([*preferred, *sorted(columns, key=len)]), None)


def _training(study: Study) -> str:
    chain, colors = study.chain is not None, variant_keys(study)
    students = [r for r in study.runs if r.kind in ("alone", "amalgamated", "variant", "run") and r.history]
    experts = [r for r in study.runs if r.kind in ("expert", "external") and r.history]
    blocks = ""
    for name, runs in (("students", students), ("experts", experts)):
        metrics = [m for m in (_key_metric(r) for r in runs) if m]
        if metrics:
            picture = curves(_series(runs, metrics[0], chain, colors), f"validation Dice of the {name}", unit=True)
            blocks += f'<div class="card"><h3>Validation Dice, {name}</h3>{picture}</div>' if picture else ""
        picture = curves(_series(runs, "loss", chain, colors), f"training loss of the {name}")
        blocks += f'<div class="card"><h3>Training loss, {name}</h3>{picture}</div>' if picture else ""
    if not blocks:
        return ""
    kinds = {
        "expert": "Experts",
        "external": "Task-agnostic expert",
        "alone": study.words["alone"],
        "amalgamated": study.words["amalgamated"],
    }
    names = [Model(k, t, ()) for k, t in kinds.items() if study.kind(k)]
    names += [m for m in models_of(study) if chain and m.key.startswith("run")]
    names = names or [Model(f"run{i % 6}", r.title, ()) for i, r in enumerate(students)]
    return f'<h2>Training</h2>{legend(names)}<div class="grid two">{blocks}</div>'


def duration(seconds: Any) -> str:
    """Seconds for people."""
    if not isinstance(seconds, int | float):
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _reproduce(study: Study) -> str:
    chain = study.chain
    if chain is None:
        items = "".join(f"<dt>{escape(r.title)}</dt><dd>{escape(str(r.folder))}</dd>" for r in study.runs)
        return f'<h2>Runs</h2><div class="card"><dl>{items}</dl></div>'
    rows = "".join(step_row(s) for s in chain.get("steps", ()))
    total = sum(s["seconds"] for s in chain.get("steps", ()) if isinstance(s.get("seconds"), int | float))
    table = (
        f"<table><thead><tr><th>Step</th><th>State</th><th>Time</th><th>Command</th></tr></thead><tbody>{rows}</tbody>"
    )
    made_with = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts(chain) if v)
    return (
        f'<h2>Reproduce</h2><p class="sub">{len(chain.get("steps", ()))} steps, {duration(total)} in all.</p>'
        f'<div class="card"><h3>One command</h3><pre>{escape(str(chain.get("command", "")))}</pre>'
        f'<h3 style="margin-top:20px">Made with</h3><dl>{made_with}</dl></div>'
        f'<div class="card scroll" style="margin-top:18px">{table}</table></div>'
    )


def step_row(step: dict[str, Any]) -> str:
    """A step of a chain: title, state, time, command."""
    status = escape(str(step.get("status", "")))
    command = escape(str(step.get("command", "")))
    shown = f"<details><summary>show</summary><pre>{command}</pre></details>" if command else ""
    title = escape(str(step.get("title", step.get("id", ""))))
    kind = step.get("kind", "")
    dot = key(kind) if kind in ("expert", "external", "alone", "amalgamated") else ""
    return (
        f'<tr><td>{dot} {title}</td><td><span class="pill {status}">{status}</span></td>'
        f'<td>{duration(step.get("seconds"))}</td><td class="long">{shown}</td></tr>'
    )


def facts(chain: dict[str, Any]) -> list[tuple[str, str]]:
    """What a chain was made with, as names and values for people; further tasks have no name of their own."""
    hardware = chain.get("hardware") or {}
    machine = [str(hardware.get("cpu") or ""), f"{hardware['cores']} cores" if hardware.get("cores") else ""]
    machine += [
        f"{hardware['memory_gb']} GB" if hardware.get("memory_gb") else "",
        str(hardware.get("gpu") or "no GPU"),
    ]
    tasks = [_task(name, t) for name, t in (chain.get("tasks") or {}).items()]
    return [
        ("Data", " ".join(str(chain[k]) for k in ("dataset_dir", "split") if chain.get(k))),
        *[("", t) for t in tasks],
        ("Commit", str(chain.get("commit") or "not in a repository")),
        ("Seeds", ", ".join(map(str, chain.get("seeds") or [chain.get("seed", "")]))),
        ("Hardware", ", ".join(m for m in machine if m)),
        ("Packages", ", ".join(f"{k} {v}" for k, v in (chain.get("packages") or {}).items())),
        ("Started", str(chain.get("created", ""))),
        ("Report", datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")),
    ]


def _task(name: str, task: dict[str, Any]) -> str:
    modality = task.get("modality", "")
    modality = ", ".join(map(str, modality)) if isinstance(modality, list | tuple) else str(modality)
    counts = ", ".join(f"{n} {split}" for split, n in (task.get("cases") or {}).items() if n)
    return f"{name} ({modality}): {', '.join(task.get('structures', ()))} — {counts}"
