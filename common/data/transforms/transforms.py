"""MONAI dictionary transforms that know tasks, label spaces and grids; all picklable."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Spacingd, Transform

from ...contract import Contract
from ...errors import DataError, GeometryError, LabelError
from ...geometry import Grid
from ...labels import LabelSpace
from ..datasets.datalist import Collection, read_collection
from ..datasets.dataset_json import case_name
from ..datasets.naming import known_part

__all__ = ["CheckGridsd", "CopyRawd", "DescribeCased", "MapLabelsd", "SafeSpacingd"]

logger = logging.getLogger(__name__)

DatasetDir = str | Path | Sequence[str | Path] | Collection


class DescribeCased(Transform):
    """Add ``case``, ``task``, ``task_id``, ``annotated``, ``modality`` and ``modality_id`` to a case's dictionary.

    Without ``task`` (MONAI Label gives only ``image`` and ``label``) the default task is taken. The label maps of
    such cases come from corrected predictions, so that their values are the union's indices and every structure is
    annotated; ``default_values="task"`` reads them as files of the default task instead.

    Args:
        dataset_dir: anything that ``read_collection`` reads.
        default_task: task of cases without one; may be None for a collection of one dataset.
        default_values: meaning of label values in cases without a task, ``"union"`` or ``"task"``.
        labels: a network's label space, when it is not the collection's own union.
        modalities: a network's modalities, of which each case must have one; the collection's when None.
        contract: of a trained model: structures that it lacks, or was not taught on a case's modality, are not
            annotated, so that no score counts them.
        modality: what all cases are, whatever their data set calls it; what it says when None.

    Raises:
        LabelError: when the collection has structures that ``labels`` lacks; with a contract, when it has no other, or
            one that is spelt in another way.
        DataError: when the contract knows no such ``modality``; when the task is unknown, or missing without a default;
            when the modality is none of the network's.
    """

    def __init__(
        self,
        dataset_dir: DatasetDir,
        default_task: str | None = None,
        default_values: str = "union",
        labels: LabelSpace | None = None,
        modalities: Sequence[str] | None = None,
        contract: Contract | None = None,
        modality: str | None = None,
    ) -> None:
        collection = read_collection(dataset_dir)
        if modality and contract is not None:
            for note in contract.fit(None, modality, where="modality").notes:
                logger.warning(note)
        self.modality = modality
        self.modalities = tuple(collection.modalities if modalities is None else modalities)
        self.any_modality = modalities is None
        self.only_modality = {
            d.name: names[0]
            for d in collection.datasets
            if len(names := list(dict.fromkeys(map(d.modality_of, d.cases())))) == 1
        }
        space = labels or collection.labels
        if default_values not in ("union", "task"):
            raise DataError("default_values must be 'union' or 'task'", got=default_values)
        if default_task is None and len(collection.tasks) == 1:
            default_task = collection.tasks[0]
        if default_task is not None:
            collection.dataset(default_task)
        self.tasks, self.default_task, self.default_values = collection.tasks, default_task, default_values
        known = {d.name: d.labels if contract is None else known_part(d.labels, space, where=d.name)
                 for d in collection.datasets}  # fmt: skip
        self.annotated = {name: space.annotated(part) for name, part in known.items()}
        self.space, self.contract = space, contract
        for dataset in collection.datasets if contract is not None and not contract.taught else ():
            if left := [n for n in dataset.labels.names if n not in space.names]:
                logger.warning("%s: the model has no %s: not scored", dataset.name, ", ".join(left))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with ``case`` str, ``task`` str, ``task_id`` int, ``annotated`` bool ``[K+1]``.

        ``modality`` str and ``modality_id`` int are added where the case, or its dataset, has one.
        """
        result = dict(data)
        result["case"] = case_name(data)
        task = data.get("task", self.default_task)
        if task not in self.tasks:
            raise DataError(
                "the case names no known task",
                where=f"case {result['case']}",
                got=task,
                expected=", ".join(self.tasks),
                hint="set default_task in the config",
            )
        annotated = torch.from_numpy(self.annotated[task].copy())
        if "task" not in data and self.default_values == "union":
            annotated = torch.ones_like(annotated)
            result["label_values"] = "union"
        result.update(task=task, task_id=self.tasks.index(task), annotated=annotated)
        modality = self.modality or data.get("modality", self.only_modality.get(str(task)))
        if modality is not None:
            result["modality"] = modality
            if modality in self.modalities:
                result["modality_id"] = self.modalities.index(modality)
            elif not self.any_modality:
                raise DataError(
                    "the case's modality is none of the network's",
                    where=f"case {result['case']}",
                    got=modality,
                    expected=", ".join(self.modalities),
                    hint='rename it: "modality" of the case in dataset.json, or of the task in collection.json',
                )
            taught = self.contract.taught_on([str(modality)]) if self.contract else None
            if taught is not None:
                annotated &= torch.tensor([True, *(n in taught for n in self.space.names)])
        return result


