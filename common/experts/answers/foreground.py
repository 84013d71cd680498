"""Which voxels of a scan without a label map are structures: what the experts say that read it."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor

from ...data.datasets.datalist import Collection, read_collection
from ...data.datasets.dataset import Dataset
from ...data.datasets.dataset_json import Case
from ...data.store.chain import digest
from ...data.store.place import Store
from ...data.transforms.loading import LoadCased
from ...errors import DataError
from ...labels import LabelSpace
from ..fit import reads
from ..spec import ExpertSpec, read_manifest
from .cases import fitting_experts
from .kept import StoredAnswers
from .teaching import Judge
from .together import one_map

__all__ = ["AnsweredForeground"]


class AnsweredForeground:
    """Label maps of scans on their own grids, made of the answers of all experts that read them.

    A planner asks for some of them where it needs intensities of structures and no label map shows any. Answers are
    kept in the store: an expert is asked about a scan once.

    Args:
        experts: ``experts.json``, or descriptions.
        labels: the student's structures, which exclude each other.
        dataset_dir: the collection that the scans are of.
        store: where the answers lie.
        use: as of :class:`.cases.AnsweredCases`.
        regions: also.
        folds: also.
        mirroring: also.
        tile_step: also.
        device: also.
        ignore_card: also.
    """

    def __init__(
        self,
        *,
        experts: str | Path | Sequence[ExpertSpec],
        labels: LabelSpace,
        dataset_dir: str | Path | Sequence[str | Path] | Collection,
        store: Store,
        use: Sequence[str] = ("task", "external"),
        regions: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
        folds: Sequence[int | str] = (),
        mirroring: bool | None = None,
        tile_step: float | None = None,
        device: torch.device | str = "cpu",
        ignore_card: bool = False,
    ) -> None:
        self.experts, self.use, self.labels, self.dataset_dir = experts, tuple(use), labels, dataset_dir
        self.regions, self.ignore_card = regions or {}, ignore_card
        self.options: dict[str, Any] = {"folds": folds, "mirroring": mirroring, "tile_step": tile_step}
        self.device = torch.device(device)
        self.store = copy.copy(store)
        if self.device.type == "cuda":
            self.store.workers = 0  # a forked process has no GPU

    @property
    def specs(self) -> list[ExpertSpec]:
        """The experts that may be asked."""
        experts = self.experts
        found = read_manifest(experts) if isinstance(experts, (str, Path)) else list(experts)
        return [s for s in found if s.role in self.use]

    @property
    def identity(self) -> str:
        """What decides the answers: a plan that was made of others is made again."""
        told = [[s.name, s.kind, s.sha256, s.orientation, s.channels, list(s.labels.names)] for s in self.specs]
        return digest([told, self.labels.names, dict(self.regions), self.options, self.ignore_card])

    def __call__(self, case: Case) -> MetaTensor:
        """The student's class of each voxel ``[1, X, Y, Z]``, 0 where no expert says a structure or none reads it.

        Args:
            case: of the collection; its label map is not looked at.

        Raises:
            DataError: for a scan of another collection.
        """
        collection = read_collection(self.dataset_dir)
        dataset = _dataset_of(collection, case)
        files = [str(p) for p in case.images]
        item: dict[Hashable, Any] = {"image": files if len(files) > 1 else files[0], "case": case.id,
                                     "task": dataset.name}  # fmt: skip
        image = LoadCased(keys="image")(item)["image"]
        grid = {"shape": [int(n) for n in image.shape[1:]], "affine": image.affine.double().tolist()}
        heard = [(self._asked(s, item, grid), judge) for s, judge in self._readers(collection, dataset, case)]
        found = torch.zeros(grid["shape"], dtype=torch.int64)
        if heard:
            found = one_map([a for a, _ in heard], [j for _, j in heard], self.labels.names).classes
        return MetaTensor(found[None], affine=image.affine)

    def _readers(self, collection: Collection, dataset: Dataset, case: Case) -> list[tuple[ExpertSpec, Judge]]:
        modality = dataset.modality_of(case)
        fitting = fitting_experts(self.specs, collection, self.labels, self.regions, self.ignore_card)
        return [(s, j) for s, j in fitting if (s.role == "task" and s.task == dataset.name)
                or reads(s, dataset.channels, modality, ignore_card=self.ignore_card)]  # fmt: skip

    def _asked(self, spec: ExpertSpec, item: Mapping[Hashable, Any], grid: Mapping[str, Any]) -> torch.Tensor:
        kept = StoredAnswers([item], [grid], spec, store=self.store, device=self.device, **self.options)
        answer = kept.case(0)["answer"]
        return torch.as_tensor(answer.whole() if hasattr(answer, "whole") else answer)


def _dataset_of(collection: Collection, case: Case) -> Dataset:
    for dataset in collection.datasets:
        if any(c.images == case.images for c in dataset.cases()):
            return dataset
    raise DataError("the scan is none of the collection's", where=f"case {case.id}", got=str(case.images[0]),
                    expected=", ".join(collection.tasks))  # fmt: skip
