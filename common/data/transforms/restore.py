"""Back to the patient: label maps on the input's own grid, one file per case."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Invertd, InvertibleTransform, MapTransform, SaveImaged, Transform

from ...errors import DataError, GeometryError
from ...geometry import Grid
from ...overridden import keep_record
from ...scan_fit import OVERRIDDEN
from ..datasets.dataset_json import case_name
from ..io import write_label_map

__all__ = ["KeepOverriddend", "RestoreGridd", "SavePredictiond"]


class RestoreGridd(MapTransform):
    """Undo orientation, spacing, cropping and padding on an integer label map (nearest neighbour).

    Args:
        keys: label maps ``[1, X, Y, Z]`` on the network's grid.
        transform: the preprocessing chain that made the image (in JSON ``"@preprocessing"``).
        orig_key: the image whose transform history is undone.
        interpolate: resample as the image was, for maps ``[C, X, Y, Z]`` of real numbers.

    Raises:
        GeometryError: when the result has not the original shape.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: InvertibleTransform,
        orig_key: str = "image",
        allow_missing_keys: bool = False,
        interpolate: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.orig_key = orig_key
        self.invert = Invertd(
            keys=self.keys,
            transform=transform,
            orig_keys=orig_key,
            nearest_interp=not interpolate,
            to_tensor=True,
            allow_missing_keys=allow_missing_keys,
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy whose label maps lie on the original grid, with the original affine."""
        result: dict[Hashable, Any] = dict(data)
        for key in self.key_iterator(result):  # MONAI leaves a tensor without metadata where it is
            result[key] = result[key] if isinstance(result[key], MetaTensor) else MetaTensor(result[key])
        result = dict(self.invert(result))
        meta = data[self.orig_key].meta if isinstance(data[self.orig_key], MetaTensor) else {}
        for key in self.key_iterator(result):
            restored = result[key]
            expected = tuple(int(n) for n in np.ravel(meta.get("spatial_shape", restored.shape[1:])))
            if tuple(restored.shape[1:]) != expected[: restored.ndim - 1]:
                raise GeometryError(
                    "the label map could not be put back on the image's grid",
                    where=f"case {case_name(data, self.orig_key)}",
                    got=tuple(restored.shape[1:]),
                    expected=expected,
                    hint="give RestoreGridd the same transform object that loaded the image",
                )
            if isinstance(restored, MetaTensor) and meta.get("original_affine") is not None:
                restored.affine = torch.as_tensor(np.asarray(meta["original_affine"], dtype=np.float64))
        return result


class SavePredictiond(SaveImaged):
    """Write label maps as ``<output_dir>/[<task>/]<case><suffix><extension>``, complete or not at all.

    Where the model's card was not obeyed, ``<file>.record.json`` beside it says what was gone on with.

    Nothing of MONAI's ``SaveImaged`` but its name is used: apps that write results themselves (MONAI Label) leave such
    transforms out, and would be told that two cases write one file when they answer a scan twice.

    Args:
        keys: label maps ``[1, X, Y, Z]`` on the grid of their affine.
        output_dir: folder, made when needed.
        dtype: integer type of the file.
        suffix: put between the case's id and the extension.
        extension: ``.nii.gz``, ``.nii``, ``.nrrd``, ``.mha`` or ``.png`` (2-D).
        by_task: use one folder per task where the case names one (ids may repeat between datasets).

    Raises:
        DataError: when two cases of a run would get one file name.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | Path,
        dtype: str = "uint8",
        suffix: str = "",
        extension: str = ".nii.gz",
        by_task: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.output_dir, self.dtype, self.suffix = Path(output_dir), dtype, suffix
        self.extension, self.by_task = extension, by_task
        self.written: dict[Path, str] = {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with ``<key>_file``, the path that was written."""
        result = dict(data)
        for key in self.key_iterator(dict(data)):
            case = case_name(data)
            folder = self.output_dir / str(data["task"]) if self.by_task and data.get("task") else self.output_dir
            path = folder / f"{Path(case).name}{self.suffix}{self.extension}"
            source = str(data[key].meta.get("filename_or_obj", "")) if isinstance(data[key], MetaTensor) else ""
            self._claim(path, source or case)
            write_label_map(_single_channel(data[key], case), _grid(data[key]), path, self.dtype)
            keep_record(path, str(data.get(OVERRIDDEN) or ""))
            result[f"{key}_file"] = str(path)
        return result

    def _claim(self, path: Path, source: str) -> None:
        if path in self.written:
            raise DataError(
                "two cases would be written to one file",
                where=path,
                got=f"{self.written[path]} and {source}",
                expected="one id per case",
                hint='give the cases different "id" entries, or rename the files',
            )
        self.written[path] = source


class KeepOverriddend(Transform):
    """Write ``<output_dir>/<case>.record.json`` where the model's card was not obeyed, for answers that MONAI writes.

    Args:
        output_dir: folder, made when needed.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.output_dir = Path(output_dir)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary as it is."""
        said = str(data.get(OVERRIDDEN) or "")
        if said:
            self.output_dir.mkdir(parents=True, exist_ok=True)
        keep_record(self.output_dir / Path(case_name(data)).name, said)
        return dict(data)


def _single_channel(label: Any, case: str) -> Any:
    array = label.detach().cpu().numpy() if isinstance(label, torch.Tensor) else np.asarray(label)
    if array.shape[0] != 1:
        raise DataError(
            "a prediction to save must be one integer label map",
            where=f"case {case}",
            got=f"shape {array.shape}",
            expected="[1, X, Y, Z]",
            hint="put AsDiscreted(argmax=True) before it",
        )
    return array[0]


def _grid(label: Any) -> Grid:
    if isinstance(label, MetaTensor):
        return Grid.of(label)
    return Grid(tuple(label.shape[1:]), np.eye(4))
