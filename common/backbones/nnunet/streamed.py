"""Classes decided where no further tile will come, so that never all logits of a volume are kept at once.

nnU-Net adds up the weighted logits of all tiles over the whole volume: ``2 (K + 1)`` bytes a voxel, several times over.
Here a voxel's sums are kept from its first tile to its last, and then only its class. The additions are nnU-Net's, in
its order and its 16 bits, so that the label map is the same, voxel by voxel. MONAI's ``SlidingWindowInferer`` streams
windows, too (``buffer_steps``), but what it fills is the volume of all logits.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeGuard

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import Transform
from torch import Tensor, nn

from ...errors import DataError
from ...plain_json import parse_object

__all__ = ["COMPETING", "DecideInTilesd", "Running", "Span", "decided", "spans"]

COMPETING = "competing"
# Key of an image's metadata, ``[K+1]`` bool: it may be decided in tiles, between these classes.
_CLASSES = 32
# Of the head at once: a multiple of the blocks in which the CPU's convolutions go through output channels.
_PLANES = 16
# Planes of a tile that are added at once, which bounds what the additions copy.


class Competing(Protocol):
    """A transform that leaves some classes of a case to compete."""

    def competing(self, data: Mapping[Hashable, Any]) -> Tensor:
        """``[K+1]`` bool, background first."""


class DecideInTilesd(Transform):
    """Say in ``image.meta`` that this case's classes may be decided while its tiles are joined.

    They may where the answer is not resampled afterwards: there, logits are interpolated before the largest is taken.

    Args:
        keep: the transforms that mask the case's logits, all of which leave a class to compete or none does.
        image: key of the preprocessed image; its ``nnunet`` entry says what was done to it.
        enabled: otherwise nothing is said.
    """

    def __init__(self, *, keep: Sequence[Competing], image: str = "image", enabled: bool = True) -> None:
        self.keep, self.image, self.enabled = tuple(keep), image, enabled

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy."""
        if not self.enabled:
            return dict(data)
        result, image = dict(data), data[self.image]
        done = parse_object(data["nnunet"], error=DataError, finite=False)
        if isinstance(image, MetaTensor) and done["shape_after_cropping_and_before_resampling"] == [*image.shape[1:]]:
            image.meta[COMPETING] = torch.stack([k.competing(data).cpu() for k in self.keep]).all(0)
        return result


class Span(NamedTuple):
    """Voxels along one axis that lie in the same tiles.

    Args:
        low: the first voxel.
        high: behind the last.
        first: where the first tile begins in which they lie.
        last: where the last one does.
    """

    low: int
    high: int
    first: int
    last: int


def spans(starts: Sequence[int], size: int) -> list[Span]:
    """An axis cut where a tile begins or ends.

    Args:
        starts: of the tiles, which cover the axis.
        size: of a tile.
    """
    cuts = sorted({*starts, *(s + size for s in starts)})
    found = []
    for low, high in itertools.pairwise(cuts):
        inside = [s for s in starts if s <= low and high <= s + size]
        found.append(Span(low, high, min(inside), max(inside)))
    return found


class Running:
    """The largest value of each voxel and its class, of values that come class by class.

    The first of equal ones counts, and not-a-number before all numbers, as in an argmax of all at once.
    """

    def __init__(self) -> None:
        self.best: Tensor | None = None
        self.index = torch.zeros(0)

    def update(self, values: Tensor, first: int) -> None:
        """Compare further classes.

        Args:
            values: ``[n, ...]``.
            first: number of the first of them, larger than all before.
        """
        best, index = _largest(values)
        index += first
        if self.best is None:
            self.best, self.index = best, index
            return
        better = (best > self.best) | (best.isnan() & ~self.best.isnan())
        self.best = torch.where(better, best, self.best)
        self.index = torch.where(better, index, self.index)


def _largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """Like ``values.max(0)``, in half of its time for 16 bits on the CPU, with numbers of 16 bits."""
    best = values.amax(0)
    if bool(best.isnan().any()):
        best, index = values.max(0)
        return best, index.to(torch.int16)
    found = torch.zeros(best.shape, dtype=torch.int16, device=best.device)
    for number in range(len(values) - 1, -1, -1):
        found.masked_fill_(values[number] == best, number)
    return best, found


