"""Images to learn from without labels: a collection's, or whatever lies in a folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from torch import Tensor

from ...errors import ConfigError, DataError
from ...labels import LabelSpace
from ...paths import check_regular, is_there
from ..datasets.datalist import items, read_collection
from ..datasets.dataset_json import VOLUME_SUFFIXES, case_id
from ..datasets.described import told_and_described
from ..intensity.modality import intensities, scheme_of, window_of
from ..pictures import is_picture
from ..store.place import Store

__all__ = ["AsVolumed", "UnlabelledImages", "ViewsOfd", "is_collection", "unlabelled_images"]

logger = logging.getLogger(__name__)

_COLOURS = ("red", "green", "blue")


class UnlabelledImages(NamedTuple):
    """What there is to learn from.

    Args:
        items: ``{"image", "case", "task", "modality"}`` of each image.
        intensities: how each modality is normalised.
        channels: names.
        labels: of the collection, for the card; ``unlabelled`` for a plain folder.
        dim: 2 for pictures, 3 for volumes.
    """

    items: list[dict[str, Any]]
    intensities: dict[str, dict[str, Any]]
    channels: tuple[str, ...]
    labels: LabelSpace
    dim: int


def unlabelled_images(
    dataset_dir: str | Path | Sequence[str | Path],
    splits: Sequence[str] = ("training", "unlabelled"),
    modality: str | None = None,
    ct_window: Sequence[float] | None = None,
    store: Store | None = None,
) -> UnlabelledImages:
    """Find images and how they are normalised.

    Args:
        dataset_dir: anything that ``read_collection`` reads, or a folder with NIfTI, NRRD, MHA or PNG files anywhere
            below it, all of them of one modality.
        splits: of a collection; a plain folder has none.
        modality: of a collection: take only its cases; of a plain folder: what its images are (``CT``, ``T2 MR``).
        ct_window: lower and upper bound (HU); None takes nnU-Net's statistics of annotated voxels.
        store: where these statistics are remembered.

    Raises:
        DataError: when there are no images, or a plain folder whose modality is not given, or is none of what a
            ``dataset.json`` beside it says.
    """
    if not is_collection(dataset_dir):
        return _plain_folder(Path(str(dataset_dir)), modality, ct_window)
    collection = read_collection(dataset_dir)
    found = [item for split in splits for item in items(collection, split, modality=modality)]
    if not found:
        problem = "there are no images to learn from"
        raise DataError(problem, where=collection.root, got=f"splits {list(splits)}", expected="cases in one of them")
    plain = [{k: v for k, v in item.items() if k != "label"} for item in found]
    known = intensities(collection, ct_window=ct_window, store=store)
    used = {item["modality"]: known[item["modality"]] for item in plain if item["modality"] in known}
    return UnlabelledImages(plain, used, collection.channels, collection.labels, collection.datasets[0].dim)


def is_collection(dataset_dir: str | Path | Sequence[str | Path]) -> bool:
    """Whether ``read_collection`` reads this; else it is a plain folder of images."""
    if not isinstance(dataset_dir, (str, Path)):
        return True
    path = Path(dataset_dir)
    if not (is_there(path) and path.is_dir()):
        return True  # a list of folders, a file, or missing: read_collection says what is wrong
    return any((path / n).is_file() for n in ("dataset.json", "collection.json")) or any(path.glob("*/dataset.json"))


def _plain_folder(folder: Path, modality: str | None, ct_window: Sequence[float] | None) -> UnlabelledImages:
    files = sorted(p for p in folder.rglob("*") if not p.is_dir() and not p.name.startswith("."))
    files = [check_regular(p) for p in files if p.name.lower().endswith(tuple(VOLUME_SUFFIXES)) or is_picture(p)]
    volumes = [p for p in files if p.name.lower().endswith(tuple(VOLUME_SUFFIXES)) and not is_picture(p)]
    pictures = [p for p in files if is_picture(p)]
    if not volumes and not pictures:
        raise DataError("there are no images to learn from", where=folder, expected="NIfTI, NRRD, MHA or PNG files")
    if volumes and pictures:
        kinds = f"{len(volumes)} and {len(pictures)}"
        raise DataError(
            "the folder holds volumes and pictures", where=folder, got=kinds, hint="name a folder that holds one kind"
        )
    if modality is None:
        hint = "name their modality, for example --modality CT or --modality 'T2 MR'"
        raise DataError("a folder without dataset.json does not say what its images are", where=folder, hint=hint)
    scheme = {"scheme": scheme_of(modality, dim=3 if volumes else 2).__name__}
    if scheme["scheme"] == "CTNormalization":
        if ct_window is None:
            hint = "choose bounds in HU, for example --ct_window [-125,275]"
            raise DataError("without labels there are no statistics to normalise a CT by", where=folder, hint=hint)
        scheme |= window_of(ct_window)
    chosen = volumes or pictures
    told = {str(p): (p,) for p in chosen}
    for line in told_and_described((modality,), told, where=folder, option="modality", mixed=True).notes:
        logger.warning("%s: %s", folder, line)
    names = ["/".join((*p.relative_to(folder).parts[:-1], case_id(p))) for p in chosen]
    found = [{"image": str(p), "case": n, "task": folder.name, "modality": modality}
             for p, n in zip(chosen, names, strict=True)]  # fmt: skip
    channels = _channels(pictures[0]) if pictures else ("image",)
    return UnlabelledImages(found, {modality: scheme}, channels, LabelSpace(("unlabelled",)), 3 if volumes else 2)


def _channels(picture: Path) -> tuple[str, ...]:
    from PIL import Image

    with Image.open(picture) as image:
        return _COLOURS if len(image.getbands()) == 3 else ("image",)


class AsVolumed(Transform):
    """A picture ``[C, X, Y]`` becomes a volume of one slice; a volume stays as it is.

    Args:
        key: the image.
    """

    def __init__(self, key: str = "image") -> None:
        self.key = key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with ``[C, X, Y, Z]``."""
        image = data[self.key]
        if image.ndim == 4:
            return dict(data)
        plain = image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
        return {**data, self.key: plain[..., None]}


class ViewsOfd(Transform):
    """Several random views of an image, stacked: ``[C, X, Y] -> [V, C, X', Y']``.

    Args:
        transform: random, of one image.
        views: V >= 1.
        key: the image.
        keep: entries to keep beside it.

    Raises:
        ConfigError: for no view.
    """

    def __init__(
        self,
        transform: Callable[[Tensor], Tensor],
        views: int = 2,
        key: str = "image",
        keep: Sequence[str] = ("case", "task", "modality", "slice"),
    ) -> None:
        if views < 1:
            raise ConfigError("at least one view", where="views", got=views)
        self.transform, self.views, self.key, self.keep = transform, views, key, tuple(keep)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the views and the entries that are kept."""
        image = torch.as_tensor(data[self.key])
        views = torch.stack([torch.as_tensor(self.transform(image)) for _ in range(self.views)])
        return {self.key: views, **{k: data[k] for k in self.keep if k in data}}
