"""Writes the description of somebody else's expert and says what was read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from common.atomic import atomic_write
from common.errors import ConfigError
from common.experts_describe import describe_expert
from common.experts_spec import ExpertSpec
from common.labels import LabelSpace
from common.modalities import meanings

from .data import read_structures

__all__ = ["describe"]


def describe(
    path: Path, target: Path, *, task: str, external: bool, name: str | None, labels: Any,
    channels: str | Sequence[str] | None, known: Mapping[str, Any],
) -> ExpertSpec:  # fmt: skip
    """Write ``target`` and print a table of it.

    Args:
        path: the expert's folder or file.
        target: the JSON file.
        task: data set name of a task expert, empty for an external one.
        external: whether it belongs to no task.
        name: of the expert; None takes the task or the file's name.
        labels: ``"liver=1,spleen=2"`` or None.
        channels: names, or a text with commas between them.
        known: further fields of :class:`~common.experts_spec.ExpertSpec`, None for what is not given.

    Raises:
        ConfigError: when it is not said whose expert it is, or something cannot be read.
        ExpertError: when the expert cannot be opened.
    """
    if external == bool(task):
        raise ConfigError("whose expert is it?", where=path, got=f"--task {task!r} --external {external}",
                          expected="--task with the name of its data set, or --external True")  # fmt: skip
    structures = read_structures(labels)
    given = None if structures is None else LabelSpace.from_json(structures, where="--labels")
    order = [c.strip() for c in channels.split(",")] if isinstance(channels, str) else channels
    spec = describe_expert(path, name=name or task or path.stem, role="external" if external else "task", task=task,
                           labels=given, channels=order, **known)  # fmt: skip
    with atomic_write(target) as temporary:
        temporary.write_text(json.dumps(spec.to_dict(), indent=2) + "\n", encoding="utf-8")
    Console().print(_table(spec))
    silent = [c for c in spec.channels if not meanings(c)]
    if silent:
        Console().print(f"channel {', '.join(silent)} tells no modality, and is compared by its name alone: "
                        "--channels CT or what else it is", soft_wrap=True)  # fmt: skip
    use = f"--external {target}" if external else f"--given {task}={target}"
    Console().print(f"{target}: now  python -m tools chain run ka2er --dataset_dir <collection> {use}", soft_wrap=True)
    return spec


def _table(spec: ExpertSpec) -> Table:
    named = zip(spec.labels.names, spec.labels.values, strict=True)
    spacing = "the crops'" if spec.spacing is None else " x ".join(f"{s:g}" for s in spec.spacing)
    rows = {
        "kind": spec.kind,
        "role": spec.task or spec.role,
        "structures": ", ".join(f"{n} ({v})" for n, v in named),
        "channels": ", ".join(spec.channels),
        "spacing (mm)": spacing,
        "orientation": spec.orientation or "native",
        "sha256": f"{spec.sha256[:12]}...",
    }
    table = Table("what", "read", title=f"Expert {spec.name}", show_header=False)
    for key, value in rows.items():
        table.add_row(key, value)
    return table
