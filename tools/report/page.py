"""The page of a study: what each of its sections is filled with."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .diagram import diagram
from .figures import Series, curves
from .frame import document
from .gallery import gallery, pictures
from .numbers import Model, models_of, statistic, variant_keys
from .results import Run, Study
from .sections import Card, cases, common, distance_of, finding, hero, tables

__all__ = ["Step", "duration", "facts", "render", "step"]


class Step(NamedTuple):
    """A step of a chain: its colour if it is a model, title, state, time, command."""

    key: str
    title: str
    status: str
    time: str
    command: str


def render(study: Study, title: str | None = None) -> str:
    """The whole HTML document of a study."""
    models = models_of(study)
    sections = {
        "overview": _overview(study, models, title),
        "structures": _structures(models, distance_of((study.chain or {}).get("tasks"))),
        "cases": {"models": models, "cards": cases(models)} if models else None,
        "training": _training(study),
        "overlays": gallery(study),
        "inside": pictures(study),
        "reproduce": _reproduce(study),
    }
    return document("study.html.j2", title or study.name, sections)


def _overview(study: Study, models: Sequence[Model], title: str | None) -> dict[str, Any]:
    chain = study.chain or {}
    when = str(chain.get("created", ""))[:16].replace("T", " ")
    experts = len(study.kind("expert")) + len(study.kind("external"))
    counted = f"{experts} experts, one student" if study.chain and experts else study.name
    return {
        "eyebrow": " · ".join(p for p in (str(chain.get("bundle", "")), when) if p),
        "heading": title or study.words.get("title") or counted,
        "finding": finding(models),
        "unfinished": [s for s in chain.get("steps", ()) if s.get("status") != "done"],
        "hero": hero(models) if models else None,
        "diagram": diagram(study, {k: statistic(v) for k, v in common(models, "dice").items()}),
    }


def _structures(models: Sequence[Model], distance: str) -> dict[str, Any] | None:
    if not models:
        return None
    rules = models[0].runs[0].rules
    return {
        "legacy": rules.get("empty_rule") == "legacy",
        "tolerance": rules.get("surface_tolerance_mm", 2.0),
        "prompts": sorted(
            {str(r.rules["prompt_source"]) for m in models for r in m.runs if r.rules.get("prompt_source")}
        ),
        "tables": tables(models, distance),
    }


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


def _training(study: Study) -> dict[str, Any] | None:
    chain, colors = study.chain is not None, variant_keys(study)
    students = [r for r in study.runs if r.kind in ("alone", "amalgamated", "variant", "run") and r.history]
    experts = [r for r in study.runs if r.kind in ("expert", "external") and r.history]
    cards: list[Card] = []
    for name, runs in (("students", students), ("experts", experts)):
        metric = next((m for m in (_key_metric(r) for r in runs) if m), None)
        dice = _series(runs, metric, chain, colors) if metric else []
        cards.append(Card(f"Validation Dice, {name}", curves(dice, f"validation Dice of the {name}", unit=True)))
        loss = _series(runs, "loss", chain, colors)
        cards.append(Card(f"Training loss, {name}", curves(loss, f"training loss of the {name}")))
    cards = [c for c in cards if c.picture is not None]
    kinds = {"expert": "Experts", "external": "Task-agnostic expert"}
    kinds |= {kind: study.words[kind] for kind in ("alone", "amalgamated")}
    names = [Model(k, t, ()) for k, t in kinds.items() if study.kind(k)]
    names += [m for m in models_of(study) if chain and m.key.startswith("run")]
    names = names or [Model(f"run{i % 6}", r.title, ()) for i, r in enumerate(students)]
    return {"models": names, "cards": cards} if cards else None


def duration(seconds: Any) -> str:
    """Seconds for people."""
    if not isinstance(seconds, int | float):
        return "–"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _reproduce(study: Study) -> dict[str, Any]:
    chain = study.chain
    if chain is None:
        return {"folders": [(r.title, r.folder) for r in study.runs]}
    steps = chain.get("steps", ())
    total = sum(s["seconds"] for s in steps if isinstance(s.get("seconds"), int | float))
    return {
        "folders": None,
        "command": chain.get("command", ""),
        "facts": facts(chain),
        "steps": [step(s) for s in steps],
        "time": duration(total),
    }


def step(record: dict[str, Any]) -> Step:
    """A step as its row shows it."""
    kind, title = record.get("kind", ""), record.get("title", record.get("id", ""))
    key = kind if kind in ("expert", "external", "alone", "amalgamated") else ""
    told = (
        str(t) for t in (title, record.get("status", ""), duration(record.get("seconds")), record.get("command", ""))
    )
    return Step(key, *told)


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
