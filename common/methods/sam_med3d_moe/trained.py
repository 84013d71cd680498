"""A mixture with what its card says of its experts: put together from files, read back, and made ready to go on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...bundle_words import shown_knob
from ...card import ModelCard
from ...data.starts import check_start
from ...errors import ConfigError, WeightError
from ...weights import load_weights, read_state_dict
from .network import SAMMed3DMoE
from .start import DatasetDir, general_model, mixture, read_decoders, trained_mixture

__all__ = ["Mixture", "TrainedMixture", "read_mixture", "start_mixture"]

logger = logging.getLogger(__name__)

BUNDLE = "sam_med3d_moe"
_CARD = ("network", "expert_structures", "expert_hashes")
_GATE = ("heads", "hidden", "prompt_pool", "general_logit")


class Mixture(NamedTuple):
    """A mixture and what is known of its experts, in their order.

    Args:
        network: the mixture.
        structures: what each expert was tuned for.
        hashes: sha256 of each expert's tensors as they were before this training.
    """

    network: SAMMed3DMoE
    structures: list[tuple[str, ...]]
    hashes: list[str]


class TrainedMixture(NamedTuple):
    """A mixture from a file, and the file's card."""

    mixture: Mixture
    card: ModelCard


def read_mixture(path: str | Path, **options: Any) -> TrainedMixture:
    """A trained mixture with its weights.

    Args:
        path: ``model.pt`` that the bundle ``sam_med3d_moe`` wrote.
        options: ``tau``, ``fusion``, ``train``, ``cache_gb`` of
            :class:`~common.methods.sam_med3d_moe.network.SAMMed3DMoE`; the first two as they were trained
            when not given.

    Raises:
        WeightError: for a file of something else, or one that does not fit its own card.
    """
    tensors, card = read_state_dict(path)
    settings = None if card is None else card.extra.get("settings")
    if card is None or card.bundle != BUNDLE or not isinstance(settings, Mapping):
        got = "no card" if card is None else f"a card of {card.bundle or 'an unknown bundle'}"
        expected = f"a model.pt that the bundle {BUNDLE} wrote"
        raise WeightError("these are no weights of a trained SAM-Med3D-MoE", where=path, got=got, expected=expected)
    missing = [key for key in _CARD if key not in settings]
    if missing:
        raise WeightError("the weights' card lacks settings", where=path, got=sorted(settings), expected=missing)
    network = trained_mixture(settings["network"], **options)
    load_weights(network, tensors, where=path)
    structures = [tuple(own) for own in settings["expert_structures"]]
    return TrainedMixture(Mixture(network, structures, list(settings["expert_hashes"])), card)


def start_mixture(
    *, general: str | Path | None = None, experts: str | Sequence[str | Path] | Mapping[str, str | Path] | None = None,
    start_from: str | Path | None = None, spacing: float | None = None, heads: int = 8, hidden: int | None = None,
    prompt_pool: str = "tokens", general_logit: bool = True, seed: int | None = 0,
    dataset_dir: DatasetDir | None = None, ignore_card: bool = False, **options: Any,
) -> Mixture:  # fmt: skip
    """The mixture that a training begins with: a new gate over files of decoders, or a trained mixture's own gate.

    Args:
        general: see :func:`~common.methods.sam_med3d_moe.start.general_model`.
        experts: see :func:`~common.methods.sam_med3d_moe.start.read_decoders`.
        start_from: a trained mixture in the place of both. Experts whose score was never trained get one to learn from.
        spacing: mm of this training's crops; experts of another one are named in a warning.
        heads: of a new gate's attention.
        hidden: width of a new gate's MLP; None takes the mask decoder's, or the trained gate's.
        prompt_pool: see :class:`~common.layers.gating.prompt_gate.PromptGate`.
        general_logit: see there.
        seed: of new weights.
        dataset_dir: what is learned from, which must be what all parts were taught on.
        ignore_card: warn of it only.
        options: ``tau``, ``fusion``, ``train``, ``cache_gb`` of
            :class:`~common.methods.sam_med3d_moe.network.SAMMed3DMoE`.

    Raises:
        ConfigError: for a trained mixture beside other parts, or one with another gate or spacing.
        ExpertError: see :func:`~common.methods.sam_med3d_moe.start.read_decoders`.
        DataError: for parts that were taught on something else.
        WeightError: for files that do not fit.
    """
    shape: dict[str, Any] = {
        "heads": heads, "hidden": hidden, "prompt_pool": prompt_pool, "general_logit": general_logit
    }  # fmt: skip
    if start_from is not None:
        if general is not None or experts is not None:
            problem = "a trained mixture brings its own parts"
            expected = "it alone, or --general with --experts"
            hint = "python -m tools experts add_decoder appends an expert to it"
            raise ConfigError(problem, where="start_from", got=start_from, expected=expected, hint=hint)
        trained = read_mixture(start_from, **options)
        check_start(trained.card, str(start_from), dataset_dir, ignore_card=ignore_card)
        return _continued(trained, start_from, shape, spacing, seed)
    data: dict[str, Any] = {"dataset_dir": dataset_dir, "ignore_card": ignore_card}
    base = general_model(general, **data)
    found = read_decoders(() if experts is None else experts, base.network, **data)
    for name, expert in found.items():
        if None not in (spacing, expert.spacing) and expert.spacing != spacing:
            logger.warning(
                "expert %s was tuned on crops of %g mm, this training has %g mm", name, expert.spacing, spacing
            )
    network = mixture(base, found, **shape, seed=seed, **options)
    return Mixture(network, [e.structures for e in found.values()], [e.sha256 for e in found.values()])


def _continued(
    trained: TrainedMixture, path: str | Path, shape: Mapping[str, Any], spacing: float | None, seed: int | None
) -> Mixture:
    found, card = trained
    settings = card.extra["settings"]
    own = {**{k: settings["network"][k] for k in _GATE}, "spacing": settings.get("spacing", spacing)}
    for key, value in {**shape, "spacing": spacing}.items():
        if value is not None and value != own[key]:
            problem = "the mixture was trained with another value"
            hint = f"{shown_knob(key, own[key])} goes on as {path} was trained"
            raise ConfigError(problem, where=key, got=value, expected=own[key], hint=hint)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        woken = found.network.gate.wake()
    names = [found.network.names[i] for i in woken]
    if names:
        logger.info("%s: the gate begins to learn when to ask %s", path, ", ".join(names))
    return found
