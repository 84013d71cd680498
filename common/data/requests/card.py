"""What an annotation server compares of a scan with the card of the model that it asks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.transforms import Transform

from ...contract import Contract
from ...errors import DataError
from ..remarks import remarks

__all__ = ["CompareWithCardd"]


class CompareWithCardd(Transform):
    """Refuse a scan with other channels than the model was taught on; remark on voxels that it never saw the like of.

    Remarks go to the item's ``notes``, which the answer hands on to the viewer.

    Args:
        channels: the card's channel names, in order; nothing is compared without any.
        modalities: the card's modalities, as in :class:`~common.contract.Contract`.
        modality: what the scan is, in the card's words; any of the card's when empty.
        key: of the image ``[C, X, Y, Z]`` as it was read.
        flat: of a picture ``[C, X, Y]``, whose colours are remarked on and no channels of it.

    Raises:
        DataError: for another number of channels.
    """

    def __init__(
        self,
        channels: Sequence[str] = (),
        modalities: Mapping[str, Mapping[str, Any]] | None = None,
        modality: str | None = None,
        key: str = "image",
        flat: bool = False,
    ) -> None:
        self.contract = Contract(tuple(channels), dict(modalities or {}))
        self.modality, self.key, self.flat = modality, key, flat

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy, perhaps with a remark."""
        image = np.asarray(data[self.key])
        wanted = self.contract.channels
        if wanted and len(image) != len(wanted) and not self.flat:
            problem = "the scan has other channels than the model was taught on"
            raise DataError(problem, where=self.key, got=f"{len(image)} channels", expected=", ".join(wanted))
        known = [self.modality] if self.modality in self.contract.modalities else []
        said = remarks(image, self.contract, [str(name) for name in known], flat=self.flat)
        if not said:
            return dict(data)
        notes = [f"{sentence}; the result is not to be trusted before that is clear" for sentence in said]
        return {**data, "notes": [*(data.get("notes") or ()), *notes]}
