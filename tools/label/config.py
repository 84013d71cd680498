"""A bundle's inference.json as MONAI Label reads it: one file, and nothing in it that only our commands need."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.card import ModelCard
from common.contract import Contract, contract_of
from common.dicom_tags import DICOM_KINDS, of_dicom
from common.engine.evaluation.score_record import read_scores
from common.errors import ConfigError, WeightError
from common.literals import check_name, inert, same_on_disk
from common.methods.ka2er.planned import student_overlap
from common.modalities import kind_of, same
from common.weights import read_card

from ..bundle_describe import check_metadata_text, describe_weights
from ..bundle_files import read_json
from ..chain.trained import model_hint
from ..predict.prompt_options import reads
from ..workflow import config_files, read_config

__all__ = [
    "KINDS",
    "Choice",
    "Model",
    "dicom_tags",
    "kinds_of",
    "modalities_of",
    "read_model",
    "served_inference",
    "served_metadata",
    "tags_by_modality",
]

KINDS = ("segmentation", "deepgrow", "deepedit")
"""What a server offers a model as; it finds out by the folder's name alone."""

# the server brings data, loop and files of its own
_OWN = frozenset((
    "dataset", "dataloader", "evaluator", "handlers", "progress_handler", "start", "run", "weights", "network",
    "evaluate", "dataset_dir", "split", "output_dir", "num_workers", "quiet", "amp", "prompts",
    "keep", "trust_kept", "kept_answers", "kept", "ask_kept", "unite_kept",
))  # fmt: skip
_LEFT = ("SavePredictiond", "LeaveToKeptd", "@unite_kept")  # a viewer's answer is the student's alone


class Choice(NamedTuple):
    """Something that a scan's file does not say and a user has to: shown by viewers as a list.

    Args:
        key: of inference.json, ``modality`` or ``head``.
        options: what may be chosen, the default first.
    """

    key: str
    options: tuple[str, ...]


class Model(NamedTuple):
    """A trained model of a bundle: its folder, its weights file and what the weights say about themselves."""

    bundle: Path
    weights: Path
    card: ModelCard

    @property
    def settings(self) -> Mapping[str, Any]:
        """What inference must know about the training."""
        found: Mapping[str, Any] = self.card.extra["settings"]
        return found

    @property
    def flat(self) -> bool:
        """Whether it segments pictures."""
        meta = read_json(self.bundle / "configs" / "metadata.json")["network_data_format"]["inputs"]
        return len(next(iter(meta.values()))["spatial_shape"]) == 2


def read_model(bundle: Path, weights: str | Path | None = None) -> Model:
    """The model that is to be served.

    Args:
        bundle: folder.
        weights: another file than the bundle's own ``models/model.pt``.

    Raises:
        WeightError: when there are no weights, or they do not say how they were trained.
    """
    path = bundle / "models" / "model.pt" if weights is None else Path(weights)
    if not path.is_file():
        raise WeightError("there are no weights to serve", where=path, hint=model_hint(bundle.resolve().name))
    card = read_card(path)
    if card is None or not isinstance(card.extra.get("settings"), Mapping):
        expected = "a model.pt written by this collection's training"
        raise WeightError("the weights do not say how they were trained", where=path, expected=expected)
    for alike in same_on_disk(card.labels.names):  # viewers disregard capitals
        raise WeightError(
            "a viewer cannot tell structures apart whose names differ in capitals or spelling alone",
            where=path,
            got=", ".join(map(ascii, alike)),
            hint="python -m tools weights rename",
        )
    return Model(bundle, path, card)


def kinds_of(bundle: Path) -> tuple[str, ...]:
    """What a bundle can be offered as, the most natural one first."""
    found = [k for k in KINDS[1:] if (bundle / "configs" / f"inference_{k}.json").is_file()]
    promptable = reads(read_config(config_files(bundle, "inference")).get()) == "prompts"
    return tuple(found) if promptable else ("segmentation", *found)


def modalities_of(model: Model) -> list[str]:
    """What the model was trained on, as its data sets called it."""
    return [str(name) for name in model.settings.get("modalities") or model.settings.get("intensities") or ()]


def choices(model: Model, given: Mapping[str, str | None]) -> list[Choice]:
    """What a user has to say about each scan, with the default that was given.

    Raises:
        ConfigError: when there is a choice without a default (a server's user would not notice a wrong one), or one
            with a name that is none.
    """
    found, config = [], read_config(config_files(model.bundle, "inference")).get()
    options = {
        "modality": modalities_of(model),
        "head": [str(name) for name, _ in model.settings.get("heads") or ()],
    }
    for key, names in options.items():
        default = given.get(key)
        if key not in config or (len(names) < 2 and default is None):
            continue
        if default is None:
            expected = ", ".join(names)
            hint = f"add --{key} NAME; each request may still choose another"
            raise ConfigError(f"say which {key} the studies are", where=model.weights, expected=expected, hint=hint)
        if default not in names:
            raise ConfigError(f"the model has no such {key}", where=f"--{key}", got=default, expected=", ".join(names))
        for name in names:  # a viewer sends one of them back
            check_name(name, key, where=model.weights, error=ConfigError)
        found.append(Choice(key, (default, *(n for n in names if n != default))))
    return found


