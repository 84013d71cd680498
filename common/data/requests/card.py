"""What an annotation server compares of a scan with the card of the model that it asks."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.transforms import Transform

from ...contract import Contract
from ...errors import DataError
from ..remarks import remarks
from .study import Study, compared, place_of

__all__ = ["CompareWithCardd"]

logger = logging.getLogger(__name__)


class CompareWithCardd(Transform):
    """Refuse a scan of something else than the model was taught on; remark on voxels that it never saw the like of.

    What it is DICOM says, or a ``dataset.json`` that its file belongs to (:func:`.study.compared`); what both leave
    open is remarked on, too. Remarks are logged and go to the item's ``notes``, which the answer hands on.

    Args:
        channels: the card's channel names, in order; nothing is compared without any.
        modalities: the card's modalities, as in :class:`~common.contract.Contract`.
        modality: what the scan is, in the card's words; any of the card's when empty.
        key: of the image ``[C, X, Y, Z]`` as it was read.
        flat: of a picture ``[C, X, Y]``, whose colours are remarked on and no channels of it.
        taught: the structures that were annotated, by modality.

    Raises:
        DataError: for another number of channels, and what is surely none of the card's modalities.
    """

    def __init__(
        self,
        channels: Sequence[str] = (),
        modalities: Mapping[str, Mapping[str, Any]] | None = None,
        modality: str | None = None,
        key: str = "image",
        flat: bool = False,
        taught: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        known = {name: tuple(structures) for name, structures in (taught or {}).items()}
        self.contract = Contract(tuple(channels), dict(modalities or {}), known)
        self.modality, self.key, self.flat = modality, key, flat

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy, perhaps with a remark."""
        image = np.asarray(data[self.key])
        wanted = self.contract.channels
        if wanted and len(image) != len(wanted) and not self.flat:
            problem = "the scan has other channels than the model was taught on"
            raise DataError(problem, where=self.key, got=f"{len(image)} channels", expected=", ".join(wanted))
        known = [str(self.modality)] if self.modality in self.contract.modalities else []
        place = place_of(data[self.key])
        study = Study() if place is None else compared(place, self.contract, "".join(known))
        said = remarks(image, self.contract, known or study.modalities, flat=self.flat)
        doubtful = [f"{sentence}; the result is not to be trusted before that is clear" for sentence in said]
        notes = [*study.notes, *doubtful]
        for note in notes:
            logger.warning("%s", note)
        return {**data, "notes": [*(data.get("notes") or ()), *notes]} if notes else dict(data)
