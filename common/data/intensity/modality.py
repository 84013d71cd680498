"""nnU-Net's intensity normalisation, chosen by modality: fixed bounds for CT, z-scores for everything else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from nnunetv2.preprocessing.normalization import default_normalization_schemes as schemes
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme
from numpy.typing import NDArray

from ...errors import ConfigError, DataError
from ...modalities import is_ct
from ..datasets.datalist import Collection, items, read_collection
from ..datasets.dataset_json import case_name
from ..io import read_volume
from ..store.facts import remembered
from ..store.place import Store

__all__ = ["ByModalityd", "NormalizeModalityd", "intensities", "scheme_of", "window_of"]

logger = logging.getLogger(__name__)

PLANAR = 2
_VOXELS_PER_CASE = 100_000
_SCHEMES = {
    scheme.__name__: scheme
    for scheme in (
        schemes.ZScoreNormalization,
        schemes.CTNormalization,
        schemes.NoNormalization,
        schemes.RescaleTo01Normalization,
        schemes.RGBTo01Normalization,
    )
}


def intensities(
    dataset_dir: str | Path | Sequence[str | Path] | Collection,
    seed: int = 0,
    ct_window: Sequence[float] | None = None,
    store: Store | None = None,
) -> dict[str, dict[str, Any]]:
    """How each modality of a collection is normalised: plain values, to be kept with the weights.

    A modality that is called CT (as in nnU-Net; in 3-D also CTA, NCCT and other synonyms) gets ``CTNormalization`` with
    mean, standard deviation, 0.5 and 99.5 percentile of the annotated voxels of its training cases, of which at most
    100 000 per case are drawn; each other one nnU-Net's scheme of its name, else ``ZScoreNormalization`` per volume.

    Args:
        dataset_dir: anything that ``read_collection`` reads.
        seed: of the draw.
        ct_window: lower and upper bound (HU) of every CT in the place of statistics, for which there need not be any
            label; its mean is taken as the centre, its standard deviation as a quarter of its width.
        store: where the statistics of these files are remembered; every file is read at every start without it.

    Returns:
        ``{modality: {"scheme": class name, "mean": ..., "std": ..., "percentile_00_5": ..., "percentile_99_5": ...}}``.

    Raises:
        ConfigError: for a window without width.
        DataError: when the training cases of a CT have no annotated voxel, unless there is a window.
    """
    collection = read_collection(dataset_dir)
    found: dict[str, dict[str, Any]] = {}
    for modality in collection.modalities:
        scheme = scheme_of(modality, dim=collection.datasets[0].dim)
        found[modality] = {"scheme": scheme.__name__}
        if scheme is schemes.CTNormalization:
            given = None if ct_window is None else window_of(ct_window)
            found[modality] |= given or _remembered(collection, modality, seed, store)
    return found


def scheme_of(modality: str, *, dim: int = 3) -> Any:
    """nnU-Net's class of normalisation for a modality; volumes whose name means CT are CT, pictures have no HU.

    Args:
        modality: its name.
        dim: 2 for pictures, 3 for volumes.
    """
    scheme = get_normalization_scheme(modality)
    return schemes.CTNormalization if dim != PLANAR and is_ct(modality) else scheme


def window_of(bounds: Sequence[float]) -> dict[str, float]:
    """A CT's scheme between two bounds (HU).

    Raises:
        ConfigError: for a window without width.
    """
    if len(bounds) != 2 or not bounds[0] < bounds[1]:
        problem = "a window has a lower and an upper bound"
        raise ConfigError(problem, where="ct_window", got=list(bounds), expected="for example [-125, 275]")
    low, high = (float(b) for b in bounds)
    return {"mean": (low + high) / 2, "std": (high - low) / 4, "percentile_00_5": low, "percentile_99_5": high}


def _remembered(collection: Collection, modality: str, seed: int, store: Store | None) -> dict[str, float]:
    question = {"asked": "intensities of annotated voxels", "seed": seed, "voxels": _VOXELS_PER_CASE, "format": 1}
    cases = [i for i in items(collection, "training", modality=modality) if "label" in i]
    return remembered(store, question, cases, partial(_foreground, collection, modality, seed))


def _foreground(collection: Collection, modality: str, seed: int) -> dict[str, float]:
    random, drawn = np.random.default_rng(seed), []
    for dataset in collection.datasets:
        for case in dataset.cases("training"):
            if dataset.modality_of(case) != modality or case.label is None:
                continue
            image = read_volume(case.images, dim=dataset.dim, channels=dataset.channels).numpy()
            values = image[:, read_volume(case.label, dim=dataset.dim).numpy()[0] > 0].ravel()
            drawn.append(
                random.choice(values, _VOXELS_PER_CASE, replace=False) if values.size > _VOXELS_PER_CASE else values
            )
    values = np.concatenate(drawn) if drawn else np.empty(0)
    if not values.size:
        place = f"{collection.root}, {modality}"
        problem = "no annotated voxel to learn the intensities of a CT from"
        got = f"{len(drawn)} training cases"
        hint = "or choose bounds, for example --ct_window [-125,275]"
        raise DataError(problem, where=place, got=got, expected="label maps with structures", hint=hint)
    low, high = np.percentile(values, (0.5, 99.5))
    result = {"mean": values.mean(dtype=np.float64), "std": values.std(dtype=np.float64)}
    result = {k: float(v) for k, v in {**result, "percentile_00_5": low, "percentile_99_5": high}.items()}
    logger.info("intensities of %s from %d cases: %s", modality, len(drawn), result)
    return result


class ByModalityd(MapTransform):
    """Change each case's intensities in the way of its modality.

    Args:
        keys: images ``[C, X, Y, Z]`` with native intensities.
        schemes: from :func:`intensities`.
        change: ``(channel [X, Y, Z] float32, scheme) -> channel``.
        default: modality of cases without one; None refuses them.

    Raises:
        ConfigError: for a default without a scheme.
        DataError: for a modality without a scheme, or a voxel that is NaN or infinite.
    """

    def __init__(
        self,
        keys: KeysCollection,
        schemes: Mapping[str, Mapping[str, Any]],
        change: Callable[[NDArray[np.float32], Mapping[str, Any]], NDArray[np.float32]],
        default: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.schemes, self.change, self.default = {k: dict(v) for k, v in schemes.items()}, change, default
        if default is not None and default not in self.schemes:
            problem = "there is no normalisation for this modality"
            expected = ", ".join(self.schemes) or "a trained model's card"
            raise ConfigError(problem, where="modality", got=default, expected=expected)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with changed float32 images, and the modality that was taken."""
        result = dict(data)
        modality = data.get("modality") or self.default
        if modality not in self.schemes:
            problem = "there is no normalisation for the case's modality"
            raise DataError(problem, where=f"case {case_name(data)}", got=modality, expected=", ".join(self.schemes))
        result["modality"] = modality
        scheme = self.schemes[str(modality)]
        for key in self.key_iterator(result):
            image = result[key]
            plain = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
            array: NDArray[np.float32] = plain.cpu().numpy().astype(np.float32)
            if not np.isfinite(array).all():
                where = f"case {case_name(data)}"
                raise DataError("the image holds NaN or infinite voxels", where=where, expected="finite intensities")
            try:
                normal = torch.from_numpy(np.stack([self.change(c, scheme) for c in array])).to(plain.device)
            except DataError as error:
                raise DataError(error.problem, where=f"case {case_name(data)}", got=error.got, expected=error.expected,
                                hint=error.hint) from error  # fmt: skip
            result[key] = MetaTensor(normal).copy_meta_from(image) if isinstance(image, MetaTensor) else normal
        return result


class NormalizeModalityd(ByModalityd):
    """Normalise each case by its modality's scheme, as nnU-Net does.

    Args:
        keys: images ``[C, X, Y, Z]`` with native intensities.
        schemes: from :func:`intensities`.
        default: modality of cases without one; None refuses them.

    Raises:
        ConfigError: for a default without a scheme.
        DataError: for a modality without a scheme, or a voxel that is NaN or infinite.
    """

    def __init__(
        self,
        keys: KeysCollection,
        schemes: Mapping[str, Mapping[str, Any]],
        default: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, schemes, _normalised, default, allow_missing_keys)


def _normalised(channel: NDArray[np.float32], scheme: Mapping[str, Any]) -> NDArray[np.float32]:
    name = str(scheme.get("scheme"))
    if name not in _SCHEMES:  # a card's settings are data: no other name of that module is ever called
        raise ConfigError("unknown normalisation", got=ascii(name), expected=", ".join(_SCHEMES))
    normalisation = _SCHEMES[name](use_mask_for_norm=False, intensityproperties=scheme)
    normal: NDArray[np.float32] = normalisation.run(channel.copy())
    return normal
