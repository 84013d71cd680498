"""What an annotation server is told besides the label map: type and format of the file, volumes, remarks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from ...errors import LabelError
from .boxes import structure_named

__all__ = ["AskedObjectd", "DescribeAnswerd"]


class AskedObjectd(Transform):
    """Keep the one structure that a request asks for: 1 inside, 0 elsewhere.

    Args:
        structures: K names; the label map ``[1, ...]`` holds i for the i-th, 1 first.
        key: of the label map.

    Raises:
        LabelError: for a structure that is none of them.
    """

    def __init__(self, structures: Sequence[str], key: str = "pred") -> None:
        self.structures, self.key = tuple(structures), key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with the mask."""
        name = structure_named(data.get("label"), self.structures)
        if name is None:
            problem = "the network has no such structure"
            raise LabelError(problem, where="label", got=data.get("label"), expected=", ".join(self.structures))
        found = data[self.key]
        return {**data, self.key: (found == self.structures.index(name) + 1).to(found)}


class DescribeAnswerd(Transform):
    """Write what MONAI Label hands on with a label map: ``result``, ``result_dtype`` and ``result_extension``.

    ``result`` has the ``volumes_ml`` of the structures found (``areas_px`` in a picture) and the ``notes`` of the
    transforms before. The file's type is only set where the request leaves it open; a DICOM series has no extension of
    its own, and JPEG would not keep labels. A picture's map loses its channel, which the server would take for an axis.

    Args:
        structures: K names of the label map's values, 1 first.
        extension: of files whose request names none.
        mask: the map holds 1 for the object named in the request as ``label``, whatever its name.
        key: of the label map ``[1, ...]`` on the image's own grid.

    Raises:
        LabelError: for a label map of several channels.
    """

    def __init__(
        self, structures: Sequence[str], extension: str = ".nii.gz", mask: bool = False, key: str = "pred"
    ) -> None:
        self.structures, self.extension, self.mask, self.key = tuple(structures), extension, mask, key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with the entries."""
        found = data[self.key]
        if found.shape[0] != 1:
            raise LabelError("an answer is one map of labels", got=tuple(found.shape), expected="[1, ...]")
        names = (str(data.get("label") or "object"),) if self.mask else self.structures
        counts = torch.bincount(torch.as_tensor(found).flatten().long().cpu(), minlength=len(names) + 1).tolist()
        flat = found.ndim == 3
        unit = 1.0 if flat else self._millilitres(found)
        sizes = {n: round(c * unit, 3) for n, c in zip(names, counts[1:], strict=False) if c}
        result = {**(data.get("result") or {}), "areas_px" if flat else "volumes_ml": sizes}
        if data.get("notes"):
            result["notes"] = list(data["notes"])
        dtype = data.get("result_dtype") or ("uint8" if max(len(counts) - 1, len(names)) < 256 else "uint16")
        extension = data.get("result_extension") or self.extension
        told: dict[Hashable, Any] = {"result": result, "result_dtype": dtype, "result_extension": extension}
        return {**data, **told, self.key: found[0] if flat else found}

    @staticmethod
    def _millilitres(found: Any) -> float:
        affine = np.asarray(found.affine) if isinstance(found, MetaTensor) else np.eye(4)
        return float(abs(np.linalg.det(affine[:3, :3]))) / 1000
