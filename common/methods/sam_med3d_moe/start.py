"""What SAM-Med3D-MoE is made of: a general model from a file, and the decoders that were fine-tuned on its features."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...backbones.sam3d.decoder import MaskDecoder3D
from ...backbones.sam3d.network import Sam3D, sam3d_network
from ...card import ModelCard
from ...data.datasets.datalist import Collection
from ...data.starts import check_start
from ...errors import ConfigError, ExpertError
from ...layers.gating.prompt_gate import PromptGate
from ...paths import check_path, is_there
from ...weights import digest, load_weights, read_card, read_state_dict
from .network import SAMMed3DMoE

__all__ = ["DecoderExpert", "General", "general_model", "mixture", "read_decoders", "trained_mixture"]

logger = logging.getLogger(__name__)

DatasetDir = str | Path | Sequence[str | Path] | Collection
DECODER = "mask_decoder."
_OWN = ("variant", "image_size", "rel_pos", "boxes")
_MIXTURE = ("experts", "heads", "hidden", "prompt_pool", "general_logit", "tau", "fusion")


class General(NamedTuple):
    """A SAM-Med3D and the plain values that build another one like it."""

    network: Sam3D
    settings: dict[str, Any]


class DecoderExpert(NamedTuple):
    """A fine-tuned mask decoder.

    Args:
        name: unique in a mixture.
        structures: what it was tuned for; its name where its file does not tell.
        decoder: of the general decoder's shape.
        sha256: of its tensors.
        spacing: mm of the crops that it was tuned on; None where its file does not tell.
        card: of its file.
    """

    name: str
    structures: tuple[str, ...]
    decoder: MaskDecoder3D
    sha256: str
    spacing: float | None = None
    card: ModelCard | None = None


def general_model(
    weights: str | Path | None = None, *, variant: str | None = None, image_size: int | None = None,
    rel_pos: str | None = None, boxes: bool | None = None, seed: int | None = 0, checkpointing: bool = False,
    dataset_dir: DatasetDir | None = None, ignore_card: bool = False,
) -> General:  # fmt: skip
    """SAM-Med3D from a file that this repository trained or a public one, or with random weights.

    What is not given is read from the file's card; a public file has none and is the released network.

    Args:
        weights: ``model.pt`` of ``sam_med3d_moe_expert`` or ``sam_med3d*.pth``.
        variant: see :func:`~common.backbones.sam3d.network.sam3d_network`.
        image_size: voxels along each side of a crop.
        rel_pos: ``released`` or ``intended``.
        boxes: with embeddings of box corners; they begin near the positive point's where the file has none.
        seed: of random weights.
        checkpointing: less memory in training.
        dataset_dir: what is learned from, which must be what the file was taught on (:func:`check_start`).
        ignore_card: warn of it only.

    Raises:
        ConfigError: for a variant, size or position bias that the file was not trained with.
        DataError: for a file that was taught on something else.
        WeightError: when the file does not fit.
    """
    card = None if weights is None else read_card(weights)
    check_start(card, str(weights), dataset_dir, ignore_card=ignore_card)
    own: Mapping[str, Any] = {} if card is None else (card.extra.get("settings") or {}).get("network", {})
    given: dict[str, Any] = dict(zip(_OWN, (variant, image_size, rel_pos, boxes), strict=True))
    for key in ("variant", "image_size", "rel_pos"):
        if given[key] is not None and own.get(key, given[key]) != given[key]:
            problem = "the weights were trained with another value"
            hint = f"leave --{key} away to take it from {weights}"
            raise ConfigError(problem, where=key, got=given[key], expected=own[key], hint=hint)
    chosen = {k: given[k] if given[k] is not None else own.get(k) for k in _OWN}
    network = sam3d_network(
        chosen["variant"] or "vit_b_ori", image_size=chosen["image_size"], rel_pos=chosen["rel_pos"],
        boxes=bool(chosen["boxes"]), weights=weights, seed=seed, checkpointing=checkpointing,
    )  # fmt: skip
    released = "intended" if weights is None else "released"
    settings = {
        "variant": chosen["variant"] or "vit_b_ori",
        "image_size": network.image_size,
        "rel_pos": chosen["rel_pos"] or released,
        "boxes": network.boxes,
    }
    return General(network, settings)


def read_decoders(
    experts: str | Sequence[str | Path] | Mapping[str, str | Path],
    general: Sam3D,
    *,
    dataset_dir: DatasetDir | None = None,
    ignore_card: bool = False,
) -> dict[str, DecoderExpert]:
    """The experts of a mixture.

    Args:
        experts: files ``model.pt`` or folders of runs of ``sam_med3d_moe_expert``, as a list, a text with commas
            between them, or by name. Any fine-tuned SAM-Med3D will do whose encoders are the general model's.
        general: what they were fine-tuned from.
        dataset_dir: what is learned from, which must be what each was taught on.
        ignore_card: warn of it only.

    Returns:
        by name: the given one, the one that the file's card tells, or the folder's.

    Raises:
        ExpertError: for no experts, two of one name, a file that is not there, or one with other encoders.
        DataError: for one that was taught on something else.
        WeightError: when a decoder does not fit.
    """
    if isinstance(experts, str):
        whole = is_there(experts)
        experts = [experts] if whole else [part.strip() for part in experts.split(",") if part.strip()]
    named: list[tuple[str | None, Path]] = (
        [(k, Path(v)) for k, v in experts.items()]
        if isinstance(experts, Mapping)
        else [(None, Path(p)) for p in experts]
    )
    if not named:
        raise ExpertError(
            "a mixture needs experts", where="experts", got="none", expected="runs of bundles/sam_med3d_moe_expert"
        )
    frozen = {k: v for k, v in general.state_dict().items() if not k.startswith(DECODER)}
    found: dict[str, DecoderExpert] = {}
    for name, path in named:
        expert = _read(name, path, general, frozen)
        check_start(expert.card, str(path), dataset_dir, structures=expert.structures, ignore_card=ignore_card)
        if expert.name in found:
            hint = "name them: --experts \"{'a': 'a/model.pt', 'b': 'b/model.pt'}\""
            raise ExpertError("two experts have one name", where=path, got=expert.name, hint=hint)
        found[expert.name] = expert
    return found


def _read(name: str | None, path: Path, general: Sam3D, frozen: Mapping[str, Tensor]) -> DecoderExpert:
    check_path(path, what="expert", error=ExpertError)
    file = path / "model.pt" if path.is_dir() else path
    if not file.is_file():
        got = "no such file" if not path.exists() else "no model.pt"
        expected = "a run of bundles/sam_med3d_moe_expert, or its model.pt"
        raise ExpertError("here is no expert", where=path, got=got, expected=expected)
    state, card = read_state_dict(file)
    state = {k.removeprefix("module."): v for k, v in state.items()}
    other = [k for k, v in frozen.items() if k in state and not _same(state[k], v)]
    if other:
        raise ExpertError(
            "the expert was fine-tuned from another general model, or its encoders were trained too", where=file,
            got=f"{len(other)} other tensors, such as {other[0]}", expected="the general model's encoders, bit for bit",
            hint="train it with --general naming this general model, and without --train_what all",
        )  # fmt: skip
    decoder = copy.deepcopy(general.mask_decoder)
    own = {k.removeprefix(DECODER): v for k, v in state.items() if k.startswith(DECODER)}
    load_weights(decoder, own, where=str(file))
    settings: Mapping[str, Any] = {} if card is None else card.extra.get("settings") or {}
    if not any(k in state for k in frozen):
        logger.warning("%s holds a decoder alone: that it was fine-tuned from this general model is not checked", file)
    name = name or str(settings.get("name") or (file.parent.name if file.name == "model.pt" else file.stem))
    structures = tuple(settings.get("structures") or (name,))  # without a card its name tells what it knows
    return DecoderExpert(name, structures, decoder, digest(sorted(own.items())), settings.get("spacing"), card)


def mixture(
    general: General, experts: Mapping[str, DecoderExpert], *, heads: int = 8, hidden: int | None = None,
    prompt_pool: str = "tokens", general_logit: bool = True, seed: int | None = 0, **options: Any,
) -> SAMMed3DMoE:  # fmt: skip
    """The mixture before its gate is trained.

    Args:
        general: from :func:`general_model`.
        experts: from :func:`read_decoders`.
        heads: of the gate's attention.
        hidden: width of the gate's MLP; None takes the mask decoder's.
        prompt_pool: see :class:`~common.layers.gating.prompt_gate.PromptGate`.
        general_logit: see there.
        seed: of the gate's weights.
        options: ``tau``, ``fusion``, ``train``, ``cache_gb`` of
            :class:`~common.methods.sam_med3d_moe.network.SAMMed3DMoE`.
    """
    base = general.network
    if hidden is None:
        first: Any = base.mask_decoder.transformer.layers[0]
        hidden = int(first.mlp.lin1.out_features)
    decoders = {name: e.decoder for name, e in experts.items()}
    shape = {"heads": heads, "hidden": hidden, "prompt_pool": prompt_pool, "general_logit": general_logit}
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return _mixture(base, decoders, {**general.settings, **shape}, options)


def trained_mixture(settings: Mapping[str, Any], **options: Any) -> SAMMed3DMoE:
    """The mixture of a trained model, without its weights.

    Args:
        settings: ``network`` of the model's card.
        options: see :func:`mixture`; ``tau`` and ``fusion`` are the card's when not given.

    Raises:
        ConfigError: when the card lacks something.
    """
    missing = sorted({*_OWN, *_MIXTURE} - set(settings))
    if missing:
        raise ConfigError("the model's card lacks settings of a SAM-Med3D-MoE", where="network", got=missing)
    base = sam3d_network(
        settings["variant"], image_size=settings["image_size"], rel_pos=settings["rel_pos"], boxes=settings["boxes"]
    )
    decoders = {name: copy.deepcopy(base.mask_decoder) for name in settings["experts"]}
    return _mixture(base, decoders, settings, {**{key: settings[key] for key in ("tau", "fusion")}, **options})


def _mixture(
    base: Sam3D, decoders: Mapping[str, MaskDecoder3D], settings: Mapping[str, Any], options: Mapping[str, Any]
) -> SAMMed3DMoE:
    gate = PromptGate(
        channels=base.prompt_encoder.channels, experts=len(decoders), heads=settings["heads"],
        hidden=settings["hidden"], pool=settings["prompt_pool"], general=settings["general_logit"],
    )  # fmt: skip
    network = SAMMed3DMoE(base=base, experts=decoders, gate=gate, settings=settings, **options)
    network.settings |= {"experts": list(network.names), "tau": network.tau, "fusion": network.fusion}
    return network


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a.to(b.dtype).cpu(), b.cpu()))
