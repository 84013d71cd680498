"""Where a volume's structures are: a bounded sample of voxels of each, to centre crops on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from ...errors import ConfigError

__all__ = ["BACKGROUND", "ForegroundPositionsd"]

BACKGROUND = 0


class ForegroundPositionsd(Transform):
    """Add ``positions``: ``{structure: [n, 3] int32}``, voxels of each structure that is there, background included.

    Of a structure with more than ``most`` voxels a part is taken, equally likely each, by a generator that depends on
    the structure and its number of voxels alone.

    Args:
        key: label map ``[1, ...]``.
        output: gets the positions.
        most: positions of one structure, >= 1.
        allow_missing_keys: leave a case without a label map as it is.

    Raises:
        ConfigError: for no positions.

    Reference:
        nnU-Net keeps at most 10,000 voxels of each class.
    """

    def __init__(
        self, key: str = "label", output: str = "positions", most: int = 10_000, allow_missing_keys: bool = False
    ) -> None:
        if most < 1:
            raise ConfigError("at least one position of each structure", where="most", got=most)
        self.key, self.output, self.most, self.allow_missing_keys = key, output, most, allow_missing_keys

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with ``output``."""
        if self.allow_missing_keys and self.key not in data:
            return dict(data)
        label = data[self.key]
        plain = label.as_tensor() if isinstance(label, MetaTensor) else torch.as_tensor(label)
        values = plain[0].numpy().astype(np.int64)
        found: dict[int, torch.Tensor] = {}
        flat = values.ravel()
        for structure in np.unique(flat):
            places = np.flatnonzero(flat == structure)
            if len(places) > self.most:
                random = np.random.default_rng((int(structure) & 0xFFFFFFFF, len(places)))
                places = np.sort(random.choice(places, self.most, replace=False))
            where = np.stack(np.unravel_index(places, values.shape), axis=1).astype(np.int32)
            found[int(structure)] = torch.from_numpy(where)
        return {**data, self.output: found}
