"""Prompts out of an annotation server's request, put where a promptable network's inferer finds them."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Transform

from ...errors import ConfigError, PromptError

__all__ = ["RequestPromptsd", "box_corners", "request_points"]

KEYS = ("foreground", "background", "roi")
ANSWERS = ("mask", "labels")


class RequestPromptsd(Transform):
    """Write ``image.meta["prompts"]`` and ``image.meta["answer"]`` from a request; other cases pass.

    A request of MONAI Label's type deepgrow (answer ``mask``) is about the one object named ``label``:
    ``foreground`` and ``background`` are lists of points, ``roi`` is a box ``[x0, x1, y0, y1, z0, z1]`` in any
    order, cut at the image's faces; all in voxels of the original image. Type deepedit (answer ``labels``) has a
    list of points under the name of each structure; those of ``background`` belong to none of them, and ``roi`` is
    of ``label``. Without a point inside and without a box there is nothing to answer yet.

    Args:
        image: key of the image, on its original grid.
        answer: ``mask`` or ``labels``.
        structures: for ``labels``, the names that points may have.

    Raises:
        ConfigError: for another answer.
        PromptError: for points or a box of another length.
    """

    def __init__(self, image: str = "image", answer: str = "mask", structures: Sequence[str] = ()) -> None:
        if answer not in ANSWERS:
            raise ConfigError("unknown choice", where="answer", got=answer, expected=", ".join(ANSWERS))
        self.image, self.answer = image, answer
        self.structures = {name.lower(): name for name in structures}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy whose image carries the prompts."""
        result = dict(data)
        if f"{self.image}_path" not in result and not any(key in result for key in KEYS):
            return result
        image = result[self.image]
        if not isinstance(image, MetaTensor):
            raise PromptError("prompts need the image's grid", got=type(image).__name__, expected="a MetaTensor")
        objects = self._one(result, image) if self.answer == "mask" else dict(self._several(result, image))
        image.meta["prompts"] = json.dumps(objects)
        image.meta["answer"] = self.answer
        return result

    @staticmethod
    def _one(data: Mapping[Hashable, Any], image: MetaTensor) -> dict[str, Any]:
        label = data.get("label")
        name = label if isinstance(label, str) and label else "object"
        inside, outside = (request_points(data.get(key), key) for key in KEYS[:2])
        own: dict[str, Any] = {"inside": inside, "outside": outside}
        if _given(data.get("roi")):
            own["box"] = box_corners(data["roi"], image.shape[1:])
        return {name: own} if inside or "box" in own else {}

    def _several(self, data: Mapping[Hashable, Any], image: MetaTensor) -> Iterator[tuple[str, dict[str, Any]]]:
        outside = request_points(data.get("background"), "background")
        for lower, name in self.structures.items():
            inside = request_points(data.get(lower) or data.get(name), name)
            own: dict[str, Any] = {"inside": inside, "outside": outside}
            if str(data.get("label")).lower() == lower and _given(data.get("roi")):
                own["box"] = box_corners(data["roi"], image.shape[1:])
            if inside or "box" in own:
                yield name, own


def _given(value: Any) -> bool:
    return value is not None and len(value) > 0


def request_points(given: Any, where: str) -> list[list[float]]:
    """The points ``[[x, y, z], ...]`` of a request's entry, which may be missing.

    Raises:
        PromptError: for points of another length.
    """
    points = [[float(c) for c in p] for p in given] if _given(given) else []
    if any(len(p) != 3 for p in points):
        raise PromptError("points are x, y, z", where=where, got=given)
    return points


def box_corners(roi: Sequence[float], shape: Sequence[int]) -> list[list[float]]:
    """Low and high corner of ``[x0, x1, y0, y1, z0, z1]``, in any order, cut at the faces of an image of ``shape``.

    Raises:
        PromptError: for another length.
    """
    if len(roi) != 6:
        raise PromptError("a region has two numbers per axis", where="roi", got=roi, expected="x0, x1, y0, y1, z0, z1")
    pairs = [sorted((float(roi[2 * a]), float(roi[2 * a + 1]))) for a in range(3)]
    cut = [[min(max(c, 0.0), shape[a] - 1.0) for c in pair] for a, pair in enumerate(pairs)]
    return [[pair[side] for pair in cut] for side in (0, 1)]