class _Cell(NamedTuple):
    """A box of voxels that lie in the same tiles, in voxels of the volume."""

    axes: tuple[Span, ...]

    def inside(self, tile: Sequence[int]) -> tuple[slice, ...]:
        return tuple(slice(s.low - t, s.high - t) for s, t in zip(self.axes, tile, strict=True))

    def first(self, tile: Sequence[int]) -> bool:
        return all(s.first == t for s, t in zip(self.axes, tile, strict=True))

    def last(self, tile: Sequence[int]) -> bool:
        return all(s.last == t for s, t in zip(self.axes, tile, strict=True))


class _Sums(NamedTuple):
    """What tiles have said of a cell: weighted logits ``[K+1, x, y, z]`` (nothing in one tile's own), their weights."""

    logits: Tensor | None
    weights: Tensor


@torch.inference_mode()
def decided(predictor: Any, image: Tensor, competing: Tensor) -> Tensor:
    """The class of each voxel, as nnU-Net's predictor and an argmax say.

    Args:
        predictor: nnU-Net's, ready, of a 3-D configuration whose structures exclude each other.
        image: ``[C, a, b, c]``, preprocessed.
        competing: ``[K+1]`` bool: classes between which is decided.

    Returns:
        ``[1, a, b, c]`` int16, on the device where the sums were kept.

    Raises:
        DataError: where a sum is infinite in 16 bits, as nnU-Net refuses it.
    """
    from acvl_utils.cropping_and_padding.padding import pad_nd_image

    device = predictor.device
    patch = tuple(int(n) for n in predictor.configuration_manager.patch_size)
    predictor.network = predictor.network.to(device).eval()
    with torch.autocast("cuda") if device.type == "cuda" else contextlib.nullcontext():
        data, back = pad_nd_image(image, patch, "constant", {"value": 0}, True, None)
        where = device if predictor.perform_everything_on_device else torch.device("cpu")
        index = _joined(predictor, data.to(where), patch, competing.to(where))
    return index[tuple(back[1:])][None]


def _joined(predictor: Any, data: Tensor, patch: tuple[int, ...], competing: Tensor) -> Tensor:
    from nnunetv2.inference.sliding_window_prediction import compute_gaussian

    options = {"sigma_scale": 1.0 / 8, "value_scaling_factor": 10, "device": data.device}
    gaussian = compute_gaussian(patch, **options)
    slicers = predictor._internal_get_sliding_window_slicers(data.shape[1:])
    tiles = [tuple(int(s.start) for s in slicer[1:]) for slicer in slicers]
    axes = [spans(sorted({t[i] for t in tiles}), patch[i]) for i in range(3)]
    ask = _Head.of(predictor)
    index = torch.zeros(data.shape[1:], dtype=torch.int16, device=data.device)
    waiting: dict[_Cell, _Sums] = {}
    for slicer, tile in zip(slicers, tiles, strict=True):
        within = [[s for s in spans_ if t <= s.low < t + n] for spans_, t, n in zip(axes, tile, patch, strict=True)]
        cells = [_Cell(tuple(chosen)) for chosen in itertools.product(*within)]
        for cell in cells:
            _begin(waiting, cell, tile, gaussian, len(competing))
        window = torch.clone(data[slicer][None], memory_format=torch.contiguous_format).to(predictor.device)
        found = {cell: Running() for cell in cells if cell.last(tile)}
        for first, part in ask.logits(window):
            part = part.to(data.device)
            part *= gaussian
            for cell in cells:
                sums = waiting[cell]
                _add(part[(slice(None), *cell.inside(tile))], sums, found.get(cell), first, competing)
        for cell, running in found.items():
            index[tuple(slice(s.low, s.high) for s in cell.axes)] = running.index
            del waiting[cell]
    return index


def _begin(waiting: dict[_Cell, _Sums], cell: _Cell, tile: Sequence[int], gaussian: Tensor, classes: int) -> None:
    """Make room where a cell's first tile comes, and add the tile's weights."""
    own = gaussian[cell.inside(tile)]
    if not cell.first(tile):
        waiting[cell].weights.add_(own)
        return
    alone = cell.last(tile)
    waiting[cell] = _Sums(None if alone else torch.zeros(classes, *own.shape, dtype=torch.half, device=own.device),
                          own.clone())  # fmt: skip


