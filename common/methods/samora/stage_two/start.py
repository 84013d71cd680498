"""What a SAMora starts from: a public SAM and the experts of its first stage."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....backbones.hsam.network import HSam
from ....backbones.hsam.weights import load_hsam
from ....backbones.sam.network import Sam
from ....backbones.sam.weights import load_sam

# isort: split
from ....backbones.sam2.network import Sam2
from ....backbones.sam2.weights import load_sam2
from ....bundle_words import shown_knob
from ....card import ModelCard
from ....data.datasets.datalist import Collection
from ....data.starts import check_start
from ....errors import ConfigError, ExpertError, WeightError
from ....integrity import file_hash
from ....layers.lora.files import CONFIG, WEIGHTS, base_hash, load_adapter
from ....paths import check_path
from ....weights import read_card
from ..base import CARD
from .network import SAMora

__all__ = ["adapter_folder", "expert_card", "expert_records", "load_base", "started"]

logger = logging.getLogger(__name__)


def _hint(level: str) -> str:
    start = "python -m monai.bundle run --config_file bundles/samora_expert/configs/train.json"
    return f"train it: {start} {shown_knob('level', level)}"


def load_base(network: Sam | HSam | Sam2, weights: str | Path, *, interpolation: str = "bilinear") -> None:
    """Fill SAM, H-SAM or SAM2 from a public file; mask tokens of another number of classes keep their values.

    Raises:
        WeightError: for weights that do not fit.
    """
    if isinstance(network, Sam2):
        load_sam2(network, weights)
    elif isinstance(network, HSam):
        load_hsam(network, weights, interpolation=interpolation)
    else:
        load_sam(network, weights, interpolation=interpolation)


def adapter_folder(path: str | Path) -> Path:
    """The folder with PEFT's files of a run of the first stage, or of its ``model.pt``, or the folder itself.

    Raises:
        ExpertError: when there is neither.
    """
    path = check_path(path, what="expert", error=ExpertError)
    path = path.parent if path.is_file() else path  # its model.pt
    for folder in (path, path / "adapter"):
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    got = "no such folder" if not path.exists() else f"no {CONFIG}"
    expected = f"a run of bundles/samora_expert, or a folder with {CONFIG}"
    raise ExpertError("here is no expert", where=path, got=got, expected=expected)


def expert_card(folder: Path) -> ModelCard | None:
    """What an expert says of itself, by its run's ``model.pt`` or ``card.json``; None for bare files of PEFT.

    Raises:
        WeightError: when that cannot be read.
    """
    for path in (folder / "model.pt", folder.parent / "model.pt"):
        if path.is_file():
            return read_card(path)
    file = folder / CARD
    if not file.is_file():
        return None
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        hint = "copy the expert's folder again from where it came from, or train it again"
        raise WeightError("the expert's card cannot be read", where=file, got=str(error), expected="JSON in UTF-8",
                          hint=hint) from error  # fmt: skip
    return ModelCard.from_json(text, where=file)


def expert_records(experts: Mapping[str, str | Path | None]) -> dict[str, str]:
    """sha256 of each given expert's weights, for a model's card.

    Raises:
        ExpertError: when a folder holds no expert.
    """
    found = {}
    for level, path in experts.items():
        if path is not None:
            found[level] = file_hash(adapter_folder(path) / WEIGHTS)
    return found


def started(
    network: SAMora,
    *,
    experts: Mapping[str, str | Path | None],
    samed: str | Path | None = None,
    dataset_dir: str | Path | Sequence[str | Path] | Collection | None = None,
    ignore_card: bool = False,
) -> SAMora:
    """The network with its experts.

    Args:
        network: changed in place; its base has its weights already, as experts belong to one base.
        experts: for each level a run of the first stage, or its folder of PEFT's files.
        samed: SAMed's or H-SAM's own file instead, for one trainable expert.
        dataset_dir: what is learned from, which must be what the experts were taught on.
        ignore_card: warn of it only.

    Raises:
        DataError: for an expert that was taught on something else.
        ExpertError: for a level without an expert, an expert of another level or base, or one that no level asks for.
        WeightError: for weights that do not fit.
    """
    encoder, given = network.base.image_encoder, {k: v for k, v in experts.items() if v is not None}
    if samed is not None:
        _start_from_samed(network, samed, given)
        return network
    unused = [level for level in given if level not in network.levels]
    missing = [level for level in network.levels if level not in given]
    if unused:
        raise ExpertError("an expert is given that the network has no level for", where=", ".join(map(str, unused)),
                          got=str(given[unused[0]]), expected=f"experts of {list(network.levels)}",
                          hint="leave it away, or add its level to --levels")  # fmt: skip
    if missing and not network.train_experts:
        expected = f"--{missing[0]}_expert DIR"
        hint = _hint(missing[0])
        raise ExpertError("a level has no expert", where=missing[0], got=None, expected=expected, hint=hint)
    own = base_hash(encoder) if given else ""
    for level, path in given.items():
        folder = adapter_folder(path)
        card = expert_card(folder)
        check_start(card, folder, dataset_dir, ignore_card=ignore_card)
        _check(card, level, own, folder)
        load_adapter(encoder, level, folder)
    return network


def _start_from_samed(network: SAMora, samed: str | Path, given: Mapping[str, Any]) -> None:
    if not network.train_experts or len(network.levels) != 1 or given:
        problem = "SAMed's file is the start of one trainable expert"
        expected = "the overlay lora_one.json, and no expert"
        raise ConfigError(problem, where="samed_weights", got=list(network.levels), expected=expected)
    load = load_hsam if isinstance(network.base, HSam) else load_sam
    load(network.base, samed, level=network.levels[0])


def _check(card: ModelCard | None, level: str, own: str, folder: Path) -> None:
    """Refuse an expert of another level or base; what an expert does not say is not checked, but logged."""
    settings = {} if card is None else dict(card.extra.get("settings") or {})
    told = settings.get("level")
    if told is not None and told != level:
        raise ExpertError("the expert is of another level", where=folder, got=told, expected=level)
    theirs = settings.get("base_hash")
    if theirs is None:
        logger.warning("%s does not say which base it was trained on: it is taken as it is", folder)
    elif theirs != own:
        hint = "give both stages the same --sam_weights, or the same --base_seed and --variant"
        got = f"base {theirs[:12]}"
        expected = f"base {own[:12]}"
        raise ExpertError("the expert was trained on another base", where=folder, got=got, expected=expected, hint=hint)
