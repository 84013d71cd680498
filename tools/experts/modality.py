"""One more modality for a trained M4oE: its expert and its head, and the proof that the others answer as before."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import Tensor

from common.card import ModelCard, save_weights
from common.data.datasets.datalist import Collection, read_collection
from common.data.datasets.dataset import Dataset
from common.data.intensity.modality import intensities
from common.data.survey import survey
from common.data.survey_union import merged
from common.errors import DataError, WeightError
from common.experts.sources import hash_files
from common.labels import LabelSpace, union
from common.methods.m4oe.build import m4oe_network
from common.methods.m4oe.network import M4oE
from common.modalities import same as one_modality
from common.weights import load_weights, read_state_dict

from ..terminal import console

__all__ = ["append"]

_ROUNDING = 1e-3
_SETTINGS = ("network", "modalities", "heads", "intensities")
_WRAPPED = "network."


class _Change(NamedTuple):
    """Largest change of the old heads' probabilities, and whether all their logits are the same bit for bit."""

    largest: float
    identical: bool


def append(source: Path, dataset_dir: str, target: Path, *, copy_of: str | None, seed: int, ignore_card: bool) -> None:
    """Append the expert and the head of one new data set, and prove what that changes.

    Args:
        source: the trained network's weights, with their card.
        dataset_dir: one data set of one modality, both new to the model.
        target: the file to write.
        copy_of: the modality whose experts the new ones start as; at random when None.
        seed: of what starts at random.
        ignore_card: go on where the data set calls its modality something that its channels are not.

    Raises:
        WeightError: for weights of another kind, or when the others' outputs changed.
        DataError: for a data set that is no new task of one new modality.
    """
    tensors, card = read_state_dict(source)
    settings = _settings(card, source)
    assert card is not None
    network, prefix = _network(card, settings, tensors, source)
    before = copy.deepcopy(network)
    collection, dataset = _new_dataset(dataset_dir, settings, card)
    modality, labels = collection.modalities[0], union(card.labels, dataset.labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.add_modality(modality, dataset.name, [0, *labels.indices(dataset.labels.names)],
                             total=labels.num_classes, copy_of=copy_of)  # fmt: skip
    change = _difference(before, network, int(settings.get("image_size", 224)), seed)
    hard = settings["network"].get("gate", "expert") == "none" or not _has_gates(network)
    same = copy_of is not None and settings["network"].get("top_k") is None
    _prove(change, hard, same, target)
    settings = {
        **settings,
        "modalities": [*settings["modalities"], modality],
        "heads": [*settings["heads"], [dataset.name, list(dataset.labels.names)]],
        "intensities": {**settings["intensities"], modality: intensities(collection, seed)[modality]},
    }
    parent = {"file": source.name, "sha256": hash_files((source,)), "config_hash": card.config_hash,
              "extra": {k: v for k, v in card.extra.items() if k != "settings"}}  # fmt: skip
    extra = {"settings": settings, "parent": parent, "added": {"modality": modality, "copy_of": copy_of}}
    if "contract" in card.extra:  # the new modality is known; nothing was taught on it yet
        extra["contract"] = merged(card.extra["contract"], survey(collection, taught=False, ignore_card=ignore_card))
    state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    save_weights(target, state, replace(card, labels=labels, config_hash="", extra=extra))
    _report(before, network, card.labels, labels, change, hard, same, target)


def _settings(card: ModelCard | None, source: Path) -> dict[str, Any]:
    stored = None if card is None else card.extra.get("settings")
    if card is None or card.bundle != "m4oe" or not isinstance(stored, Mapping):
        got = "no card" if card is None else f"a card of {card.bundle or 'an unknown bundle'}"
        expected = "a model.pt that the m4oe bundle wrote"
        raise WeightError("these are no weights of a trained M4oE", where=source, got=got, expected=expected)
    missing = [k for k in _SETTINGS if k not in stored]
    if missing:
        raise WeightError("the weights' card lacks settings", where=source, got=sorted(stored), expected=missing)
    return dict(stored)


def _network(
    card: ModelCard, settings: Mapping[str, Any], tensors: Mapping[str, Tensor], source: Path
) -> tuple[M4oE, str]:
    try:
        network = m4oe_network(
            labels=card.labels, modalities=settings["modalities"], heads=settings["heads"], **settings["network"]
        )
    except TypeError as error:
        raise WeightError(
            f"the card's network cannot be built: {error}", where=source, got=settings["network"]
        ) from error
    prefix = _WRAPPED if all(name.startswith(_WRAPPED) for name in tensors) else ""
    load_weights(network, tensors, strip=prefix, where=source)
    return network.eval(), prefix


def _new_dataset(
    dataset_dir: str | Sequence[str], settings: Mapping[str, Any], card: ModelCard
) -> tuple[Collection, Dataset]:
    collection = read_collection(dataset_dir if isinstance(dataset_dir, str) else [str(p) for p in dataset_dir])
    kinds = (
        ("task", collection.tasks, [task for task, _ in settings["heads"]]),
        ("modality", collection.modalities, settings["modalities"]),
    )
    for kind, found, known in kinds:
        if len(found) != 1:
            got = ", ".join(found) or "none"
            hint = "name the folder of one data set, or split it by modality"
            raise DataError(f"one {kind} is added at a time", where=collection.root, got=got, hint=hint)
        if found[0] in known or (kind == "modality" and any(one_modality(found[0], k) for k in known)):
            problem = f"the model has this {kind} already"
            expected = f"none of {', '.join(known)}"
            hint = "rename it in a collection.json, or continue the training instead"
            raise DataError(problem, where=collection.root, got=found[0], expected=expected, hint=hint)
    if len(collection.channels) != len(card.channels):
        problem = "the data set has another number of channels than the model"
        where = collection.root
        raise DataError(problem, where=where, got=", ".join(collection.channels), expected=", ".join(card.channels))
    return collection, collection.datasets[0]


def _has_gates(network: M4oE) -> bool:
    return any(getattr(f, "gate", None) is not None for f in network.backbone.feed_forwards())


@torch.inference_mode()
def _difference(before: M4oE, after: M4oE, size: int, seed: int) -> _Change:
    """On noise, with every old modality and every old head at least once."""
    generator = torch.Generator().manual_seed(seed)
    modalities, heads, total = len(before.modalities), len(before.tasks), before.heads.total
    largest, identical = 0.0, True
    for i in range(max(modalities, heads)):
        image = torch.randn(1, 1, size, size, generator=generator)
        ids = torch.tensor([i % modalities]), torch.tensor([i % heads])
        old, new = before(image, *ids).logits, after(image, *ids).logits
        added = new[:, total:]
        identical &= torch.equal(old, new[:, :total]) and bool((added == -torch.inf).all())
        largest = max(largest, float((old.softmax(1) - new[:, :total].softmax(1)).abs().max()))
    return _Change(largest, identical)


def _prove(change: _Change, hard: bool, same: bool, target: Path) -> None:
    got = f"probabilities differ by up to {change.largest:.3g}"
    if hard and not change.identical:
        problem = "the new expert changed the others' outputs; nothing was written"
        raise WeightError(problem, where=target, got=got, expected="the same bits")
    if same and not change.largest <= _ROUNDING:
        problem = "a copied expert changed the mixture; nothing was written"
        raise WeightError(problem, where=target, got=got, expected=f"rounding, at most {_ROUNDING}")


def _report(
    before: M4oE,
    after: M4oE,
    old: LabelSpace,
    labels: LabelSpace,
    change: _Change,
    hard: bool,
    same: bool,
    target: Path,
) -> None:
    table = Table("", "before", "after", title=str(target))
    for name, rows in (
        ("experts", [", ".join(n.modalities) for n in (before, after)]),
        ("heads", [", ".join(n.tasks) for n in (before, after)]),
        ("structures", [str(len(s)) for s in (old, labels)]),
        ("parameters", [f"{sum(p.numel() for p in n.parameters()):,}" for n in (before, after)]),
    ):
        table.add_row(name, *rows)
    terminal = console()
    terminal.print(table)
    added = [n for n in labels.names if n not in old.names]
    text = f"new structures: {', '.join(added) or 'none, the model knows all of them'}\n"
    text += f"largest difference of the old heads' probabilities on noise: {change.largest:.3g}"
    if hard:
        text += " (their logits are the same bits)\nThe new expert knows nothing yet: train it on the data set."
    elif same:
        text += " (rounding: the copy shares its original's weight)\nThe new head knows nothing yet: train it."
    else:
        text += (
            "\nThe gates give the new expert weight that it has not earned: the model needs training before it is used."
            "\n--copy_of MODALITY starts it as a copy, which leaves the old heads' outputs as they are when all"
            " experts are asked."
        )
    terminal.print(text)
