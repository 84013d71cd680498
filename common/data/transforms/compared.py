"""A case that was read is compared with the model's card, whoever listed it; what was compared before is not again."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import Transform
from numpy.typing import NDArray

from ...contract import Contract
from ...errors import DataError
from ...geometry import Grid
from ...intensity_range import Range, range_of
from ...scan_fit import COMPARED, OVERRIDDEN, Said, as_recorded, judged, mark_of
from ..datasets.dataset_json import case_name
from ..remarks import remarks
from .loading import BETWEEN_TAGS, TAGS

__all__ = ["CompareReadd"]

logger = logging.getLogger(__name__)

# where a loader that is not ours keeps DICOM's Modality
_ELSEWHERE = ("0008|0060", "Modality", "modality")
_UNTRUSTED = "The result is not to be trusted before that is clear"


class CompareReadd(Transform):
    """Refuse a case that is not what the model was taught on, and warn of voxels that it never saw the like of.

    It stands behind the transform that reads the image. A case that ``fitting_items`` or ``predict`` compared with the
    same card bears their mark and passes; any other, such as one of a list that a user wrote, is compared here by the
    same functions: its number of channels, what it says to be (``modality``), DICOM's tag, intensities and spacing.
    The model's name of what the case is goes to ``modality``, for the steps that need it. Each sentence is told once.

    Args:
        contract: what the model's card says; one that says nothing compares nothing.
        modality: what all cases are, whatever they say; it is compared with what they say.
        ignore_card: take what does not fit; ``overridden`` is what the result's record then says.
        key: of the image ``[C, X, Y, Z]``, of a picture ``[C, X, Y]``, with native intensities.

    Raises:
        DataError: for another modality or other channels.
    """

    def __init__(
        self, contract: Contract, modality: str | None = None, ignore_card: bool = False, key: str = "image"
    ) -> None:
        self.contract, self.modality, self.ignore_card, self.key = contract, modality, ignore_card, key
        self.mark = mark_of(contract)
        self.told: dict[str, None] = {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy, perhaps with ``modality``, ``doubt`` and ``overridden``."""
        result = dict(data)
        image = result[self.key]
        meta = image.meta if isinstance(image, MetaTensor) else {}
        own = meta.pop(TAGS, None)
        known = bool(self.contract.channels or self.contract.modalities)
        if not known or data.get(COMPARED) == self.mark:
            return result
        where = f"case {case_name(data)}"
        voxels = np.asarray(image)
        flat = voxels.ndim == len("cxy")
        self._count(len(voxels), where, flat=flat)
        self.contract.check_dim(2 if flat else 3, where=where)
        tags = _tags(meta) if own is None else tuple(str(own).split(BETWEEN_TAGS))
        ranges = self._ranges(voxels, flat=flat)
        own_name, tags = str(data.get("modality") or ""), tags if any(tags) else ()
        said = Said(self.modality or "", own_name, (), tags, "its own modality")
        found = judged(self.contract, said, ranges or (), where=where, ignore=self.ignore_card)
        spacing = Grid.of(image).spacing if isinstance(image, MetaTensor) and not flat else ()
        odd = remarks(voxels, self.contract, found.names, flat=flat, spacing=spacing, ranges=ranges)
        notes = [*found.notes, *(f"{where}: {sentence}. {_UNTRUSTED}" for sentence in odd)]
        self._tell(notes, where)
        if found.modality(self.contract) and not (data.get("modality") and self.ignore_card):
            result["modality"] = found.modality(self.contract)
        result["doubt"] = "; ".join(odd)
        if self.ignore_card:
            result[OVERRIDDEN] = as_recorded(self.contract, notes)
        return {**result, COMPARED: self.mark}

    def _ranges(self, voxels: NDArray[Any], *, flat: bool) -> list[Range] | None:
        """Of each channel; none of a picture whose levels the card does not know: they are no unit's."""
        if flat and not any(m.get("intensities") for m in self.contract.modalities.values()):
            return []
        found = [range_of(channel) for channel in voxels]
        return [r for r in found if r is not None]

    def _count(self, count: int, where: str, *, flat: bool) -> None:
        wanted = self.contract.channels
        if flat or len(wanted) in (0, count):
            return
        missing = ", ".join(wanted[count:])
        raise DataError(f"missing channel {missing}" if missing else "too many channels", where=where,
                        got=f"{count} channels", expected=f"{', '.join(wanted)} ({self.contract.origin})",
                        hint="give one file per channel, in this order")  # fmt: skip

    def _tell(self, notes: Sequence[str], where: str) -> None:
        for note in notes:
            kind = note.replace(where, "", 1)
            if kind not in self.told:
                self.told[kind] = None
                logger.warning("%s", note)


def _tags(meta: Mapping[Any, Any]) -> tuple[str, ...]:
    """DICOM's Modality as another loader keeps it."""
    found = next((meta[k] for k in _ELSEWHERE if isinstance(meta.get(k), str)), "")
    return (found.strip(),) if found.strip() else ()