def _add(part: Tensor, sums: _Sums, running: Running | None, first: int, competing: Tensor) -> None:
    """Add some classes of a tile's weighted logits; with the last tile, compare them."""
    values = part.half() if sums.logits is None else sums.logits[first : first + len(part)]
    for low in range(0, part.shape[1], _PLANES):
        rows = slice(low, low + _PLANES)
        if sums.logits is not None:
            values[:, rows] += part[:, rows]
        if running is not None:
            torch.div(values[:, rows], sums.weights[rows], out=values[:, rows])
            if _infinite(values[:, rows]):
                raise DataError("the network's logits are infinite in 16 bits", got="inf", expected="numbers",
                                hint="the weights are damaged, or the scan's intensities are of another kind"
                                )  # fmt: skip
    if running is not None:
        others = ~competing[first : first + len(values)]
        if bool(others.any()):
            values = values.masked_fill(others.view(-1, 1, 1, 1), torch.finfo(values.dtype).min / 4)
        running.update(values, first)


def _infinite(values: Tensor) -> bool:
    """Whether one of them is; the largest of all tells in a sixth of the time, unless one is no number."""
    most = values.abs().amax()
    return bool(most.isinf()) or bool(most.isnan() and values.isinf().any())


class _Head:
    """Asks the network about a window, some classes at a time where its last layer can be asked by itself."""

    def __init__(self, predictor: Any, body: nn.Module | None, head: nn.Conv3d | None) -> None:
        self.predictor, self.body, self.head = predictor, body, head

    @classmethod
    def of(cls, predictor: Any) -> _Head:
        """Split nnU-Net's networks on the CPU; mirrored answers are a mean of whole ones."""
        network = predictor.network
        decoder = getattr(network, "decoder", None)
        layers = getattr(decoder, "seg_layers", None)
        layers = layers if isinstance(layers, nn.ModuleList) else nn.ModuleList()
        head = layers[-1] if len(layers) else None
        whole = predictor.device.type != "cpu" or (predictor.use_mirroring and predictor.allowed_mirroring_axes)
        if whole or getattr(decoder, "deep_supervision", True) or not _splits(head):
            return cls(predictor, None, None)
        return cls(predictor, _replaced(network, ("decoder", "seg_layers", str(len(layers) - 1)), nn.Identity()), head)

    def logits(self, window: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The number of the first class, and ``[n, *patch]`` that may be written to."""
        if self.body is None or self.head is None:
            whole = self.predictor._internal_maybe_mirror_and_predict(window)[0]
            for first in range(0, len(whole), _CLASSES):
                yield first, whole[first : first + _CLASSES]
            return
        features, parts = self.body(window), _parts(self.head)
        if not _same(features[..., :8, :16, :17].contiguous(), parts, self.head):
            self.body = None
            yield from self.logits(window)
            return
        for number, (weight, bias) in enumerate(parts):
            yield number * _CLASSES, F.conv3d(features, weight, bias)[0]


def _splits(head: object) -> TypeGuard[nn.Conv3d]:
    """Whether a last layer answers for each class by itself, and nobody listens to it."""
    if not isinstance(head, nn.Conv3d) or head._forward_hooks or head._forward_pre_hooks:
        return False
    return head.kernel_size == (1, 1, 1) and head.groups == 1 and head.out_channels > _CLASSES


def _parts(head: nn.Conv3d) -> list[tuple[Tensor, Tensor | None]]:
    weights = head.weight.split(_CLASSES)
    return list(zip(weights, [None] * len(weights) if head.bias is None else head.bias.split(_CLASSES), strict=True))


def _same(features: Tensor, parts: Sequence[tuple[Tensor, Tensor | None]], head: nn.Module) -> bool:
    """Whether this machine's convolution gives the same to the last bit for some classes as for all."""
    return bool(torch.equal(torch.cat([F.conv3d(features, *part) for part in parts], 1), head(features)))


def _replaced(module: nn.Module, path: Sequence[str], other: nn.Module) -> nn.Module:
    """The same network, of the same parameters, with another module in one place."""
    if not path:
        return other
    found = copy.copy(module)
    found._modules = {**module._modules, path[0]: _replaced(module._modules[path[0]], path[1:], other)}  # type: ignore[arg-type]
    return found
