"""Single objects of labelled volumes: a crop around each annotated structure, to train promptable networks on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, MapTransform
from torch import Tensor
from torch.utils.data import Dataset

from ...errors import ConfigError, DataError
from ...labels import LabelSpace
from ...modalities import is_ct
from ...prompts import boxes_from_label
from ..datasets.dataset_json import case_name
from ..store.cases import StoredCases, prepared
from ..store.entry import box_of
from ..store.layout import Reading
from ..store.place import Store
from .crops import z_score_positive
from .places import StructurePlacesd

__all__ = ["ClampModalityd", "ObjectCrops", "clip_bounds"]

logger = logging.getLogger(__name__)


class ClampModalityd(MapTransform):
    """Clip the intensities of some modalities, and leave the others as they are.

    Args:
        keys: images of any shape.
        bounds: lowest and highest intensity by modality, such as ``{"CT": [-1000, 1000]}``, which holds for its
            synonyms (``CTA``), too, unless the network was trained on a modality of that name.
        default: modality of cases that name none.
        modalities: those that a network was trained on. A case that names none is then of the only one, and refused
            where there are several of which some are clipped.

    Raises:
        ConfigError: for bounds that are no pair in order.
        DataError: when it matters which modality a case is of, and nobody says it.
    """

    def __init__(
        self,
        keys: KeysCollection,
        bounds: Mapping[str, Sequence[float]],
        default: str | None = None,
        modalities: Sequence[str] = (),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.modalities = tuple(modalities)
        if default is None and len(self.modalities) == 1:
            default = self.modalities[0]
        for name, pair in bounds.items():
            if len(pair) != 2 or not pair[0] < pair[1]:
                raise ConfigError("clipping needs a lower and an upper bound", where=name, got=list(pair))
        self.bounds, self.default = {k: (float(v[0]), float(v[1])) for k, v in bounds.items()}, default

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with clipped images."""
        result = dict(data)
        modality = data.get("modality") or self.default
        if modality is None and any(map(self._bounds_of, self.modalities)):
            where = f"case {case_name(data)}"
            expected = ", ".join(self.modalities)
            raise DataError("nobody says which modality this is", where=where, expected=expected, hint="add --modality")
        pair = self._bounds_of(str(modality))
        for key in self.key_iterator(result):
            result[key] = result[key] if pair is None else result[key].clamp(*pair)
        return result

    def _bounds_of(self, modality: str) -> tuple[float, float] | None:
        """Those of a modality that the network was trained on are by its name alone, as the training had them."""
        if modality in self.bounds or modality in self.modalities:
            return self.bounds.get(modality)
        return self.bounds.get("CT") if is_ct(modality) else None


def clip_bounds(bounds: Mapping[str, Sequence[float]], modalities: Sequence[str]) -> dict[str, list[float]]:
    """The bounds of :class:`ClampModalityd` with an entry for each modality of a training that means CT.

    Args:
        bounds: lowest and highest intensity by modality.
        modalities: those that are trained on.
    """
    found = {name: [float(v) for v in pair] for name, pair in bounds.items()}
    named = {m: found["CT"] for m in modalities if "CT" in found and m not in found and is_ct(m)}
    return {**found, **named}


class _Object(NamedTuple):
    volume: int
    structure: int
    start: tuple[int, int, int]


