"""What an annotation server compares of a scan with the card of the model that it asks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.transforms import Transform

from ...contract import Contract
from ...errors import DataError
from ...intensity_range import range_of

__all__ = ["CompareWithCardd"]


class CompareWithCardd(Transform):
    """Refuse a scan with other channels than the model was taught on; remark on intensities that it never saw.

    The remark goes to the item's ``notes``, which the answer hands on to the viewer.

    Args:
        channels: the card's channel names, in order; nothing is compared without any.
        modalities: the card's modalities, as in :class:`~common.contract.Contract`.
        modality: what the scan is, in the card's words; any of the card's when empty.
        key: of the image ``[C, X, Y, Z]`` as it was read.

    Raises:
        DataError: for another number of channels.
    """

    def __init__(
        self,
        channels: Sequence[str] = (),
        modalities: Mapping[str, Mapping[str, Any]] | None = None,
        modality: str | None = None,
        key: str = "image",
    ) -> None:
        self.contract = Contract(tuple(channels), dict(modalities or {}))
        self.modality, self.key = modality, key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy, perhaps with a remark."""
        image = np.asarray(data[self.key])
        wanted = self.contract.channels
        if wanted and len(image) != len(wanted):
            raise DataError("the scan has other channels than the model was taught on", where=self.key,
                            got=f"{len(image)} channels", expected=", ".join(wanted))  # fmt: skip
        ranges = [found for found in map(range_of, image) if found is not None]
        known = [self.modality] if self.modality in self.contract.modalities else []
        reason = self.contract.odd(ranges, [str(name) for name in known]) if len(ranges) == len(image) else None
        if reason is None:
            return dict(data)
        note = (
            f"intensities {'; '.join(map(str, ranges))}: {reason}; the result is not to be trusted before that is clear"
        )
        return {**data, "notes": [*(data.get("notes") or ()), note]}
