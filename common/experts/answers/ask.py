"""The transform that asks an expert about a scan: what it makes is kept in the store, under all that decides it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform
from torch.utils.data import get_worker_info

from ...errors import ExpertError
from ...geometry import Grid
from ..claims import check_claims
from ..expert_set import Expert, check_unchanged, hash_expert
from ..frame import Frame
from ..normalise import Normalise
from ..sources import open_source
from ..spec import ExpertSpec
from .at_home import HomeAnswer, HomeNNUNet, sample
from .record import LEVELS, decide, record, record_overlapping
from .windows import HomeWindows

__all__ = ["AskExpertd", "found_in"]

# whose code decides what an answer is
_CODE = (HomeNNUNet, HomeAnswer, HomeWindows, Expert, Frame, Normalise, sample, record, record_overlapping)


class AskExpertd(Transform):
    """Ask an expert about ``image`` as stored; what remains of the case is the record of its answer.

    The expert is opened when it is asked for the first time: where all answers are there, it is not needed.

    Args:
        spec: the expert.
        folds: folds of an nnU-Net that answer together; the description's own when empty.
        mirroring: nnU-Nets answer for mirrored scans, too; None as the expert's home does.
        tile_step: step of nnU-Net's tiles as a share of the patch, 0 < step <= 1; None as the expert's home does.
        device: where it computes.

    Raises:
        ExpertError: when its files are missing, or are not those that were described.
    """

    def __init__(
        self,
        spec: ExpertSpec,
        *,
        folds: Sequence[int | str] = (),
        mirroring: bool | None = None,
        tile_step: float | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        check_unchanged(spec)
        self.spec, self.mirroring, self.tile_step, self.device = spec, mirroring, tile_step, torch.device(device)
        nnunet = spec.kind == "nnunet"
        self.folds = (tuple(folds) or spec.folds) if nnunet else ()
        self.files = [hash_expert(replace(spec, fold=f)) for f in self.folds] if nnunet else [hash_expert(spec)]
        self._home: HomeNNUNet | HomeWindows | None = None

    def chain_identity(self) -> dict[str, Any]:
        """What decides the answer: not the expert's name, nor where it lies, nor the device."""
        spec, nnunet = self.spec, self.spec.kind == "nnunet"
        own: dict[str, Any] = {"spacing": spec.spacing, "extra": spec.extra}
        if nnunet:
            own = {"mirroring": self.mirroring, "tile_step": self.tile_step, "configuration": spec.configuration,
                   "profile": spec.profile, "nnunetv2": version("nnunetv2")}  # fmt: skip
        return {"kind": spec.kind, "files": self.files, "orientation": spec.orientation, "channels": len(spec.channels),
                "structures": len(spec.labels), "exclusive": spec.labels.exclusive, "code": _CODE, **own}  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        """Without the opened expert: another process opens its own."""
        return {**self.__dict__, "_home": None}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``answer`` ``[S, X, Y, Z]`` uint8 on the ``grid`` of the case, and ``voxels`` of each structure.

        Args:
            data: ``image`` ``[C, ...]`` as stored, and ``grid`` with ``shape`` and ``affine`` of the student's volume.
        """
        if self._home is None:
            self._home = self._opened()
        grid = Grid(tuple(data["grid"]["shape"]), np.asarray(data["grid"]["affine"], dtype=np.float64))
        answer = self._home.answer(data["image"]).on(grid)
        return {"answer": answer, "voxels": found_in(answer, len(self.spec.labels), self.spec.labels.exclusive)}

    def release(self) -> None:
        """Let the opened expert go, and its memory with it; it is opened again when it is asked again."""
        self._home = None

    def _opened(self) -> HomeNNUNet | HomeWindows:
        device = self.device if get_worker_info() is None else torch.device("cpu")  # a forked process has no GPU
        if self.spec.kind != "nnunet":
            return HomeWindows(self.spec, device=device)
        check_claims(self.spec, open_source(self.spec))
        return HomeNNUNet(self.spec, self.folds, self.mirroring, self.tile_step, device)


def found_in(answer: torch.Tensor, structures: int, exclusive: bool) -> torch.Tensor:
    """Voxels ``[K]`` that an answer takes for each structure.

    Args:
        answer: ``[S, ...]`` uint8.
        structures: K.
        exclusive: whether they exclude each other.

    Raises:
        ExpertError: when the answer names a structure beyond K.
    """
    if not exclusive:
        return (answer > LEVELS // 2).flatten(1).sum(1)
    count = torch.bincount(decide(answer).flatten().long(), minlength=structures + 1)
    if len(count) > structures + 1:
        raise ExpertError("the answer names a structure that the expert does not know", got=len(count) - 1,
                          expected=f"0 .. {structures}")  # fmt: skip
    return count[1:]
