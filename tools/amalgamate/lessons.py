"""What an amalgamation will teach: which expert reads which scans, and which structures it knows and sees there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from rich.table import Table

from common.command_words import shown_option
from common.data.datasets.datalist import Collection
from common.data.datasets.dataset import Dataset
from common.data.datasets.naming import Doubt, name_doubts
from common.errors import DataError, ExpertError, few
from common.experts.fit import check_expert, reads
from common.experts.spec import ExpertSpec, describe_hint
from common.whole_numbers import whole_number

__all__ = [
    "HARDLY",
    "LABELS",
    "Lesson",
    "check_taught",
    "doubts",
    "idle",
    "lessons",
    "lessons_table",
    "unlearnt",
    "unread",
]

HARDLY = 3  # a structure that is seen in fewer scans is hardly learnt

LABELS = "label maps"
"""Who teaches where a person annotated."""

Seen = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Of each expert, in each task's scans for training: in how many it sees each structure."""


class Lesson(NamedTuple):
    """What one expert teaches about one structure on one task's scans.

    Args:
        expert: its name.
        task: whose scans.
        modality: of the scans.
        structure: its name.
        scans: for training, 0 where the expert cannot read them.
        seen: in how many the expert sees the structure; None before it was asked.
        why: the reason why it cannot read them.
    """

    expert: str
    task: str
    modality: str
    structure: str
    scans: int
    seen: int | None = None
    why: str = ""


def unread(spec: ExpertSpec, dataset: Dataset) -> str:
    """Why an expert cannot read a data set's scans; empty when it can."""
    names = tuple(dict.fromkeys(map(dataset.modality_of, dataset.cases()))) or ("",)
    if all(reads(spec, dataset.channels, name) for name in names):
        return ""
    try:
        check_expert(replace(spec, role="task", task=dataset.name), dataset.channels, None, modalities=names)
    except ExpertError as error:
        return f"{error.problem}: it reads {error.got}, they are {error.expected}"
    return f"it reads {', '.join(spec.channels)}, they are {', '.join(dataset.channels)}"


def lessons(
    specs: Sequence[ExpertSpec], collection: Collection, seen: Seen | None = None, labels_used: str = "all"
) -> list[Lesson]:
    """Every expert's every structure on every task's scans, and what label maps teach.

    Args:
        specs: the experts.
        collection: the scans.
        seen: what the experts answered; None before they were asked.
        labels_used: ``all``, ``none``, or how many label maps of each task teach.
    """
    found = []
    for dataset in collection.datasets:
        drawn = sum(c.label is not None for c in dataset.cases("training"))
        count = drawn if labels_used == "all" else min(drawn, whole_number(labels_used) or 0)
        why = "" if count else f"label maps do not teach: {shown_option('labels_used', labels_used)}"
        for name in dataset.labels.names if drawn else ():
            told = None if seen is None else seen.get(LABELS, {}).get(dataset.name, {}).get(name, 0)
            found.append(Lesson(LABELS, dataset.name, _modality(dataset), name, count, None if why else told, why))
    for spec in specs:
        for dataset in collection.datasets:
            why = unread(spec, dataset)
            count = 0 if why else len(dataset.cases("training")) + len(dataset.cases("unlabelled"))
            for name in spec.labels.names:
                told = None if seen is None else seen.get(spec.name, {}).get(dataset.name, {}).get(name, 0)
                told = None if why else told
                found.append(Lesson(spec.name, dataset.name, _modality(dataset), name, count, told, why))
    return found


def _modality(dataset: Dataset) -> str:
    return ", ".join(dict.fromkeys(map(dataset.modality_of, dataset.cases())))


def check_taught(found: Sequence[Lesson], collection: Collection) -> None:
    """Refuse experts that read none of the scans, and scans that nobody teaches about.

    Raises:
        ExpertError: for an expert that reads none.
        DataError: for a task without labels whose scans no expert reads.
    """
    for name in dict.fromkeys(one.expert for one in found if one.expert != LABELS):
        own = [one for one in found if one.expert == name]
        if all(one.why for one in own):
            reasons = few(list(dict.fromkeys(f"{one.task}: {one.why}" for one in own)))
            raise ExpertError("the expert reads none of the scans", where=f"expert {name!r}", got=reasons,
                              hint="give scans that it reads with --scans, or leave it out")  # fmt: skip
    for dataset in collection.datasets:
        if all(one.why for one in found if one.task == dataset.name):
            told = dict.fromkeys(f"{one.expert}: {one.why}" for one in found if one.task == dataset.name)
            problem = "nobody teaches about these scans: no expert reads them, and they have no labels"
            hint = "give an expert for them, or leave them out"
            raise DataError(problem, where=dataset.name, got=few(list(told)), hint=hint)


