"""Calls into nnU-Net: nothing of what it prints is shown, and what it raises is said of the plans and the scan."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Sequence

from ...errors import AmalgamationError, WeightError
from ...geometry import most_voxels

__all__ = ["asked", "check_size", "quiet"]

_BYTES = 24  # of a resampled voxel of a channel in the making: twice as float64, once as float32, and its mask


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep nnU-Net's console messages and its notes on old plans out of our output."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def asked(where: object, *, error: type[AmalgamationError] = WeightError) -> Iterator[None]:
    """A call of :func:`quiet` nnU-Net, of which every exception becomes a refusal; refusals pass as they are.

    Args:
        where: the folder or file of the plans, and the case.
        error: class of the refusal.

    Raises:
        AmalgamationError: of the class ``error``, from what nnU-Net raised.
    """
    try:
        with quiet():
            yield
    except AmalgamationError:
        raise
    except Exception as wrong:
        said = f"{type(wrong).__name__}: {wrong}"
        raise error("nnU-Net cannot work by these plans, or not with this scan", where=where,
                    got=ascii(said)[1:-1][:300], hint="--debug shows where in nnU-Net it ended") from wrong  # fmt: skip


def check_size(
    shape: Sequence[int],
    spacing: Sequence[float],
    target: Sequence[float],
    *,
    channels: int,
    where: object,
    error: type[AmalgamationError] = WeightError,
) -> None:
    """Refuse a scan that nnU-Net would resample to nothing, or to more than this machine holds.

    Args:
        shape: voxels of the scan per axis, in nnU-Net's order and transposed.
        spacing: of the scan in mm along the same axes.
        target: the plans', along the last axes.
        channels: of the scan, >= 1.
        where: the folder of the plans, and the case.
        error: class of the refusal.

    Raises:
        AmalgamationError: of the class ``error``.
    """
    wanted = [*spacing[: len(spacing) - len(target)], *target]
    made = [round(n * s / t) for n, s, t in zip(shape, spacing, wanted, strict=True)]
    most = most_voxels(_BYTES * channels)
    if min(made) < 1 or math.prod(made) > most:
        raise error("the scan cannot be resampled to the plans' spacing", where=where,
                    got=f"{made} voxels from {list(shape)} of {[round(float(s), 5) for s in spacing]} mm",
                    expected=f"1 to {most:,} voxels at {list(wanted)} mm, which this machine holds",
                    hint="is the spacing right, that of the scan's header and that of the plans?")  # fmt: skip
