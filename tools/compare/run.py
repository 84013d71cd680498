"""Doing what a comparison planned: chain after chain, so that one that fails costs the others nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.atomic import atomic_write
from common.engine.run.lock import RunLock
from common.errors import AmalgamationError, ConfigError, visible
from common.paths import check_new

from ..chain.record import Record, prepare_tracking
from ..chain.run import execute
from ..chain.step import this_command
from .plan import CompareSettings, Part, experts_of, preset_of, runs_of, trains

__all__ = ["run_parts", "write_comparison"]

FROM_CHAIN = ("created", "commit", "hardware", "packages", "tasks")


def run_parts(parts: Sequence[Part], settings: CompareSettings, left_out: Mapping[str, str], jobs: int) -> list[str]:
    """Do every step that is not done yet; the comparison's record is written before and after each chain.

    Args:
        parts: of the plan.
        settings: of the comparison.
        left_out: why further members do not take part.
        jobs: processes at a time.

    Returns:
        one line for each member that is not finished, with the first reason.

    Raises:
        AmalgamationError: when another comparison runs in the folder.
    """
    check_new(settings.output_dir, what="folder", error=ConfigError).mkdir(parents=True, exist_ok=True)
    failures: dict[str, dict[str, str]] = {}
    with RunLock(settings.output_dir, name="compare.lock"):
        for part in parts:
            write_comparison(settings, parts, left_out, failures)
            failures[part.settings.bundle] = _run(part, jobs)
        write_comparison(settings, parts, left_out, failures)
    return [f"{name}: {reason}" for name, reason in _unfinished(settings, parts, failures).items()]


def _run(part: Part, jobs: int) -> dict[str, str]:
    try:
        record = Record.open(part.settings.output_dir, part.settings, part.steps)
        with record.lock():
            prepare_tracking(part.settings)
            failed = execute(part.steps, record, part.settings, jobs, keep_going=True)
    except AmalgamationError as whole:
        failed = {step.id: whole for step in part.steps}
    for message in dict.fromkeys(map(str, failed.values())):
        print(f"\n{visible(message)}\n", file=sys.stderr, flush=True)
    return {identity: str(error) for identity, error in failed.items()}


def _unfinished(
    settings: CompareSettings, parts: Sequence[Part], failures: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    steps = {part.settings.bundle: part.steps for part in parts}
    found = {}
    for member in settings.members:
        own = runs_of(member, [s.id for s in steps[member.bundle] if s.kind != "evaluate"])
        own += [s.id for s in steps[member.bundle] if s.subject in own and s.subject]
        reasons = [failures[member.bundle][i] for i in own if i in failures[member.bundle]]
        if reasons:
            found[member.name] = reasons[0].splitlines()[0]
    return found


def write_comparison(
    settings: CompareSettings,
    parts: Sequence[Part],
    left_out: Mapping[str, str],
    failures: Mapping[str, Mapping[str, str]],
) -> Path:
    """Write ``compare.json``: who is compared, on what, at which budget, and what went wrong."""
    bundles = dict.fromkeys(m.bundle for m in settings.members)
    records = [r for r in (Record.read(settings.output_dir / b) for b in bundles) if r is not None]
    steps = {part.settings.bundle: part.steps for part in parts}
    same: dict[str, Any] = {k: records[0].data.get(k) for k in FROM_CHAIN} if records else {}
    content = {
        "format": 1,
        "name": settings.output_dir.name,
        "command": this_command(),
        **same,
        "dataset_dir": str(settings.dataset_dir),
        "split": settings.split,
        "seeds": list(settings.seeds),
        "budget": {"steps": settings.budget.steps, "minutes": settings.budget.minutes, "words": settings.budget.words},
        "reference": settings.reference,
        "members": [
            {
                **{k: getattr(m, k) for k in ("name", "title", "bundle", "run", "prompted")},
                "preset": preset_of(settings.presets, m.bundle),
                "runs": runs_of(m, [s.id for s in steps[m.bundle] if s.kind != "evaluate"]),
                "experts": experts_of(m, steps[m.bundle]),
                "trained": any(trains(s) for s in steps[m.bundle] if s.id in runs_of(m, [s.id])),
            }
            for m in settings.members
        ],
        "left_out": dict(left_out),
        "failures": {b: dict(f) for b, f in failures.items() if f},
    }
    path = settings.output_dir / "compare.json"
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path
