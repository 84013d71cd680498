"""One box per picture, as a prompt for networks that were trained with boxes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from torch import Tensor

from ...errors import ConfigError, PromptError
from ..datasets.dataset_json import case_name

__all__ = ["PictureBoxd", "box_of"]

SOURCES = ("gt", "user", "none")


def box_of(mask: Tensor) -> Tensor:
    """First and last pixel of a mask ``[X, Y]`` along both axes, ``[2, 2]``; of an empty one the whole picture."""
    corners = []
    for axis, size in enumerate(mask.shape):
        hit = torch.nonzero(mask.any(1 - axis)).flatten().tolist() or [0, size - 1]
        corners.append([hit[0], hit[-1]])
    return torch.tensor(corners, dtype=torch.float32).T.contiguous()


class PictureBoxd(Transform):
    """Write ``box`` ``[2, 2]``: low and high corner in pixels of the preprocessed picture.

    Args:
        source: ``gt``: around everything in the label map (an *oracle*, to be reported as such; the whole picture where
            there is nothing); ``user``: the entry ``box`` of the case, else the configuration's, in pixels of the file;
            ``none`` writes nothing.
        box: ``[[x, y], [x, y]]``, low corner first, for cases that have none of their own.
        image: key of the preprocessed picture ``[C, X, Y]``.
        label: key of the label map ``[1, X, Y]``, in any size.

    Raises:
        ConfigError: for an unknown source.
        PromptError: for a missing box, one without extent, or one outside the picture.
    """

    def __init__(
        self,
        source: str = "none",
        box: Sequence[Sequence[float]] | None = None,
        image: str = "image",
        label: str = "label",
    ) -> None:
        if source not in SOURCES:
            raise ConfigError("unknown choice", where="box_source", got=source, expected=", ".join(SOURCES))
        self.source, self.box, self.image, self.label = source, box, image, label

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with the box."""
        result = dict(data)
        if self.source == "none":
            result.pop("box", None)
            return result
        image = result[self.image]
        if self.source == "gt":
            label = torch.as_tensor(result[self.label])[0]
            box, size = box_of(label > 0), tuple(label.shape)
        else:
            meta = image.meta if isinstance(image, MetaTensor) else {}
            size = tuple(int(n) for n in np.ravel(meta.get("spatial_shape", image.shape[1:])))
            box = _checked(result.get("box", self.box), size, f"case {case_name(data)}")
        scale = torch.tensor([own / n for own, n in zip(image.shape[1:], size, strict=True)])
        result["box"] = torch.stack([box[0] * scale, (box[1] + 1) * scale - 1])
        return result


def _checked(given: Any, size: tuple[int, ...], where: str) -> Tensor:
    expected = f"[[x, y], [x, y]], low corner first, below {list(size)}"
    if given is None:
        problem = "the network was trained with boxes and the case has none"
        raise PromptError(problem, where=where, expected=expected, hint="for example --box [[10,20],[200,180]]")
    box = torch.as_tensor(given, dtype=torch.float32)
    if box.shape != (2, 2) or not bool(torch.isfinite(box).all()):
        raise PromptError("a box has two corners of x, y", where=where, got=given, expected=expected)
    if bool((box[1] <= box[0]).any()):
        raise PromptError("a box has no extent, or swapped corners", where=where, got=given, expected=expected)
    if bool((box < 0).any()) or bool((box[1] >= torch.tensor(size)).any()):
        raise PromptError("a box leaves the picture", where=where, got=given, expected=expected)
    return box
