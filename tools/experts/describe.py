"""Writes the description of somebody else's expert and says what was read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from common.atomic import atomic_write
from common.command_words import shown_option
from common.errors import ConfigError
from common.experts.bundle_config import bundle_parser, calls_of
from common.experts.describe import describe_expert, kind_of
from common.experts.spec import ExpertSpec
from common.experts.training_files import said_beside
from common.experts.trust import WEIGHTS, code_hash
from common.labels import LabelSpace
from common.modalities import meanings
from common.name_words import meant_together

from ..data import read_structures
from ..question import ask
from ..terminal import console

__all__ = ["agreed", "describe", "foreign_calls"]

_SHOWN = 60


def describe(
    path: Path, target: Path, *, task: str, external: bool, name: str | None, labels: Any,
    channels: str | Sequence[str] | None, known: Mapping[str, Any], trust: bool = False,
    training_files: str | None = None,
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
        known: further fields of :class:`~common.experts.spec.ExpertSpec`, None for what is not given.
        trust: run the code of a MONAI bundle without asking.
        training_files: folder of the scans that it learned from, whose ``dataset.json`` is compared with its channels.

    Raises:
        ConfigError: when it is not said whose expert it is, something cannot be read, or nobody agrees to run a
            bundle's code.
        ExpertError: when the expert cannot be opened.
        DataError: when its training files are described as something else than its channels.
    """
    if external == bool(task):
        got = f"{shown_option('task', task or None)} --external {bool(external)}"
        expected = "--task with the name of its data set, or --external True"
        raise ConfigError("whose expert is it?", where=path, got=got, expected=expected)
    structures = read_structures(labels)
    given = None if structures is None else LabelSpace.from_json(structures, where="--labels")
    order = [c.strip() for c in channels.split(",")] if isinstance(channels, str) else channels
    if kind_of(path) == "bundle":
        known = {**known, "trusted": agreed(path, trust, str(known.get("checkpoint") or WEIGHTS))}
    spec = describe_expert(path, name=name or task or path.stem, role="external" if external else "task", task=task,
                           labels=given, channels=order, **known)  # fmt: skip
    for line in () if training_files is None else said_beside(training_files, spec.channels):
        console().print(line, soft_wrap=True, markup=False)
    with atomic_write(target) as temporary:
        temporary.write_text(json.dumps(spec.to_dict(), indent=2) + "\n", encoding="utf-8")
    console().print(_table(spec))
    silent = [c for c, read in zip(spec.channels, meant_together(spec.channels), strict=True) if not meanings(read)]
    if silent:
        console().print(f"channel {', '.join(silent)} tells no modality, and is compared by its name alone: "
                        "--channels CT or what else it is", soft_wrap=True)  # fmt: skip
    use = shown_option("external", target) if external else shown_option("given", f"{task}={target}")
    console().print(f"{target}: now  python -m tools chain run ka2er --dataset_dir <collection> {use}", soft_wrap=True)
    return spec


def agreed(bundle: Path, trust: bool, weights: str = WEIGHTS) -> str:
    """The hash of a bundle's code, after saying what it would run and asking whether it may.

    Args:
        bundle: folder.
        trust: the answer was given already.
        weights: of the expert, relative to the folder.

    Raises:
        ConfigError: when the answer is no; without a terminal it is.
    """
    found = code_hash(bundle, weights)
    lines = foreign_calls(bundle)
    shown = "\n".join(f"  {line}" for line in lines[:_SHOWN])
    more = f"\n  ... and {len(lines) - _SHOWN} more: python -m tools bundle check DIR" if len(lines) > _SHOWN else ""
    console().print(f"{bundle}: a MONAI bundle is code. Opening it may run:\n{shown}{more}", soft_wrap=True)
    if not trust and not ask(f"run the code of this bundle ({found[:12]}...)?"):
        problem = "the bundle's code was not run, and nothing was written"
        hint = "look at the list above; add --trust True if you trust those who made it"
        raise ConfigError(problem, where=bundle, got=f"code {found[:12]}...", expected="a yes", hint=hint)
    return found


def foreign_calls(bundle: Path) -> list[str]:
    """What a bundle's inference configuration would import, call and evaluate, with nothing evaluated.

    Raises:
        ConfigError: for a configuration that cannot be read.
        ExpertError: for one that reads files from outside of the bundle.
    """
    files = [bundle / "configs" / f"inference.{suffix}" for suffix in ("json", "yaml", "yml")]
    return calls_of(bundle_parser(next(f for f in files if f.is_file()), bundle))


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
        **({"folds": ", ".join(map(str, spec.folds))} if len(spec.folds) > 1 else {}),
        **({} if spec.profile is None else {"home": f"{spec.profile['program']} {spec.profile['version']}"}),
        "sha256": f"{spec.sha256[:12]}...",
    }
    table = Table("what", "read", title=f"Expert {spec.name}", show_header=False)
    for key, value in rows.items():
        table.add_row(key, value)
    return table