def served_inference(model: Model, kind: str, given: Mapping[str, str | None]) -> dict[str, Any]:
    """The configuration for ``configs/inference.json`` of a laid-out bundle.

    The model's settings are written out, so that weights which a server's training wrote need no card; transforms that
    save are gone; the last one says what the server needs to know about an answer.

    Args:
        model: from :func:`read_model`.
        kind: of :data:`KINDS`.
        given: default ``modality`` and ``head``.

    Raises:
        ConfigError: for a kind that the bundle or the model has not, or a choice that nobody made.
    """
    known = kinds_of(model.bundle)
    if kind not in known:
        raise ConfigError(
            "the bundle cannot be offered as this", where=model.bundle.name, got=kind, expected=", ".join(known)
        )
    if kind != KINDS[0] and model.settings.get("plans"):
        raise ConfigError("this model is an nnU-Net and reads no prompts", where=model.weights, got=kind,
                          expected=KINDS[0])  # fmt: skip
    overlay = [f"inference_{kind}"] if (model.bundle / "configs" / f"inference_{kind}.json").is_file() else []
    config: dict[str, Any] = copy.deepcopy(read_config(config_files(model.bundle, "inference", *overlay)).get())
    config = {k: v for k, v in config.items() if k not in _OWN}
    card = model.card
    config["model"]["path"] = ""
    told = {"structures": list(card.labels.names), "channels": list(card.channels), "exclusive": card.labels.exclusive}
    config["model"]["defaults"] = inert({**config["model"]["defaults"], **model.settings, **told})
    config["device"] = "cpu"
    shown = config.get("displayable_configs", {})
    if isinstance(shown.get("overlap"), Mapping):  # read from the card, which a viewer does not have
        shown["overlap"] = student_overlap(settings=model.settings, path=model.weights)
    _offer(config, choices(model, given))
    steps = config["postprocessing"]["transforms"]
    steps[:] = [s for s in steps if not (s if isinstance(s, str) else str(s.get("_target_", ""))).endswith(_LEFT)]
    steps.append(_described(card.labels.names, model.flat, mask=kind == "deepgrow"))
    before = config["preprocessing"]["transforms"]
    before[:] = [s for s in before if not (isinstance(s, dict) and str(s.get("_target_", "")).endswith("CompareReadd"))]
    for step in before:
        if isinstance(step, dict) and str(step.get("_target_", "")).endswith("UserPromptsd"):
            step["prompts"] = None
    loaded = next(i for i, s in enumerate(before, 1) if str(s.get("_target_", "")).endswith("LoadCased"))
    before.insert(loaded, _compared(contract_of(model.weights), flat=model.flat, asked="modality" in config))
    return config


def _compared(contract: Contract, *, flat: bool, asked: bool) -> dict[str, Any]:
    """What is compared of each scan with the card."""
    target = {"_target_": "common.data.requests.card.CompareWithCardd", "modalities": inert(dict(contract.modalities)),
              "taught": inert({name: list(structures) for name, structures in contract.taught.items()})}  # fmt: skip
    told = {"channels": inert(list(contract.channels)), "modality": "@modality" if asked else None, "flat": flat}
    return {**target, **told}


def dicom_tags(model: Model) -> list[str]:
    """What DICOM's tag Modality says of studies that the model was taught on; none when nobody knows."""
    found = tags_by_modality(model)
    return [t for t in DICOM_KINDS if any(t in tags for tags in found.values())] if all(found.values()) else []


def tags_by_modality(model: Model) -> dict[str, list[str]]:
    """What DICOM's tag Modality says of studies of each of the model's modalities; none where nobody knows."""
    found = {}
    for name, entry in contract_of(model.weights).modalities.items():
        kind = str(entry.get("kind") or kind_of(name))
        names = [name, *map(str, entry.get("channels") or ())]
        alike = [t for t in DICOM_KINDS if kind and kind in (DICOM_KINDS[t], kind_of(of_dicom(t, names)))]
        found[name] = [t for t in alike if any(same(of_dicom(t, names), n) is not False for n in names)]
    return found


def _described(names: Sequence[str], flat: bool, *, mask: bool) -> dict[str, Any]:
    target = "common.data.requests.answer.DescribeAnswerd"
    return {
        "_target_": target,
        "structures": inert(list(names)),
        "extension": ".png" if flat else ".nii.gz",
        "mask": mask,
    }


def _offer(config: dict[str, Any], offered: Sequence[Choice]) -> None:
    """Put choices where viewers show them; one that a request leaves open arrives as the whole list."""
    shown = config.setdefault("displayable_configs", {})
    for choice in offered:
        shown[choice.key] = list(choice.options)
        value = f"@displayable_configs['{choice.key}']"
        config[choice.key] = f"${value} if isinstance({value}, str) else {value}[0]"
    if not shown:
        del config["displayable_configs"]


def served_metadata(model: Model) -> dict[str, Any]:
    """The bundle's metadata.json with the label space, the data and the scores of these weights."""
    meta = read_json(model.bundle / "configs" / "metadata.json")
    data = meta["network_data_format"]
    first = next(iter(data["outputs"].values()))
    names = ["background", *model.card.labels.names]
    first["channel_def"] = {str(i): name for i, name in enumerate(names)}
    first["num_channels"] = len(names)
    describe_weights(meta, model.card, read_scores(model.weights))
    data["inputs"] = {"image": next(iter(data["inputs"].values()))}
    data["outputs"] = {"pred": first}
    check_metadata_text(meta)
    return meta
