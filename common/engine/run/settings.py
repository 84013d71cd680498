"""What inference must know about a trained model, written by training and read back from the weights file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import ignite.distributed as idist

from ...card import ModelCard
from ...data.survey import doubted, survey
from ...errors import WeightError
from ...labels import LabelSpace
from ...paths import check_path
from ...weights import read_state_dict
from .settings_form import checked_settings

__all__ = ["model_card", "model_settings"]

_OF_THE_CARD = {"structures", "channels", "exclusive"}


def model_card(
    bundle: str,
    labels: LabelSpace,
    channels: Sequence[str],
    settings: Mapping[str, Any],
    version: str = "0.1.0",
    *,
    dataset_dir: str | Path | Sequence[str | Path] | None = None,
    output_dir: str | Path | None = None,
    splits: Sequence[str] = ("training",),
    modality: str | None = None,
    taught: bool | Mapping[str, Sequence[str]] = True,
    structures: Sequence[str] | None = None,
    contract: Mapping[str, Any] | None = None,
    ignore_card: bool = False,
) -> ModelCard:
    """The card of a model whose inference configuration depends on how it was trained, and on what.

    Args:
        bundle: name of the bundle.
        labels: structures that the network predicts.
        channels: input channel names.
        settings: plain values that inference needs: network arguments, spacing (mm), window size (voxels) and so on.
        version: the bundle's version.
        dataset_dir: the data that the model learns from, for the card's contract
            (:func:`~common.data.survey.survey`).
        output_dir: the run's folder, where what was found in the data is kept.
        splits: what is learned from.
        modality: the only modality that is learned from.
        taught: whether label maps are learned from; or the structures that are learned, by modality, where not label
            maps alone teach them.
        structures: those that are learned, where it is not all.
        contract: one that is there already, in the place of ``dataset_dir``.
        ignore_card: learn from data whose names contradict each other; the card says so.

    Raises:
        DataError: for tasks with the same channels in other orders, channels of another kind than their modality, or
            names of structures that nobody gave.
    """
    extra: dict[str, Any] = {"settings": _plain(settings)}
    if contract:
        extra["contract"] = _plain({**({"ignored": []} if ignore_card else {}), **contract})
    elif dataset_dir is not None and idist.get_rank() == 0:  # the first process alone writes weights
        extra["contract"] = survey(
            dataset_dir, splits=splits, modality=modality, taught=taught, structures=structures, folder=output_dir,
            ignore_card=ignore_card,
        )  # fmt: skip
    elif dataset_dir is not None:  # all processes stop alike
        doubted(dataset_dir, ignore=ignore_card)
    listed = cast("tuple[str, ...]", channels)  # the card itself refuses text, and makes a tuple of a list
    return ModelCard(labels, listed, bundle, version, extra=extra)


def model_settings(path: str | Path, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a trained model, or the defaults while there is no weights file yet.

    The result has ``labels`` (a :class:`LabelSpace`) and ``channels`` besides the entries of ``defaults``, so that an
    ``inference.json`` needs no editing after a training on another collection.

    Args:
        path: weights file with a card.
        defaults: ``structures`` (names), ``channels``, ``exclusive`` and whatever the configuration reads.

    Raises:
        WeightError: when the file has no card, one of another kind of model, or a damaged one.
    """
    result = dict(defaults)
    result["labels"] = LabelSpace.of(result.pop("structures"), exclusive=result.get("exclusive", True), where=path)
    path = check_path(path, what="weights file", error=WeightError)
    if not path.is_file():
        return result
    card = read_state_dict(path)[1]
    stored = None if card is None else card.extra.get("settings")
    if card is None or not isinstance(stored, Mapping):
        raise WeightError(
            "the weights do not say how they were trained",
            where=path,
            got="no card" if card is None else f"a card of {card.bundle or 'an unknown bundle'} without settings",
            expected="weights written by this collection's training",
            hint="for other weights pass the settings as overrides and name another --model_path",
        )
    missing = sorted(set(defaults) - set(stored) - _OF_THE_CARD)
    if missing:
        raise WeightError("the weights' card lacks settings", where=path, got=sorted(stored), expected=missing)
    own = checked_settings(stored, {k: v for k, v in defaults.items() if k not in _OF_THE_CARD}, path)
    exclusive = card.labels.exclusive
    return {**result, **own, "labels": card.labels, "channels": list(card.channels), "exclusive": exclusive}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
