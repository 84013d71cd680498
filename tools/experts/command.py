"""`python -m tools experts`: describe and check somebody's expert; give a trained mixture one more."""

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
from common.data.survey import merged, survey
from common.errors import DataError, WeightError
from common.experts.sources import hash_files
from common.integrity import SUFFIX
from common.labels import LabelSpace, union
from common.methods.m4oe.build import m4oe_network
from common.methods.m4oe.network import M4oE
from common.modalities import same as one_modality
from common.paths import check_new
from common.weights import load_weights, read_state_dict

from ..terminal import console
from .check import check
from .decoder import add
from .describe import describe
from .told import read_folds, told

__all__ = ["Experts"]

_ROUNDING = 1e-3
_SETTINGS = ("network", "modalities", "heads", "intensities")
_WRAPPED = "network."


class Experts:
    """Describe somebody else's expert, or change those of a trained M4oE or SAM-Med3D-MoE without training it again."""

    def describe(
        self,
        path: str,
        out: str,
        task: str = "",
        external: bool = False,
        name: str | None = None,
        labels: str | None = None,
        channels: str | Sequence[str] | None = None,
        spacing: Sequence[float] | None = None,
        orientation: str | None = None,
        features: str | None = None,
        normalise: dict[str, Any] | None = None,
        divisor: int | None = None,
        configuration: str | None = None,
        fold: int | str | None = None,
        folds: str | None = None,
        checkpoint: str | None = None,
        training_files: str | None = None,
        profile: str | None = None,
        map: str | None = None,
        trust: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Describe a trained nnU-Net, zoo bundle or TorchScript file, so that KA2ER can ask it.

        What an nnU-Net's own files or a bundle's metadata tell need not be given. The expert is opened once to see
        that it can be. Then: ``python -m tools chain run ka2er --given <task>=<out>``, or ``--external <out>``.

        Args:
            path: results folder of nnU-Net (with plans.json), folder of a MONAI bundle, or a TorchScript file.
            out: the JSON file to write.
            task: the data set whose expert it is.
            external: it belongs to no task: a task-agnostic expert.
            name: of the expert; the task or the file's name when left out.
            labels: its structures and their values in its output, ``"liver=1,spleen=2"``.
            channels: names of the image channels in its order, separated by commas.
            spacing: mm per voxel in x, y, z that it was trained with; the crops' when left out.
            orientation: axis codes that it was trained with; RAS when left out, of an nnU-Net its reader's.
            features: for bundles and TorchScript, the module whose output is taken, such as ``model.1.submodule``.
            normalise: for these, ``{"scheme": "range", "low": -57, "high": 164}``, ``{"scheme": "zscore"}``, ...
            divisor: for these, what sizes must be a multiple of.
            configuration: of an nnU-Net with several, such as ``3d_fullres``.
            fold: of an nnU-Net.
            folds: several of them, which answer together as one expert: ``0,1,2,3,4``, or ``all``.
            checkpoint: weight file, relative to the fold or the bundle.
            training_files: folder of the scans that an nnU-Net learned from, which tell its orientation.
            profile: the program that an nnU-Net lives in: ``totalsegmentator``, or a JSON file of the same form.
            map: structures that are called otherwise here: ``"old=new,other=another"``.
            trust: of a MONAI bundle, whose code is run to open it: do so without asking. The description remembers the
                code's hash, and no other code is run later.
            overwrite: replace --out.
        """
        target = Path(str(out))
        _check_json(target, overwrite)
        extra = {k: v for k, v in (("normalise", normalise), ("divisor", divisor)) if v is not None}
        more = told(Path(str(path)), orientation=orientation, training_files=training_files, fold=fold, folds=folds,
                    checkpoint=checkpoint, profile=profile, renamed=map)  # fmt: skip
        known = {"spacing": spacing, "features": features, "configuration": configuration, "checkpoint": checkpoint,
                 "extra": extra or None, **more}  # fmt: skip
        describe(Path(str(path)), target, task=str(task), external=external, name=name, labels=labels,
                 channels=channels, known=known, trust=trust)  # fmt: skip

    def check(
        self,
        expert: str,
        *scans: str,
        spacing: Sequence[float] | None = None,
        orientation: str = "RAS",
        mirroring: bool | None = None,
        folds: str | None = None,
        together: bool = False,
        out: str | None = None,
    ) -> None:
        """Ask a described nnU-Net twice, as its answers are kept and by nnU-Net's whole pipeline, and compare.

        Args:
            expert: the description that ``experts describe`` wrote.
            scans: scans that the expert can read: files, folders, DICOM series.
            spacing: mm per voxel in x, y, z of the student that it will teach; its own when left out.
            orientation: axis codes of that student.
            mirroring: whether both answer for mirrored scans, too; when left out as its home does (nnU-Net does).
            folds: which folds answer together, ``0,1,2``; the description's when left out.
            together: the files are the channels of one scan, in the expert's order.
            out: JSON file to write what was found to.
        """
        check(Path(str(expert)), [Path(str(s)) for s in scans], spacing=spacing, orientation=str(orientation),
              mirroring=mirroring, folds=read_folds(folds), together=together,
              out=None if out is None else Path(str(out)))  # fmt: skip

    def add_decoder(
        self,
        model: str,
        expert: str,
        out: str,
        name: str | None = None,
        seed: int = 0,
        overwrite: bool = False,
    ) -> None:
        """Append a fine-tuned mask decoder to a SAM-Med3D-MoE; proves that nobody else's answers change.

        Args:
            model: the trained mixture's model.pt.
            expert: a run of sam_med3d_moe_expert on the same general model, or its model.pt.
            out: the file to write, .pt, .pth or .safetensors.
            name: of the expert; its own when omitted.
            seed: of the prompts of the proof.
            overwrite: replace --out, which may then be the model itself.
        """
        target = Path(str(out))
        _check_target(target, overwrite)
        add(Path(str(model)), Path(str(expert)), target, name=None if name is None else str(name), seed=seed)

    def add_modality(
        self,
        model: str,
        dataset_dir: str,
        out: str,
        copy_of: str | None = None,
        seed: int = 0,
        overwrite: bool = False,
        ignore_card: bool = False,
    ) -> None:
        """Append the expert and the head of one new data set; the result is the start of a further training.

        Args:
            model: the trained network's weights, with their card.
            dataset_dir: one data set of one modality, both new to the model.
            out: the file to write, .pt, .pth or .safetensors.
            copy_of: the modality whose experts the new ones start as; at random without it.
            seed: of what starts at random.
            overwrite: replace --out, which may then be the model itself.
            ignore_card: go on where the data set calls its modality something that its channels are not.
        """
        source, target = Path(str(model)), Path(str(out))
        _check_target(target, overwrite)
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
            extra["contract"] = merged(
                card.extra["contract"], survey(collection, taught=False, ignore_card=ignore_card)
            )
        state = {prefix + name: tensor for name, tensor in network.state_dict().items()}
        save_weights(target, state, replace(card, labels=labels, config_hash="", extra=extra))
        _report(before, network, card.labels, labels, change, hard, same, target)


class _Change(NamedTuple):
    """Largest change of the old heads' probabilities, and whether all their logits are the same bit for bit."""

    largest: float
    identical: bool


def _check_target(target: Path, overwrite: bool) -> None:
    check_new(target, ("", SUFFIX), error=WeightError)
    if target.suffix not in (".pt", ".pth", ".safetensors"):
        raise WeightError("unknown weights format", where=target, got=target.suffix, expected=".pt, .pth, .safetensors")
    if target.exists() and not overwrite:
        raise WeightError("the file exists already", where=target, hint="choose another --out, or pass --overwrite")


def _check_json(target: Path, overwrite: bool) -> None:
    check_new(target)
    if target.suffix != ".json":
        raise DataError("a description is a JSON file", where="--out", got=target.name, expected="expert.json")
    if target.exists() and not overwrite:
        raise DataError("there is a file of this name already", where=target, hint="add --overwrite True")


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
