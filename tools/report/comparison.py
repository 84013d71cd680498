"""What lies in a comparison's folder: its members with their runs and what these cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.errors import DataError

from ..run_files import COMPARISON, COSTS, inside, read_record
from .numbers import Model
from .results import Run, read_study
from .sections import distance_of

__all__ = ["Comparison", "Costs", "Member", "read_comparison"]

JSON = dict[str, Any]
TRAINING = "training_costs.json"


@dataclass(frozen=True)
class Costs:
    """What a member costs; NaN is what was not measured.

    Args:
        parameters: of the network that predicts; of all experts together where each has its own task.
        trained: parameters that the member's own training changes.
        multiply_adds_g: 10^9 per case, the mean over the first case of each task.
        steps: of the member's own training.
        used: share of the budget that this took, the mean over seeds.
        training_s: seconds of the member's own training, the mean over seeds; of all experts together where these are
            the member.
        experts_s: seconds of the trainings that it needs before.
        case_s: seconds of the network per case, the mean over cases.
        training_mb, case_mb: peak memory, MB of 10^6 bytes.
        clock: True when the clock ended a training.
        early: True when a training ended before the budget did.
        machines: device and threads of all of its runs, in words.
    """

    parameters: float = math.nan
    trained: float = math.nan
    multiply_adds_g: float = math.nan
    steps: float = math.nan
    used: float = math.nan
    training_s: float = math.nan
    experts_s: float = math.nan
    case_s: float = math.nan
    training_mb: float = math.nan
    case_mb: float = math.nan
    clock: bool = False
    early: bool = False
    machines: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Member:
    """A method or a baseline with its runs.

    Args:
        name, title, bundle, preset, prompted: as ``compare.json`` has them.
        model: its runs under a colour of its own.
        costs: what it costs.
        failure: why it is not finished.
        commits: of the code that its runs were made with.
    """

    name: str
    title: str
    bundle: str
    preset: str
    prompted: bool
    model: Model
    costs: Costs
    failure: str = ""
    commits: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Comparison:
    """Everything that one comparison shows."""

    name: str
    record: JSON
    members: list[Member]
    chains: dict[str, JSON] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def models(self) -> list[Model]:
        """Of members that were evaluated."""
        return [m.model for m in self.members if any(r.rows for r in m.model.runs)]

    @property
    def distance(self) -> str:
        """Unit of distances: pictures have no millimetres."""
        return distance_of(self.record.get("tasks"))

    @property
    def reference(self) -> Member:
        """The member that all others are tested against."""
        return next((m for m in self.members if m.name == self.record.get("reference")), self.members[0])


def read_comparison(folder: Path) -> Comparison:
    """Read a comparison's folder, finished or not.

    Raises:
        DataError: when it holds none.
    """
    path = folder / "compare.json"
    if not path.is_file():
        hint = "python -m tools compare run makes one"
        raise DataError("there is no comparison here", where=folder, expected="compare.json", hint=hint)
    record = read_record(path, COMPARISON)
    entries = record["members"]
    runs: dict[str, list[Run]] = {}
    chains: dict[str, JSON] = {}
    for bundle in dict.fromkeys(e["bundle"] for e in entries):
        own = inside(folder, bundle, where=f"{path}, members[].bundle")
        if (own / "chain.json").is_file():
            study = read_study([own])
            runs[bundle], chains[bundle] = study.runs, study.chain or {}
    members = [
        _member(i, e, runs.get(e["bundle"], []), record, chains.get(e["bundle"], {})) for i, e in enumerate(entries)
    ]
    if not entries:
        raise DataError("the comparison has no members", where=path)
    return Comparison(record.get("name", folder.name), record, members, chains, folder)


def _member(position: int, entry: JSON, runs: Sequence[Run], record: JSON, chain: JSON) -> Member:
    own = [r for r in runs if (r.kind == "expert" if entry["run"] == "stage1" else r.variant == entry["run"])]
    own = [r for r in own if r.id in entry.get("runs", [r.id])]
    before = [r for r in runs if r.id in entry.get("experts", ())]
    failed = record.get("failures", {}).get(entry["bundle"], {})
    ids = {r.id for r in own} | {f"evaluate:{r.id}" for r in own}
    reasons = [reason for i, reason in failed.items() if i in ids]
    told = {k: entry[k] for k in ("name", "title", "bundle", "preset", "prompted")}
    together = entry["run"] == "stage1"
    title = entry["title"] + (" (prompted)" if entry["prompted"] else "")
    model = Model(f"run{position}", title, tuple(own))
    costs = costs_of(own, before, together, record.get("budget") or {})
    ids |= {r.id for r in before}
    commits = frozenset(s["commit"] for s in chain.get("steps", ()) if s["id"] in ids and s.get("commit"))
    if not entry.get("trained", True):
        costs = replace(costs, trained=0.0, steps=0.0, training_s=0.0)
    return Member(**told, model=model, costs=costs, failure=next(iter(reasons), ""), commits=commits)


def costs_of(
    own: Sequence[Run], before: Sequence[Run], together: bool, budget: Mapping[str, Any] | None = None
) -> Costs:
    """What runs cost, from the files that they left.

    Args:
        own: seeds of one training, or experts of all tasks.
        before: trainings that these need.
        together: own runs are parts of one member, whose costs add up, rather than repetitions.
        budget: ``steps`` and ``minutes`` of each training, None where there is no limit.
    """
    trained = [_read(r.folder / TRAINING) for r in own]
    evaluated = [_read(r.folder / "evaluation" / "costs.json") for r in own]
    combine = _sum if together else _mean
    cases = [c for e in evaluated for c in e.get("cases", ())]
    timed = [c for c in cases if not c.get("counted")] or cases
    return Costs(
        parameters=combine([e.get("parameters") for e in evaluated]),
        trained=combine([t.get("trained_parameters") for t in trained]),
        multiply_adds_g=_operations(cases),
        steps=combine([t.get("steps") for t in trained]),
        used=_mean([_used(t, budget or {}) for t in trained]),
        training_s=combine([t.get("seconds") for t in trained]),
        experts_s=_sum([_read(r.folder / TRAINING).get("seconds") for r in before]) if before else 0.0,
        case_s=_mean([c.get("seconds") for c in timed]),
        training_mb=_max([t.get("peak_mb") for t in trained]),
        case_mb=_max([c.get("peak_mb") for c in cases]),
        clock=any(t.get("ended_by_clock") for t in trained),
        early=any(_early(t, budget or {}) for t in (*trained, *(_read(r.folder / TRAINING) for r in before))),
        machines=frozenset(_machine(c) for c in (*trained, *evaluated) if c.get("threads")),
    )


def _used(training: Mapping[str, Any], budget: Mapping[str, Any]) -> float | None:
    """The share of its budget that a training took: of its steps, or of its minutes by the clock."""
    steps, minutes = budget.get("steps"), budget.get("minutes")
    spent = training.get("steps") if steps else training.get("step_seconds", training.get("seconds"))
    whole = steps or (60 * minutes if minutes else None)
    return None if whole is None or spent is None else float(spent) / whole


def _early(training: Mapping[str, Any], budget: Mapping[str, Any]) -> bool:
    """Whether a training ended before its steps; where these are not told, with a tenth of its budget unused."""
    planned = training.get("planned_steps")
    if planned is not None:
        return any(v < planned for v in _known([training.get("steps")]))
    return any(v < 0.9 for v in _known([_used(training, budget)]))


def _machine(costs: Mapping[str, Any]) -> str:
    many = "" if costs["threads"] == 1 else "s"
    return f"{costs.get('device')} with {costs['threads']} thread{many}"


def _operations(cases: Iterable[Mapping[str, Any]]) -> float:
    """Mean over the cases that were counted, each once: seeds count the same case."""
    return _mean(list({(c["task"], c["case"]): c.get("multiply_adds_g") for c in cases if c.get("counted")}.values()))


def _read(path: Path) -> JSON:
    content: JSON = read_record(path, COSTS) if path.is_file() else {}
    return content


def _known(values: Sequence[float | None]) -> list[float]:
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def _mean(values: Sequence[float | None]) -> float:
    known = _known(values)
    return sum(known) / len(known) if known else math.nan


def _sum(values: Sequence[float | None]) -> float:
    known = _known(values)
    return sum(known) if known and len(known) == len(values) else math.nan  # a part that is missing hides the sum


def _max(values: Sequence[float | None]) -> float:
    return max(_known(values), default=math.nan)