class ObjectCrops(Dataset[dict[str, Any]]):
    """Every annotated structure of every volume as an item of its own.

    An item has ``image`` ``[1, S, S, S]`` (z-scored over its voxels > 0, zero outside the volume), ``label``
    ``[1, S, S, S]`` (1 inside), ``box`` ``[2, 3]`` voxels of the crop, ``structure`` (index), ``name``, ``case``,
    ``task`` and ``expert``: the number of the expert that knows the structure, 0 for none.

    Args:
        data: dictionaries of files, as :func:`~common.data.datasets.datalist.items` lists them.
        preprocessing: of whole volumes, to the network's spacing and orientation, without random parts.
        size: voxels along each side of a crop, S.
        labels: the label maps' structures.
        structures: only these; all when None.
        exclude: all but these.
        min_voxels: smaller objects are left out.
        experts: structures of each expert.
        transform: random parts on ``image`` and ``label``, before the z-score.
        store: where prepared volumes lie; None keeps them in memory.
        allow_empty: take no data at all for what it is, a validation on nothing.

    Raises:
        ConfigError: for structures that the labels do not have, or that belong to two experts.
        DataError: when no object is left, or an image has several channels.

    Reference:
        Wang et al., SAM-Med3D, 2023, public code: crops centred on the object, one binary task per class.
    """

    def __init__(
        self,
        data: Sequence[Mapping[Hashable, Any]],
        preprocessing: Callable[..., Any],
        *,
        size: int,
        labels: LabelSpace,
        structures: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        min_voxels: int = 500,
        experts: Sequence[Sequence[str]] = (),
        transform: Callable[[dict[str, Any]], Any] | None = None,
        store: Store | None = None,
        allow_empty: bool = False,
    ) -> None:
        self.size, self.labels, self.transform = size, labels, transform
        wanted = self._wanted(structures, exclude)
        self.expert_of = self._experts(experts)
        self.data = list(data)
        chain = Compose([preprocessing, StructurePlacesd(size)])
        self.volumes = prepared(self.data, chain, store, Reading.crops(size))
        self.stored = isinstance(self.volumes, StoredCases)
        self.index: list[_Object] = []
        for i in range(len(self.data)):
            self.index += self._objects(i, wanted, min_voxels)
        if not self.index and (self.data or not allow_empty):
            raise DataError("there is no object to train on", where="structures", got=f"{len(self.data)} volumes",
                            expected=f"one of {', '.join(labels.names[k - 1] for k in wanted)} with at least "
                                     f"{min_voxels} voxels at the network's spacing",
                            hint="lower --min_voxels, or choose other structures")  # fmt: skip

    @property
    def names(self) -> list[str]:
        """The structure of each object."""
        return [self.labels.names[o.structure - 1] for o in self.index]

    @property
    def weights(self) -> Tensor:
        """One over the number of objects of the same structure ``[N]``: drawn by these, structures are balanced."""
        count = Counter(self.names)
        return torch.tensor([1.0 / count[name] for name in self.names], dtype=torch.float64)

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.index)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The object's crop."""
        found = self.index[position]
        cut = partial(self._cut, start=found.start)
        case, image, label = self.volumes.read(found.volume, cut) if self.stored else cut(self.volumes[found.volume])
        item: dict[str, Any] = {"image": image.float(), "label": (label == found.structure).float()}
        item = item if self.transform is None else self.transform(item)  # a Compose asked for its length seeds itself
        image, mask = _plain(item["image"]), _plain(item["label"])
        return {
            "image": z_score_positive(image),
            "label": mask,
            "box": boxes_from_label(mask, 1)[0],
            "structure": found.structure,
            "name": self.labels.names[found.structure - 1],
            "case": case_name(case),
            "task": str(case.get("task", "")),
            "expert": self.expert_of.get(found.structure, 0),
        }

    def item_of(self, position: int) -> Mapping[Hashable, Any]:
        """An object's own entries: paths, task, modality of its case."""
        return self.data[self.index[position].volume]

    def _cut(
        self, volume: Mapping[Hashable, Any], start: Sequence[int]
    ) -> tuple[Mapping[Hashable, Any], Tensor, Tensor]:
        end = [s + self.size for s in start]
        return volume, box_of(volume["image"], start, end), box_of(volume["label"], start, end)

    def _objects(self, i: int, wanted: Sequence[int], least: int) -> list[_Object]:
        volume = self.volumes[i]
        if len(volume["image"]) != 1:
            got = f"{len(volume['image'])} channels"
            hint = "make a data set of one of them"
            raise DataError("a promptable network reads one channel", where=case_name(volume), got=got, hint=hint)
        there = volume["places"]
        return [_Object(i, k, tuple(there[k][1:])) for k in wanted if k in there and there[k][0] >= max(1, least)]

    def _wanted(self, structures: Sequence[str] | None, exclude: Sequence[str]) -> list[int]:
        chosen = self.labels.names if structures is None else tuple(structures)
        unknown = sorted({*chosen, *exclude} - set(self.labels.names))
        if unknown:
            got = ", ".join(unknown)
            expected = ", ".join(self.labels.names)
            raise ConfigError("the data have no such structures", where="structures", got=got, expected=expected)
        return [int(k) for k in self.labels.indices([n for n in chosen if n not in exclude])]

    def _experts(self, experts: Sequence[Sequence[str]]) -> dict[int, int]:
        found: dict[int, int] = {}
        for number, own in enumerate(experts, start=1):
            if not set(own) & set(self.labels.names):
                logger.warning("expert %d knows %s, which these data lack: the gate does not learn to ask it",
                               number, ", ".join(own) or "nothing")  # fmt: skip
            for name in own:
                if name in self.labels.names:
                    index = int(self.labels.indices([name])[0])
                    if index in found:
                        hint = "the gate needs to know whose it is"
                        raise ConfigError("a structure has two experts", where="experts", got=name, hint=hint)
                    found[index] = number
        return found


def _plain(image: Any) -> Tensor:
    return image.as_tensor() if isinstance(image, MetaTensor) else torch.as_tensor(image)
