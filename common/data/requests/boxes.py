"""Boxes out of an annotation server's request, for networks whose prompts are boxes of named structures."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from ...errors import PromptError
from .prompts import box_corners, request_points

__all__ = ["RequestBoxesd", "structure_named"]


def structure_named(name: Any, structures: Sequence[str]) -> str | None:
    """The structure that a request means: servers and viewers write names in lower case or with underscores."""
    plain = {_plain(s): s for s in structures}
    return plain.get(_plain(str(name))) if name else None


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").strip()


class RequestBoxesd(Transform):
    """Write ``boxes`` ``{structure: [low corner, high corner]}``, voxels of the original image, from a request.

    A request of MONAI Label names the structure in hand as ``label``. Its box is ``roi`` ``[x0, x1, y0, y1, z0, z1]``,
    in any order; without one, the tight box of two or more clicks that extend along every axis: such a network reads no
    single points. Requests about several structures (type deepedit) hold each one's clicks under its own name. What
    could not be used is said in ``notes``.

    Args:
        structures: that the network knows.
        need_name: refuse a request about a structure that the network does not know.
        image: key of the image, whose ``meta`` still knows the original ``spatial_shape``.

    Raises:
        PromptError: for an unknown structure, or points and boxes of another length.
    """

    def __init__(self, structures: Sequence[str], need_name: bool = True, image: str = "image") -> None:
        self.structures, self.need_name, self.image = tuple(structures), need_name, image

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with the boxes, where there are any."""
        result = dict(data)
        named = {structure_named(key, self.structures): value for key, value in data.items() if isinstance(value, list)}
        clicks = {s: named[s] for s in self.structures if named.get(s)}
        target = structure_named(data.get("label"), self.structures)
        if target is None and self.need_name:
            raise PromptError("the network has no such structure", where="label", got=data.get("label"),
                              expected=", ".join(self.structures), hint="choose one of these segments")  # fmt: skip
        if target is not None and data.get("foreground"):
            clicks[target] = data["foreground"]
        boxes = {s: self._around(request_points(points, s), s, result) for s, points in clicks.items()}
        if target is not None and data.get("roi") is not None and len(data["roi"]) > 0:
            boxes[target] = box_corners(data["roi"], self._shape(data))
        found = {s: box for s, box in boxes.items() if box}
        return {**result, "boxes": found} if found else result

    def _around(self, points: list[list[float]], name: str, result: dict[Hashable, Any]) -> list[list[float]]:
        values = torch.tensor(points, dtype=torch.float64)
        low, high = values.amin(0), values.amax(0)
        if bool((high > low).all()):
            return [low.tolist(), high.tolist()]
        wanted = "a box around it is wanted, or two clicks at opposite corners"
        note = f"{name}: {wanted}; {len(points)} clicks were not used"
        result["notes"] = [*result.get("notes", []), note]
        return []

    def _shape(self, data: Mapping[Hashable, Any]) -> list[int]:
        image = data[self.image]
        if not isinstance(image, MetaTensor):
            raise PromptError("prompts need the image's grid", got=type(image).__name__, expected="a MetaTensor")
        return [int(n) for n in torch.as_tensor(image.meta["spatial_shape"]).flatten()[:3]]