def unlearnt(found: Sequence[Lesson]) -> list[str]:
    """Sentences about structures that hardly a scan, or none, shows to those who know them.

    Args:
        found: lessons of experts that were asked.
    """
    said = []
    for name in dict.fromkeys(one.structure for one in found):
        own = [one for one in found if one.structure == name and not one.why]
        scans = sum({one.task: one.scans for one in own}.values())
        seen = sum(max(one.seen or 0 for one in own if one.task == task) for task in dict.fromkeys(o.task for o in own))
        if not own:
            said.append(f"{name}: nobody who knows it teaches on any of the scans, the student will not learn it")
        elif seen == 0:
            said.append(f"{name}: in 0 of {scans} scans, the student will not learn it")
        elif seen < HARDLY and seen < scans:
            said.append(f"{name}: in {seen} of {scans} scans, the student will hardly learn it")
    return said


def idle(specs: Sequence[ExpertSpec], collection: Collection) -> list[str]:
    """Sentences about experts all of whose structures others know too, on every task that they read."""
    read = {s.name: {d.name for d in collection.datasets if not unread(s, d)} for s in specs}
    said = []
    for spec in specs:
        own = [(task, name) for task in sorted(read[spec.name]) for name in spec.labels.names]
        known = [s for s in reversed(specs) if s.name != spec.name]
        others = {(task, n): s.name for s in known for task in read[s.name] for n in s.labels.names}
        if own and all(pair in others for pair in own):
            who = ", ".join(s.name for s in specs if s.name in {others[pair] for pair in own})
            said.append(f"{spec.name} knows nothing that others do not know of the same scans ({who}): it is a second "
                        "opinion only; without it the answers take less time")  # fmt: skip
    return said


def doubts(specs: Sequence[ExpertSpec], collection: Collection) -> list[Doubt]:
    """Names of structures that may not mean what uniting experts by names takes them to mean, with how to rename."""
    first = collection.datasets[0]
    empty = dict.fromkeys(first.splits, ())
    own = [replace(first, name=s.name, channels=first.channels, modality="", labels=s.labels, splits=empty)
           for s in specs]  # fmt: skip
    found = [d for d in name_doubts(own) if "taken for" in d.got or d.severity == "error"]
    return [d._replace(hint=_renaming(d, specs)) for d in found]


def _renaming(doubt: Doubt, specs: Sequence[ExpertSpec]) -> str:
    """The command that describes one of the experts with another name; the doubt's text begins with the names."""
    meant = list(dict.fromkeys(n for s in specs for n in s.labels.names if repr(n) in doubt.got))
    owner = next((s for s in reversed(specs) if s.name in doubt.tasks and set(meant) & set(s.labels.names)), None)
    if owner is None:
        return doubt.hint
    old = next(n for n in reversed(meant) if n in owner.labels.names)
    other = next((n for n in meant if n != old), "<its name>")
    line = describe_hint(owner.path, "", shown_option("map", f"{old}={other}"))
    why = "if they are one" if len(meant) > 1 else "if they are not one"
    return f"{why}, call it otherwise in {owner.name}, and give the file in its place: {line}"


def lessons_table(found: Sequence[Lesson]) -> Table:
    """For people: a row for each structure, a column for each expert and task that it reads."""
    columns = [(one.expert, one.task) for one in found if not one.why]
    columns = list(dict.fromkeys(columns))
    table = Table(title="What the student will be taught", caption="scans that show it, of those that the expert reads")
    table.add_column("structure")
    for expert, task in columns:
        table.add_column(f"{expert}\non {task}", justify="right")
    by_place = {(one.expert, one.task, one.structure): one for one in found}
    for name in dict.fromkeys(one.structure for one in found):
        cells = [_cell(by_place.get((expert, task, name))) for expert, task in columns]
        table.add_row(name, *cells)
    return table


def _cell(one: Lesson | None) -> str:
    if one is None:
        return ""
    return f"? of {one.scans}" if one.seen is None else f"{one.seen} of {one.scans}"
