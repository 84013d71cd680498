"""Experts that are no nnU-Nets answer about a whole scan: MONAI bundles and TorchScript files, window by window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.transforms import Orientation
from numpy.typing import NDArray
from torch import Tensor

from ...data.datasets.dataset_json import case_name
from ...data.intensity.volume import volume_stats
from ...errors import ExpertError
from ...geometry import Grid, most_voxels
from ..claims import check_claims
from ..expert_set import Expert
from ..sources import open_source
from ..spec import ExpertSpec
from .at_home import HomeAnswer

__all__ = ["HomeWindows"]

WINDOW = 96
_BYTES = 8  # of a channel or structure at a voxel: as it is summed up, and as it is given back


@dataclass
class HomeWindows:
    """The expert as its description says: its orientation, spacing and normalisation, then windows that overlap.

    Args:
        spec: of kind ``bundle`` or ``torchscript``.
        overlap: share of a window that neighbours share, in [0, 1).
        device: where it computes.

    Raises:
        ExpertError: for an nnU-Net, which has a way of its own, or files that cannot be opened.
    """

    spec: ExpertSpec
    overlap: float = 0.5
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if self.spec.kind == "nnunet":
            raise ExpertError("an nnU-Net answers in nnU-Net's own way", where=self.spec.name, got=self.spec.kind,
                              expected="bundle or torchscript")  # fmt: skip
        source = open_source(self.spec)
        check_claims(self.spec, source)
        self._expert = Expert(spec=self.spec, source=source).to(self.device)

    def answer(self, scan: MetaTensor) -> HomeAnswer:
        """Ask about a whole scan.

        Args:
            scan: ``[C, X, Y, Z]`` as stored, intensities untouched.

        Raises:
            ExpertError: for another number of channels, or an answer about another number of structures.
        """
        spec, expert = self.spec, self._expert
        if scan.ndim != 4 or scan.shape[0] != len(spec.channels):
            raise ExpertError("the scan has other channels than the expert", where=spec.name, got=tuple(scan.shape),
                              expected=f"[{len(spec.channels)}, X, Y, Z]")  # fmt: skip
        turned: MetaTensor = scan
        if spec.orientation is not None:
            turned = Orientation(axcodes=spec.orientation, labels=None)(scan)  # type: ignore[assignment]
        grid, raw = Grid.of(turned), turned.as_tensor().float()
        stats = torch.from_numpy(volume_stats(raw.numpy(), spec.name))
        place = expert.frame.place(grid.shape, grid.spacing, spec.orientation or grid.axcodes, resample=True)
        most = most_voxels(_BYTES * (len(spec.channels) + len(spec.labels) + 1))
        if math.prod(place.resampled) > most:
            raise ExpertError("the scan cannot be resampled to the expert's spacing",
                              where=f"expert {spec.name!a}, scan {case_name({'image': scan})}",
                              got=f"{list(place.resampled)} voxels from {list(grid.shape)} of {grid.spacing} mm",
                              expected=f"at most {most:,} voxels, which this machine holds",
                              hint="correct the spacing in the expert's description, or the scan's")  # fmt: skip
        with torch.inference_mode():
            x = expert.normalise(raw[None], stats[None])
            if place.resampled != grid.shape:
                x = F.interpolate(x, size=place.resampled, mode="trilinear", align_corners=False)
            window = expert.frame.padded([min(n, WINDOW) for n in x.shape[2:]])
            logits = sliding_window_inference(
                x, window, 1, self._network, overlap=self.overlap, mode="gaussian", sw_device=self.device, device="cpu"
            )
        if not isinstance(logits, Tensor) or logits.shape[1] != len(spec.labels) + spec.labels.exclusive:
            raise ExpertError("the expert answers about another number of structures", where=spec.name,
                              got=tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__,
                              expected=f"background and {len(spec.labels)}" if spec.labels.exclusive
                              else len(spec.labels))  # fmt: skip
        return HomeAnswer(logits[0].float(), _resampled(grid, place.resampled), spec.labels.exclusive)

    def _network(self, x: Tensor) -> Tensor:
        output = self._expert.network(x)
        found: Tensor = output[0] if isinstance(output, (list, tuple)) else output
        return found


def _resampled(grid: Grid, shape: Sequence[int]) -> NDArray[np.float64]:
    """Index to world of a volume that was resampled between its outer edges."""
    ratio = np.array(grid.shape) / np.array(shape)
    index = np.diag([*ratio, 1.0])
    index[:3, 3] = 0.5 * ratio - 0.5
    return np.asarray(grid.affine @ index)
