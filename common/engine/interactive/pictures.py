"""What a session looked like at each prompt: three planes through the click, as outlines over grey slices."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image
from skimage.measure import approximate_polygon, find_contours
from torch import Tensor

from ...overlap import dice_of_each
from .object_windows import ObjectState
from .rehearse import on_network_grid
from .session import Event, Session

__all__ = ["Frame", "Mark", "PlaneView", "outline", "session_frames"]

Rectangle = tuple[float, float, float, float]
PLANES = (("axial", 2), ("coronal", 1), ("sagittal", 0))
_SOFT_TISSUE = (-160.0, 240.0)
_CLOSE, _MARGIN = 1.5, 8
# Voxels up to which a click counts as lying in a slice; voxels shown around an object's windows.


class Mark(NamedTuple):
    """A click in a plane: pixels from the upper left corner; ``near`` in this slice, ``new`` of this prompt."""

    x: float
    y: float
    inside: bool
    near: bool
    new: bool


class PlaneView(NamedTuple):
    """One slice as radiologists look at it (patient's right on the left, front or head up) with SVG paths.

    Args:
        name: axial, coronal or sagittal.
        image: WebP of the slice's shown part as a data address.
        part: the shown part: x, y, width, height in pixels; 1 pixel is a voxel of the network's grid.
        mask: path of the object's outline.
        gain: of what this prompt added.
        loss: of what it took away.
        target: of the true outline; empty when unknown.
        others: ``(object number, path)`` of the other objects.
        windows: ``(x, y, width, height)`` of the crops.
        box: of the box prompt, or None.
        marks: clicks.
    """

    name: str
    image: str
    part: Rectangle
    mask: str
    gain: str
    loss: str
    target: str
    others: list[tuple[int, str]]
    windows: list[Rectangle]
    box: Rectangle | None
    marks: list[Mark]


class Frame(NamedTuple):
    """One prompt of a session.

    Args:
        name: of the object.
        number: of the object, from 1.
        prompt: of the object, from 1.
        kind: inside, outside or box.
        views: three planes.
        volume_ml: of the object's mask on the network's grid.
        dice: on the network's grid; None without a target.
        scores: of the gate, the general decoder first, or None.
        chosen: expert, or None.
        windows: crops of the object.
    """

    name: str
    number: int
    prompt: int
    kind: str
    views: list[PlaneView]
    volume_ml: float
    dice: float | None
    scores: list[float] | None
    chosen: int | None
    windows: int

    @property
    def scored(self) -> bool:
        """Whether a Dice is known."""
        return self.dice is not None and math.isfinite(self.dice)


class _Scene(NamedTuple):
    """All that a frame is drawn from: the prompt, logits ``[x, y, z]`` before and after, and what else is there."""

    session: Session
    event: Event
    now: Tensor
    before: Tensor | None
    target: Tensor | None
    others: list[tuple[int, Tensor]]
    shown: tuple[list[int], list[int]]
    levels: tuple[float, float]


def session_frames(
    session: Session, targets: Mapping[str, MetaTensor] | None = None, window: tuple[float, float] | None = None
) -> list[Frame]:
    """A frame per prompt that was not undone, in the order of the session.

    Args:
        session: with at least one prompt.
        targets: true mask per object ``[1, X, Y, Z]`` on the scan's grid.
        window: intensities drawn black and white; -160 and 240 HU for CT, percentiles of the scan otherwise.

    Raises:
        PromptError: for a target of an object that is not in the session.
    """
    truth = {n: on_network_grid(session, t) for n, t in (targets or {}).items() if session.state(n)}
    levels = window or _grey_levels(session.volume.volume[0])
    shown = {name: _shown(session, name) for name in session.objects}
    logits: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    frames = []
    for event in session.events:
        name = event.name
        counts[name] = counts.get(name, 0) + 1
        before, now = logits.get(name), _logits(session, event.state)
        logits[name] = now
        numbers = {k: i for i, k in enumerate(logits, start=1)}
        others = [(numbers[k], v) for k, v in logits.items() if k != name]
        scene = _Scene(session, event, now, before, truth.get(name), others, shown[name], levels)
        frames.append(_frame(scene, numbers[name], counts[name]))
    return frames


def _frame(scene: _Scene, number: int, prompt: int) -> Frame:
    event, grid = scene.event, scene.session.volume.inner
    last = next(w for w in event.state.windows if w.start == event.state.asked[0])
    mask, target = scene.now > 0, scene.target
    return Frame(
        name=event.name,
        number=number,
        prompt=prompt,
        kind=event.kind,
        views=[_view(scene, name, axis) for name, axis in PLANES],
        volume_ml=int(mask.sum()) * float(np.prod(grid.spacing)) / 1000,
        dice=None if target is None else float(dice_of_each(mask[None, None], target[None, None])),
        scores=None if last.scores is None else last.scores.tolist(),
        chosen=last.chosen,
        windows=len(event.state.windows),
    )


def _view(scene: _Scene, name: str, axis: int) -> PlaneView:
    session, event, now, before = scene.session, scene.event, scene.now, scene.before
    size = session.volume.size
    at = min(max(round(_focus(event)[axis]), 0), now.shape[axis] - 1)
    low, high = scene.shown
    part = [slice(a, b + 1) for i, (a, b) in enumerate(zip(low, high, strict=True)) if i != axis]
    plane = session.volume.volume[0].select(axis, at)[part[0], part[1]]
    return PlaneView(
        name=name,
        image=_picture(_turned(plane, axis), scene.levels),
        part=_rectangle(low, high, session, axis),
        mask=_path(now, axis, at),
        gain="" if before is None else _path(torch.minimum(now, -before), axis, at),
        loss="" if before is None else _path(torch.minimum(before, -now), axis, at),
        target="" if scene.target is None else _path(scene.target.float() * 2 - 1, axis, at),
        others=[(i, _path(v, axis, at)) for i, v in scene.others],
        windows=[
            _rectangle(w.start, [s + size - 1 for s in w.start], session, axis)
            for w in event.state.windows
            if w.start[axis] <= at < w.start[axis] + size
        ],
        box=_box(event, session, axis, at),
        marks=_marks(event, session, axis, at),
    )


def _shown(session: Session, name: str) -> tuple[list[int], list[int]]:
    """First and last voxel of the part that is drawn: all windows the object ever had, and a margin."""
    starts = np.array([w.start for e in session.events if e.name == name for w in e.state.windows])
    low = np.maximum(starts.min(0) - _MARGIN, 0)
    high = np.minimum(starts.max(0) + session.volume.size + _MARGIN, session.volume.shape) - 1
    return low.tolist(), high.tolist()


def _logits(session: Session, state: ObjectState) -> Tensor:
    """``[x, y, z]`` on the network's grid, -1 where no window looks."""
    block = session.windows.merged(state)
    return session.volume.full(block._replace(values=block.values.clamp(-3, 3)), -1.0)


def _focus(event: Event) -> tuple[float, ...]:
    if event.kind == "box" and event.state.box is not None:
        return tuple(event.state.box.mean(0).tolist())
    return event.state.points[-1]


def _turned(plane: Tensor, axis: int) -> NDArray[Any]:
    """A plane ``[across, up]`` of a RAS grid as an image ``[rows, columns]``."""
    image: NDArray[Any] = np.asarray(plane)[:: -1 if _mirrored(axis) else 1].T[::-1]
    return image


def _mirrored(axis: int) -> bool:
    """Whether a plane's first axis runs to the patient's right, which is drawn on the left."""
    return axis != 0


def _size(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    across, down = (n for a, n in enumerate(shape) if a != axis)
    return across, down


def _place(point: Any, session: Session, axis: int) -> tuple[float, float]:
    """Voxels to pixels of a plane (pixel centres at + 0.5)."""
    size = _size(session.volume.shape, axis)
    across, up = (float(c) for a, c in enumerate(point) if a != axis)
    return (size[0] - 0.5 - across if _mirrored(axis) else across + 0.5), size[1] - 0.5 - up


def _rectangle(low: Any, high: Any, session: Session, axis: int) -> Rectangle:
    (x1, y1), (x2, y2) = (_place(c, session, axis) for c in (low, high))
    return min(x1, x2) - 0.5, min(y1, y2) - 0.5, abs(x1 - x2) + 1, abs(y1 - y2) + 1


def _box(event: Event, session: Session, axis: int, at: int) -> Rectangle | None:
    box = event.state.box
    if box is None or not float(box[0, axis]) <= at <= float(box[1, axis]):
        return None
    return _rectangle(box[0].tolist(), box[1].tolist(), session, axis)


def _marks(event: Event, session: Session, axis: int, at: int) -> list[Mark]:
    marks = []
    both = list(zip(event.state.points, event.state.labels, strict=True))
    for i, (point, label) in enumerate(both):
        x, y = _place(point, session, axis)
        new = event.kind != "box" and i == len(both) - 1
        marks.append(Mark(x, y, label == 1, abs(point[axis] - at) <= _CLOSE, new))
    return marks


def _path(values: Tensor, axis: int, at: int) -> str:
    plane = np.asarray(values.select(axis, at))
    return outline(plane[::-1] if _mirrored(axis) else plane)


def outline(plane: NDArray[Any]) -> str:
    """SVG path around values > 0 of a plane ``[across, up]``, in pixels from the upper left corner."""
    if not (plane > 0).any():
        return ""
    padded = np.pad(plane.astype(np.float32), 1, constant_values=-1.0)
    parts = []
    for line in find_contours(padded, 0.0):
        corners = approximate_polygon(line, 0.12)
        points = corners - 0.5  # without the rim, and from a pixel's centre to its corner
        steps = " ".join(f"{x:.1f} {plane.shape[1] - y:.1f}" for x, y in points[:-1])
        parts.append(f"M{steps}Z")
    return "".join(parts)


def _grey_levels(volume: Tensor) -> tuple[float, float]:
    """Black and white: soft tissue for what looks like Hounsfield units, else the 1 and 99.5 percentile."""
    values = volume.flatten()[:: max(1, volume.numel() // 200_000)].numpy()
    low, high = (float(v) for v in np.percentile(values, (1.0, 99.5)))
    return _SOFT_TISSUE if low < -500 else (low, max(high, low + 1e-6))


def _picture(image: NDArray[Any], levels: tuple[float, float]) -> str:
    low, high = levels
    grey = ((image.clip(low, high) - low) / (high - low) * 255).astype(np.uint8)
    packed = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey)).save(packed, "WEBP", quality=82)
    return "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode("ascii")
