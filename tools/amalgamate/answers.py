"""The step that asks every expert about every scan, and counts which structures they saw."""

from __future__ import annotations

from collections import Counter
from typing import Any

from common.data.store.place import folder_bytes

from .contradictions import SEEN, contradictions
from .lessons import LABELS
from .training import DATA, opened
from .work import Work

__all__ = ["answers", "counted"]


def answers(work: Work) -> dict[str, Any]:
    """Ask about what is not answered yet.

    Several processes may do it at a time, on one machine or on many that share the folder: each scan is asked once.

    Args:
        work: the folder.

    Returns:
        what :func:`counted` finds, and ``contradictions`` of experts.
    """
    data = opened(work, work.out / "student").get_parsed_content(DATA)
    return {**counted(data), "contradictions": [list(one) for one in contradictions(data)]}


def counted(data: Any) -> dict[str, Any]:
    """What experts and label maps show of the scans for training.

    Args:
        data: :class:`~common.experts.answers.cases.AnsweredCases`.

    Returns:
        ``scans`` by task; ``seen`` by expert (and label maps), task and structure, in scans; ``disputed`` voxels by
        pair of structures; ``answers``, how many there are; ``bytes`` of them.
    """
    seen: dict[str, dict[str, dict[str, int]]] = {}
    tasks = [str(data.item_of(position).get("task", "")) for position in range(len(data))]

    def count(teacher: str, task: str, name: str) -> None:
        own = seen.setdefault(teacher, {}).setdefault(task, {})
        own[name] = own.get(name, 0) + 1

    size = asked = 0
    for spec, store, places in zip(data.experts, data.answers, data.places, strict=True):
        for position, place in places.items():
            asked += 1
            size += folder_bytes(store.store.find(store.chain, store.names[place]) or store.store.writable() / "none")
            voxels = store.case(place)["voxels"].tolist()
            for name, number in zip(spec.labels.names, voxels, strict=True):
                if number >= SEEN:
                    count(spec.name, tasks[position], name)
    for position, task in enumerate(tasks):
        if "label" in data.item_of(position):
            for index in data.cases.case(position).get("positions", {}):
                if 0 < index <= len(data.labels):
                    count(LABELS, task, data.labels.names[index - 1])
    disputed = [[one, other, voxels] for (one, other), voxels in data.disputed.items()]
    return {"scans": dict(Counter(tasks)), "seen": seen, "disputed": disputed, "answers": asked, "bytes": size}
