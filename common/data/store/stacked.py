"""Several prepared arrays of one grid as one, read together crop by crop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import DataError
from .entry import StoredArray

__all__ = ["StackedArrays"]


class StackedArrays(StoredArray):
    """Arrays ``[C_i, ...]`` one after another along their first axis; absent ones are zeros.

    Args:
        parts: prepared arrays, or the number of channels of one that is absent.
        space: their grid.
        dtype: of all of them.

    Raises:
        DataError: when an array lies on another grid.
    """

    def __init__(
        self, parts: Sequence[StoredArray | int], space: Sequence[int], dtype: torch.dtype = torch.uint8
    ) -> None:
        self.parts, self.space, self.dtype = list(parts), tuple(int(n) for n in space), dtype
        for part in self.parts:
            if isinstance(part, StoredArray) and part.shape[1:] != self.space:
                raise DataError("a prepared array lies on another grid", where=part.path, got=part.shape[1:],
                                expected=self.space)  # fmt: skip

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return (sum(p if isinstance(p, int) else p.shape[0] for p in self.parts), *self.space)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return 1 + len(self.space)

    def read(self, part: Sequence[slice] = ()) -> Tensor:
        """As :meth:`.StoredArray.read`; the first axis is read whole."""
        inner = list(part)[1:]
        if part and part[0] != slice(None):
            raise DataError("stacked arrays are read with all their channels", got=part[0])
        size = [len(range(n)[s]) for n, s in zip(self.space, [*inner, *[slice(None)] * len(self.space)], strict=False)]
        found = [
            torch.zeros(p, *size, dtype=self.dtype) if isinstance(p, int) else p.read([slice(None), *inner])
            for p in self.parts
        ]
        return torch.cat(found) if found else torch.zeros(0, *size, dtype=self.dtype)

    def whole(self) -> Any:
        """The array as a plain tensor."""
        return self.read()
