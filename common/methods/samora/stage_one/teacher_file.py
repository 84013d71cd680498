"""Which teacher an expert has: its sizes, where it comes from, and whether that is what was asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....data.starts import check_start
from ....errors import ConfigError, WeightError
from ....integrity import file_hash
from ....weights import read_card

__all__ = ["teacher_of"]

logger = logging.getLogger(__name__)

_TRAIN = "python -m monai.bundle run --config_file \"['bundles/samora_expert/configs/train.json','{}']\""
_PUBLIC = {"image": "r50_2x_sk1.pth (SimCLRv2)", "patch": "mae_pretrain_vit_large.pth (MAE)"}


def teacher_of(
    level: str,
    ssl: str,
    weights: str | Path | None = None,
    sizes: Mapping[str, Any] | None = None,
    size: int = 224,
    *,
    dataset_dir: str | Path | Sequence[str | Path] | None = None,
    modality: str | None = None,
    ignore_card: bool = False,
) -> dict[str, Any]:
    """Describe the teacher of a run, for its card and for building it.

    A file that this bundle wrote says its own sizes, and it is what ``ts_cpt`` means: a teacher that was trained on.
    Any other file is taken for public weights, ``ts``.

    Args:
        level: of the run.
        ssl: ``scratch``, ``ts`` or ``ts_cpt``.
        weights: the teacher's file; for a teacher's own training where it starts from, None for random weights.
        sizes: of the network, for a file that does not say; empty for the paper's.
        size: pixels along a side of the images that the teacher sees, likewise.
        dataset_dir: what is learned from, which must be what the teacher was trained on.
        modality: the only modality of it that is learned from.
        ignore_card: warn of it only.

    Returns:
        ``{"sizes", "size", "hash", "file"}``, empty for a run without a teacher.

    Raises:
        ConfigError: when the weights are missing, or are not of the kind that ``ssl`` names.
        WeightError: for a teacher of another level.
        DataError: for a teacher that was trained on something else.
    """
    training = level.startswith("teacher_")
    if not training and (ssl == "scratch" or level not in _PUBLIC):
        return {}
    kind = level.removeprefix("teacher_")
    if weights is None and not training:
        raise ConfigError(
            "a teacher without weights would teach nothing", where="teacher_weights", got=None,
            expected=f"{_PUBLIC[kind]} for --ssl ts, or such a teacher trained on your images for --ssl ts_cpt",
            hint=f"train one: {_TRAIN.format(f'bundles/samora_expert/configs/teacher_{kind}.json')}; "
            "or learn without a teacher: --ssl scratch",
        )  # fmt: skip
    plain = {"sizes": dict(sizes or {}), "size": int(size)}
    if weights is None:
        logger.warning("the teacher starts from random weights: the method continues public ones, %s", _PUBLIC[kind])
        return {**plain, "hash": None, "file": None}
    card = read_card(weights)
    settings = {} if card is None else dict(card.extra.get("settings") or {})
    own = card is not None and card.bundle == "samora_expert"
    if own and settings.get("level") != f"teacher_{kind}":
        got = settings.get("level")
        expected = f"teacher_{kind}"
        raise WeightError("the file holds another part of the first stage", where=weights, got=got, expected=expected)
    if not training and own != (ssl == "ts_cpt"):
        raise ConfigError(
            "the teacher is not of the kind that was asked for",
            where=weights,
            got="trained on by this bundle" if own else "no teacher of this bundle",
            expected={"ts": "public weights", "ts_cpt": "a teacher trained by this bundle"}[ssl],
            hint=f"--ssl {'ts_cpt' if own else 'ts'}",
        )
    check_start(card, weights, dataset_dir, modalities=[modality] if modality else None, ignore_card=ignore_card)
    if own:
        plain = {k: settings["teacher"][k] for k in ("sizes", "size")}
    return {**plain, "hash": file_hash(weights), "file": Path(weights).name}
