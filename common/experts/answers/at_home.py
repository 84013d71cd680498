"""An nnU-Net expert answers as at home: its own preprocessing, tiles, folds and mirroring, by nnU-Net's own code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.transforms import Orientation
from numpy.typing import NDArray
from torch import Tensor, nn

from ...backbones.nnunet.calls import asked, check_size, quiet
from ...backbones.nnunet.grid import grid_affine
from ...backbones.nnunet.network import NNUNetResults, load_network, mirroring_axes, plan_managers, read_results_folder
from ...data.datasets.dataset_json import case_name
from ...errors import ExpertError
from ...geometry import Grid
from ..profile import HomeProfile
from ..spec import ExpertSpec, describe_hint
from ..tiles import tile_step
from .record import record, record_overlapping

__all__ = ["HomeAnswer", "HomeNNUNet", "sample"]

_SLAB = 2_000_000
_SURE = 50.0


@dataclass(frozen=True)
class HomeAnswer:
    """Logits where the expert computed them.

    Args:
        logits: ``[K+1, a, b, c]`` (``[K, a, b, c]`` when structures overlap) on nnU-Net's preprocessed grid, CPU.
        affine: ``[4, 4]`` index of that grid to world mm (RAS+).
        exclusive: whether the structures exclude each other.
    """

    logits: Tensor
    affine: NDArray[np.float64]
    exclusive: bool

    def on(self, grid: Grid) -> Tensor:
        """The record of this answer on another grid: one linear interpolation of the logits.

        Outside of what the expert looked at (nnU-Net crops to where the scan is not zero) it says background, as its
        own export does.

        Args:
            grid: the student's.

        Returns:
            ``[5, X, Y, Z]`` uint8 of :func:`~common.experts.answers.record.record`, or ``[K, X, Y, Z]``.
        """
        return torch.cat([self._record(*slab) for slab in sample(self.logits, self.affine, grid)], 1)

    def _record(self, logits: Tensor, inside: Tensor) -> Tensor:
        if not self.exclusive:
            return record_overlapping(logits.masked_fill(~inside, -_SURE))
        outside = torch.full_like(logits[:, :1, :1, :1], -_SURE)
        outside[0] = _SURE
        return record(torch.where(inside, logits, outside))


def sample(values: Tensor, affine: NDArray[np.float64], grid: Grid) -> Iterator[tuple[Tensor, Tensor]]:
    """Values of a volume at the voxels of another grid, linear between voxel centres, in slabs along x.

    Args:
        values: ``[N, a, b, c]``.
        affine: ``[4, 4]`` index of the volume to world mm (RAS+).
        grid: where values are wanted.

    Yields:
        ``[N, x, Y, Z]`` float32, and ``[x, Y, Z]`` bool: whether the place lies in a voxel of the volume.
    """
    move = torch.from_numpy(np.linalg.inv(affine) @ grid.affine)
    size = torch.tensor(values.shape[1:], dtype=torch.float64)
    x, y, z = grid.shape
    step = max(1, _SLAB // (y * z))
    for start in range(0, x, step):
        axes = [torch.arange(start, min(start + step, x)), torch.arange(y), torch.arange(z)]
        voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).double()
        found = voxels @ move[:3, :3].T + move[:3, 3]
        unit = ((2 * found + 1) / size - 1).flip(-1).float()
        inside = ((found >= -0.5) & (found <= size - 0.5)).all(-1)
        yield F.grid_sample(values[None].float(), unit[None], padding_mode="border", align_corners=False)[0], inside


@dataclass
class HomeNNUNet:
    """The expert as nnU-Net itself would run it, from a description.

    Args:
        spec: of kind ``nnunet``, with the orientation of its training files. Its home profile says what the program
            that it lives in does to a scan before nnU-Net sees it.
        folds: which folds answer together (nnU-Net's mean of logits); the spec's own when empty.
        mirroring: answer also for mirrored scans along the axes that were trained so; None is the profile's way, and
            without one nnU-Net's, which does. Afterwards what is done.
        tile_step: step of the tiles as a share of the patch, 0 < step <= 1; None is the profile's, else nnU-Net's 0.5.
        device: where it computes.

    Raises:
        ExpertError: for another kind, a cascade, or an orientation that nobody knows.
        WeightError: when the folder cannot be read.
    """

    spec: ExpertSpec
    folds: Sequence[int | str] = ()
    mirroring: bool | None = None
    tile_step: float | None = None
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        spec, profile = self.spec, HomeProfile.of(self.spec)
        if spec.kind != "nnunet":
            raise ExpertError("only nnU-Net experts have nnU-Net's way", where=spec.name, got=spec.kind)
        self._orientation = spec.orientation if profile is None else profile.orientation
        if self._orientation is None:
            hint = describe_hint(spec.path, spec.task, "--training_files FOLDER") + ", or --orientation LPS"
            raise ExpertError("nobody knows how this expert's training scans lay in the scanner", where=spec.name,
                              got="orientation null", expected="axis codes such as LPS or RAS", hint=hint)  # fmt: skip
        self.mirroring = (True if profile is None else profile.mirroring) if self.mirroring is None else self.mirroring
        self.tile_step = tile_step(spec, self.tile_step)
        if not 0 < self.tile_step <= 1:
            raise ExpertError("tiles step by a share of the patch", where="tile_step", got=self.tile_step)
        name = spec.checkpoint or "checkpoint_final.pth"
        folds = tuple(self.folds) or spec.folds
        self._results = [read_results_folder(spec.path, spec.configuration, fold, name) for fold in folds]
        self._manager, self._config = plan_managers(self._results[0].plans, self._results[0].configuration)
        if self._config.previous_stage_name is not None:
            raise ExpertError("a cascade's second stage needs the first one's answer", where=spec.name,
                              got=self._results[0].configuration, expected="3d_fullres, 3d_lowres or 2d",
                              hint="describe another --configuration of the same folder")  # fmt: skip
        with asked(self._results[0].folder, error=ExpertError):
            self._predictor = _predictor(self._results, self.mirroring, self.tile_step, torch.device(self.device))

    def answer(self, scan: MetaTensor) -> HomeAnswer:
        """Ask about a whole scan.

        Args:
            scan: ``[C, X, Y, Z]`` as stored, intensities untouched.

        Raises:
            ExpertError: for another number of channels, a size that no machine holds, and what nnU-Net raises.
        """
        data, affine, properties = self._as_read(scan)
        with asked(self._place(scan), error=ExpertError), torch.inference_mode():
            preprocessor = self._config.preprocessor_class(verbose=False)
            array, _, properties = preprocessor.run_case_npy(
                data, None, properties, self._manager, self._config, self._results[0].dataset_json
            )
            logits = self._predictor.predict_logits_from_preprocessed_data(torch.from_numpy(array)).cpu()
        home = grid_affine(affine, self._manager.transpose_forward, properties, logits.shape[1:])
        return HomeAnswer(logits.float(), home, self.spec.labels.exclusive)

    def judge(self, scan: MetaTensor) -> MetaTensor:
        """What nnU-Net's whole pipeline, its export included, makes of the scan: what :meth:`answer` is held against.

        Args:
            scan: as for :meth:`answer`; it is rewritten to the training orientation, as nnU-Net's readers do not.

        Returns:
            ``[K+1, X, Y, Z]`` logits (``[K, X, Y, Z]`` for overlapping structures) on the rewritten scan's grid, cut to
            the box that nnU-Net looked at: elsewhere it says background. They go through its export in the place of
            probabilities, which tell no more where a class is sure.
        """
        data, affine, properties = self._as_read(scan)
        labels = self._predictor.label_manager
        nonlinear, labels.inference_nonlin = labels.inference_nonlin, torch.nn.Identity()
        try:
            with asked(self._place(scan), error=ExpertError):
                _, found = self._predictor.predict_single_npy_array(data, properties, save_or_return_probabilities=True)
        finally:
            labels.inference_nonlin = nonlinear
        box = [slice(0)] * 3
        for axis, bounds in zip(self._manager.transpose_forward, properties["bbox_used_for_cropping"], strict=True):
            box[2 - axis] = slice(*bounds)
        array = np.asarray(found, dtype=np.float32).transpose(0, 3, 2, 1)[(slice(None), *box)]
        corner = affine.copy()
        corner[:3, 3] += affine[:3, :3] @ [b.start for b in box]
        return MetaTensor(torch.from_numpy(np.ascontiguousarray(array)), affine=torch.from_numpy(corner))

    def segmented(self, scan: MetaTensor) -> MetaTensor:
        """The label map of nnU-Net's whole pipeline, its export included: what its own program gives.

        Args:
            scan: as for :meth:`answer`.

        Returns:
            ``[1, X, Y, Z]`` on the grid of the scan as nnU-Net was given it.
        """
        data, affine, properties = self._as_read(scan)
        with asked(self._place(scan), error=ExpertError):
            found = self._predictor.predict_single_npy_array(data, properties)
        array = np.ascontiguousarray(np.asarray(found).transpose(2, 1, 0))[None]
        return MetaTensor(torch.from_numpy(array), affine=torch.from_numpy(affine))

    def _as_read(self, scan: MetaTensor) -> tuple[NDArray[Any], NDArray[np.float64], dict[str, Any]]:
        """The scan as nnU-Net's readers would give it: ``[C, Z, Y, X]`` in the training orientation, with spacing.

        The affine is where it lies, also where the profile's resampling gives voxels another size than it says.
        """
        channels = len(self.spec.channels)
        if scan.ndim != 4 or scan.shape[0] != channels:
            raise ExpertError("the scan has other channels than the expert", where=self.spec.name,
                              got=tuple(scan.shape), expected=f"[{channels}, X, Y, Z]")  # fmt: skip
        turned = Orientation(axcodes=self._orientation, labels=None)(scan)
        grid, profile = Grid.of(turned), HomeProfile.of(self.spec)
        volume, spacing = turned.numpy(), grid.spacing
        if profile is not None:
            volume, grid, spacing = profile.resampled(volume, grid, where=self._place(scan))
        turn, known = self._manager.transpose_forward, list(reversed(spacing))
        shape = [volume.shape[3 - i] for i in turn]
        check_size(shape, [known[i] for i in turn], self._config.spacing, channels=channels, where=self._place(scan),
                   error=ExpertError)  # fmt: skip
        data = np.ascontiguousarray(volume.transpose(0, 3, 2, 1))
        return data, grid.affine, {"spacing": known}

    def _place(self, scan: MetaTensor) -> str:
        """The expert, its folder and the scan, for messages."""
        return f"expert {self.spec.name!a} ({self._results[0].folder}), scan {case_name({'image': scan})}"


def _predictor(results: Sequence[NNUNetResults], mirroring: bool, step: float, device: torch.device) -> Any:
    """nnU-Net's predictor around networks that were read without unpickling."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    network: nn.Module = load_network(results[0])
    manager, config = plan_managers(results[0].plans, results[0].configuration)
    with quiet():
        predictor = nnUNetPredictor(
            tile_step_size=step, use_mirroring=mirroring, device=device, perform_everything_on_device=False,
            allow_tqdm=False,
        )  # fmt: skip
        predictor.manual_initialization(
            network, manager, config, [r.weights for r in results], results[0].dataset_json, results[0].trainer,
            mirroring_axes(results[0]),
        )  # fmt: skip
    return predictor
