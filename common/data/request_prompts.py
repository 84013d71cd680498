"""Prompts out of an annotation server's request, put where a promptable network's inferer finds them."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Transform

from ..errors import PromptError

__all__ = ["RequestPromptsd"]

KEYS = ("foreground", "background", "roi")


class RequestPromptsd(Transform):
    """Write ``image.meta["prompts"]`` and ``image.meta["answer"] = "mask"`` from a request; other cases pass.

    A request of MONAI Label (type deepgrow) is about the one object named ``label``: ``foreground`` and ``background``
    are lists of points, ``roi`` is a box ``[x0, x1, y0, y1, z0, z1]`` in any order, cut at the image's faces; all in
    voxels of the original image. Without a point inside and without a box there is nothing to answer yet.

    Args:
        image: key of the image, on its original grid.

    Raises:
        PromptError: for points or a box of another length.
    """

    def __init__(self, image: str = "image") -> None:
        self.image = image

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy whose image carries the prompts."""
        result = dict(data)
        if f"{self.image}_path" not in result and not any(key in result for key in KEYS):
            return result
        image = result[self.image]
        if not isinstance(image, MetaTensor):
            raise PromptError("prompts need the image's grid", got=type(image).__name__, expected="a MetaTensor")
        label = result.get("label")
        name = label if isinstance(label, str) and label else "object"
        inside, outside = (_points(result.get(key), key) for key in KEYS[:2])
        own: dict[str, Any] = {"inside": inside, "outside": outside}
        if _given(result.get("roi")):
            own["box"] = _corners(result["roi"], image.shape[1:])
        image.meta["prompts"] = json.dumps({name: own} if inside or "box" in own else {})
        image.meta["answer"] = "mask"
        return result


def _given(value: Any) -> bool:
    return value is not None and len(value) > 0


def _points(given: Any, key: str) -> list[list[float]]:
    points = [[float(c) for c in p] for p in given] if _given(given) else []
    if any(len(p) != 3 for p in points):
        raise PromptError("points are x, y, z", where=key, got=given)
    return points


def _corners(roi: Sequence[float], shape: Sequence[int]) -> list[list[float]]:
    if len(roi) != 6:
        raise PromptError("a region has two numbers per axis", where="roi", got=roi, expected="x0, x1, y0, y1, z0, z1")
    pairs = [sorted((float(roi[2 * a]), float(roi[2 * a + 1]))) for a in range(3)]
    cut = [[min(max(c, 0.0), shape[a] - 1.0) for c in pair] for a, pair in enumerate(pairs)]
    return [[pair[side] for pair in cut] for side in (0, 1)]