class MapLabelsd(MapTransform):
    """Replace a label file's values by the indices of the collection's united label space.

    ``y[v] = index(name of x[v])``, matched by name, so that equal organs of different datasets get one index.

    Args:
        keys: label maps of integer value, any shape.
        dataset_dir: anything that ``read_collection`` reads.
        labels: a network's label space, when it is not the collection's own union; what it lacks is background to it:
            :class:`DescribeCased`, which stands before, refuses a structure that may not be lacking.

    Raises:
        LabelError: for fractional, non-finite or undeclared values, with case, file and values.
    """

    def __init__(
        self,
        keys: KeysCollection,
        dataset_dir: DatasetDir,
        allow_missing_keys: bool = False,
        labels: LabelSpace | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        collection = read_collection(dataset_dir)
        union = labels or collection.labels
        self.lookup = {d.name: union.lookup(d.labels) for d in collection.datasets}
        self.names = {d.name: d.labels.to_json() for d in collection.datasets}
        self.union = {i: i for i in range(union.num_classes)}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy whose label maps hold union indices in their former dtype."""
        result = dict(data)
        for key in self.key_iterator(result):
            task = self._task(result)
            table = self.union if result.get("label_values") == "union" else self.lookup[task]
            result[key] = self._mapped(result[key], table, task, f"case {case_name(result)}")
        return result

    def _task(self, data: Mapping[Hashable, Any]) -> str:
        task = data.get("task", next(iter(self.lookup)) if len(self.lookup) == 1 else None)
        if task not in self.lookup:
            raise LabelError(
                "the label map's task is unknown",
                where=f"case {case_name(data)}",
                got=task,
                expected=", ".join(self.lookup),
                hint="put DescribeCased before MapLabelsd",
            )
        return str(task)

    def _mapped(self, label: Any, table: dict[int, int], task: str, where: str) -> Any:
        tensor = torch.as_tensor(label)
        plain = tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
        file = label.meta.get("filename_or_obj") if isinstance(label, MetaTensor) else None
        where = f"{where}, {file}" if file else where
        whole = plain.round().to(torch.int64) if plain.is_floating_point() else plain.to(torch.int64)
        if plain.is_floating_point() and not bool((whole == plain).all()):
            bad = torch.unique(plain[whole != plain])[:5].tolist()
            raise LabelError(
                "the label map holds fractional or non-finite values",
                where=where,
                got=bad,
                expected="integers",
                hint="it was probably resampled with interpolation: export it again with nearest neighbour",
            )
        present = torch.unique(whole).tolist()
        unknown = [v for v in present if v not in table]
        if unknown:
            raise LabelError(
                "the label map holds undeclared values",
                where=where,
                got=unknown[:10],
                expected=self.names[task] if table is not self.union else sorted(table),
                hint="declare them in dataset.json, or remove them from the label map",
            )
        mapped = torch.zeros(max(present) + 1, dtype=plain.dtype)
        for value in present:
            mapped[value] = table[value]
        mapped_label = mapped.to(plain.device)[whole]
        return MetaTensor(mapped_label).copy_meta_from(label) if isinstance(label, MetaTensor) else mapped_label


class CheckGridsd(MapTransform):
    """Refuse a case whose volumes do not lie on one grid, before anything is resampled.

    Args:
        keys: MetaTensors ``[C, X, Y, Z]`` to compare with the first present one.
        tol_mm: largest distance between corresponding corner voxels in mm; 5 % of the smallest spacing when None.

    Raises:
        GeometryError: with the case, both files and both grids.
    """

    def __init__(
        self, keys: KeysCollection = ("image", "label"), tol_mm: float | None = None, allow_missing_keys: bool = True
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.tol_mm = tol_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary as it is."""
        present = [k for k in self.key_iterator(dict(data)) if isinstance(data[k], MetaTensor)]
        grids = {k: Grid.of(data[k]) for k in present}
        for key in present[1:]:
            first = grids[present[0]]
            difference = first.difference(grids[key], self.tol_mm)
            if difference:
                raise GeometryError(
                    f"{present[0]} and {key} do not lie on one grid: {difference}",
                    where=f"case {case_name(data)}, {data[key].meta.get('filename_or_obj', 'no file')}",
                    got=f"{key}: {grids[key]}",
                    expected=f"{present[0]}: {first}",
                    hint="resample the label map onto the image's grid; list all such cases with: "
                    "python -m tools data check",
                )
        return dict(data)


class SafeSpacingd(Spacingd):
    """MONAI's ``Spacingd`` that leaves string entries such as ``image_path`` alone and predicts the output's size.

    MONAI >= 1.6.0 updates every ``<key>_*`` entry as if it were metadata, which breaks inside MONAI Label.

    Args:
        max_voxels: refuse to resample a volume to more voxels than this.
        kwargs: as for ``Spacingd``.

    Raises:
        GeometryError: when the resampled volume would be larger than ``max_voxels``.
    """

    def __init__(self, keys: KeysCollection, pixdim: Any, *args: Any, max_voxels: float = 1e9, **kwargs: Any) -> None:
        super().__init__(keys, pixdim, *args, **kwargs)
        self.pixdim, self.max_voxels = pixdim, max_voxels

    def __call__(self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None) -> dict[Hashable, torch.Tensor]:
        """Resample the keys; other entries pass through."""
        rest: dict[Hashable, Any] = dict(data)
        for key in self.key_iterator(rest):
            self._check_size(rest, key)
        prefixes = tuple(f"{key}_" for key in self.keys)
        held = {
            k: rest.pop(k)
            for k in list(rest)
            if isinstance(k, str) and k.startswith(prefixes) and not isinstance(rest[k], dict) and k not in self.keys
        }
        result: dict[Hashable, Any] = super().__call__(rest, lazy)
        result.update(held)
        return result

    def _check_size(self, data: Mapping[Hashable, Any], key: Hashable) -> None:
        if not isinstance(data[key], MetaTensor):
            return
        grid = Grid.of(data[key])
        given = np.ravel(np.asarray(self.pixdim, dtype=float)).tolist()
        spacing = [*given, 1.0, 1.0][: len(grid.shape)]
        shape = grid.resampled_shape(spacing)
        if float(np.prod(shape, dtype=float)) > self.max_voxels:
            raise GeometryError(
                "resampling would need too much memory",
                where=f"case {case_name(data)}",
                got=f"{grid} to {tuple(spacing)} mm gives {shape} voxels",
                expected=f"at most {self.max_voxels:.0f} voxels",
                hint="correct the spacing in the header, or choose a coarser spacing",
            )


class CopyRawd(Transform):
    """Copy the image before it is normalised, for experts that normalise in their own way.

    Args:
        key: entry to copy.
        output: name of the copy; gets the same geometry and transform history.
    """

    def __init__(self, key: str = "image", output: str = "raw") -> None:
        self.key, self.output = key, output

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with ``output`` ``[C, X, Y, Z]``."""
        return {**data, self.output: data[self.key].clone()}
