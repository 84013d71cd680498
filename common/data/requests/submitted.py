"""Label maps that were corrected in a viewer and kept by an annotation server, for a training on them."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import ResampleToMatch, Transform
from torch import Tensor

from ...errors import GeometryError, LabelError
from ...geometry import Grid
from ...labels import LabelSpace
from ...plain_json import read_object
from ..datasets.dataset_json import base_name, case_name
from ..io import read_volume
from .boxes import structure_named

__all__ = ["ServerLabeld", "annotated_by", "segment_names"]

logger = logging.getLogger(__name__)
RECORDS = "datastore_v2.json"


class ServerLabeld(Transform):
    """Read ``label``, give its values the network's numbers, and bring it onto the grid of the preprocessed image.

    A viewer numbers the segments in the order in which they lie in its scene, and sends their names along; MONAI Label
    keeps these in a file that its training does not read. They are read here: values go by name, and a segment that the
    network does not know is refused. Label maps without names hold the network's own numbers.

    Adds ``annotated`` bool ``[K+1]`` and ``case``.

    Args:
        labels: structures of the network.
        annotated: names of those that these studies annotate; all when None.
        image: key of the preprocessed image, whose ``meta`` still knows the original grid.
        match: bring the label map onto the image's grid; False leaves it on its own.

    Raises:
        GeometryError: when image and label map do not lie on one grid.
        LabelError: for values or segment names that the network does not have, or that are not annotated.
    """

    def __init__(
        self, labels: LabelSpace, annotated: Sequence[str] | None = None, image: str = "image", match: bool = True
    ) -> None:
        self.labels, self.image = labels, image
        self.known = np.ones(labels.num_classes, bool)
        if annotated is not None:
            self.known[1:] = [name in annotated for name in labels.names]
        self.resample = ResampleToMatch(mode="nearest", padding_mode="zeros") if match else None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with ``label`` ``[1, X, Y, Z]`` (float32), ``annotated`` and ``case``."""
        result, image, path = dict(data), data[self.image], str(data["label"])
        where = f"case {case_name(data)}, {path}"
        flat = image.ndim == 3
        label = read_volume(path, dim=2 if flat else 3)
        if not flat:
            _same_grid(image, label, where)
        elif tuple(label.shape[1:]) != tuple(int(n) for n in image.meta["spatial_shape"]):
            raise GeometryError("picture and label map differ in size", where=where, got=tuple(label.shape[1:]))
        found = MetaTensor(self._numbered(label, path, where)).copy_meta_from(label)
        if self.resample is not None:
            found = self.resample(found, img_dst=image)
        return {**result, "label": found, "annotated": torch.from_numpy(self.known.copy()), "case": case_name(data)}

    def _numbered(self, label: MetaTensor, path: str, where: str) -> Tensor:
        plain = label.as_tensor()
        values = [int(v) for v in torch.unique(plain).tolist() if v == int(v)]
        if len(values) != len(torch.unique(plain)):
            raise LabelError("the label map holds fractional values", where=where, expected="integers")
        table = self._table(segment_names(path), where)
        wrong = [v for v in values if v not in table or not self.known[table[v]]]
        if wrong:
            names = ("background", *self.labels.names)
            problem = "the label map holds what the network does not learn here"
            expected = {v: names[i] for v, i in table.items() if self.known[i]}
            hint = "remove these segments in the viewer, and submit again"
            raise LabelError(problem, where=where, got=wrong, expected=expected, hint=hint)
        numbered = torch.zeros_like(plain)
        for value in values:
            numbered[plain == value] = table[value]
        return numbered

    def _table(self, segments: Sequence[str], where: str) -> dict[int, int]:
        if not segments:
            return {i: i for i in range(self.labels.num_classes)}
        table = {0: 0}
        for value, name in enumerate(segments, start=1):
            known = structure_named(name, self.labels.names)
            if known is not None:
                table[value] = self.labels.index(known)
            else:
                logger.warning("%s: segment %d, %r, is none of the network's", where, value, name)
        return table


def annotated_by(heads: Mapping[str, Sequence[str]], head: str | None) -> Sequence[str]:
    """Structures of the head that is trained, of the first when none is named.

    Raises:
        LabelError: for a head that the network does not have.
    """
    name = head or next(iter(heads))
    if name not in heads:
        raise LabelError("the network has no such head", got=name, expected=", ".join(heads))
    return heads[name]


def segment_names(label: str | Path) -> list[str]:
    """Names of a label map's segments, 1 first, as the viewer that submitted it gave them; empty when it gave none.

    Args:
        label: ``<studies>/labels/<tag>/<image>.<extension>`` of a MONAI Label server.
    """
    path = Path(label)
    records = path.parent.parent.parent / RECORDS
    try:
        objects = read_object(records, error=LabelError, finite=False)["objects"]
        info = objects[base_name(path)]["labels"][path.parent.name]["info"]["label_info"]
        return [str(segment["name"]) for segment in info]
    except (LabelError, KeyError, TypeError):
        return []


def _same_grid(image: MetaTensor, label: MetaTensor, where: str) -> None:
    affine, shape = image.meta["original_affine"], image.meta["spatial_shape"]
    given = Grid(tuple(int(n) for n in np.ravel(shape)[:3]), np.asarray(affine, dtype=np.float64))
    difference = given.difference(Grid.of(label))
    if difference:
        raise GeometryError(
            f"image and label map do not lie on one grid: {difference}", where=where, got=Grid.of(label), expected=given
        )
