"""One object of a session: its prompts, the windows that look at it, and how the windows follow it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...data.prompts.clicks import depth_inside
from ...data.prompts.crops import crop_at, start_around
from ...errors import PromptError
from ...prompts import to_window
from .encoded_volume import NOTHING, Block, EncodedVolume, Start
from .promptable import low_res_size

__all__ = ["ObjectState", "Window", "Windows"]

logger = logging.getLogger(__name__)


class Window(NamedTuple):
    """What the network said about one crop.

    Args:
        start: first voxel of the crop.
        low_res: logits ``[1, 1, s, s, s]``, the next question's mask prompt.
        seed: a click of our own ``[3]`` (voxel of the volume) where the window was added to follow the object.
        scores: of a mixture's gate ``[m+1]``, or None.
        chosen: expert, 0 the general decoder, or None.
    """

    start: Start
    low_res: Tensor
    seed: tuple[float, ...] | None = None
    scores: Tensor | None = None
    chosen: int | None = None


@dataclass(frozen=True)
class ObjectState:
    """An object after some prompts; voxels are those of the network's grid.

    Args:
        points: clicks in order.
        labels: 1 inside, 0 outside.
        box: ``[2, 3]`` or None.
        windows: in the order in which they were added.
        asked: the windows that answered last.
    """

    points: tuple[tuple[float, ...], ...] = ()
    labels: tuple[int, ...] = ()
    box: Tensor | None = None
    windows: tuple[Window, ...] = ()
    asked: tuple[Start, ...] = ()


class Windows:
    """Asks the network about an object in one window, or in as many as the object needs.

    Args:
        volume: whose crops are encoded.
        follow: add windows, half a window further, where the mask reaches the border of its window and nobody looks
            beyond. A new window is shown the logits of its neighbours as mask prompt (zero where there are none) and,
            until the user clicks inside the object in it, one click in the deepest part of what is known of it.
        clicks: ``accumulate`` shows all clicks within the window, ``latest`` the newest one if it is there.
        most: windows per object, >= 1; a mask that would need more is left as it is, with a warning.
        reuse: an object begins in a window that is encoded already when its first click is at least this share of the
            window away from those faces of it beyond which the volume goes on; 0 takes any window that holds the
            click, 0.5 and more always centres a new one.
    """

    def __init__(
        self, *, volume: EncodedVolume, follow: bool, clicks: str = "accumulate", most: int = 27, reuse: float = 0.25
    ) -> None:
        self.volume, self.network, self.size = volume, volume.network, volume.size
        self.follow, self.clicks, self.most, self.reuse = follow, clicks, most, reuse

    def click(self, state: ObjectState, point: tuple[float, ...], label: int) -> ObjectState:
        """The object after one more click.

        Raises:
            PromptError: for a click outside the object's only window while windows do not follow, or one window too
                many.
        """
        holding = [w.start for w in state.windows if self._holds(w.start, point)]
        if not holding:
            if state.windows and not self.follow:
                raise PromptError(
                    "the click lies outside the window of its object",
                    got=f"voxel {list(point)} of the network's grid",
                    expected=f"from {list(state.windows[0].start)}, {self.size} voxels along each axis",
                    hint="use follow=True, or begin another object there",
                )
            holding = [self._begin(point, point)]
        state = replace(state, points=(*state.points, point), labels=(*state.labels, label))
        return self._ask(state, holding)

    def box(self, state: ObjectState, box: Tensor) -> ObjectState:
        """The object with this box ``[2, 3]`` in the place of any earlier one.

        Raises:
            PromptError: when the box needs more windows than there may be.
        """
        state = replace(state, box=box)
        if not self.follow:
            if not state.windows:
                return self._ask(state, [self._begin(box[0].tolist(), box[1].tolist())])
            return self._ask(state, [state.windows[0].start])
        extent = (box[1] - box[0] + 1).tolist()
        if max(extent) <= self.size:
            inside = [w.start for w in state.windows if all(self._holds(w.start, c.tolist()) for c in box)]
            return self._ask(state, inside[:1] or [self._begin(box[0].tolist(), box[1].tolist())])
        tiles = [_tiles(float(low), n, self.size) for low, n in zip(box[0], extent, strict=True)]
        return self._ask(state, [(x, y, z) for x in tiles[0] for y in tiles[1] for z in tiles[2]])

    def merged(self, state: ObjectState) -> Block:
        """Mean logits of the windows over their common bounding box; :data:`NOTHING` where no window looks."""
        if len(state.windows) == 1:
            return Block(state.windows[0].start, self._upsampled(state.windows[0]))
        starts = torch.tensor([w.start for w in state.windows])
        low, high = starts.amin(0), starts.amax(0) + self.size
        total = torch.zeros((high - low).tolist())
        count = torch.zeros_like(total)
        for window in state.windows:
            at = [slice(int(s - a), int(s - a) + self.size) for s, a in zip(window.start, low, strict=True)]
            total[tuple(at)] += self._upsampled(window)
            count[tuple(at)] += 1
        x, y, z = low.tolist()
        return Block((x, y, z), torch.where(count > 0, total / count.clamp(min=1), NOTHING))

    def _upsampled(self, window: Window) -> Tensor:
        with torch.no_grad():
            return self.network.upsample(window.low_res)[0, 0].float().cpu()

    def open_faces(
        self, state: ObjectState, merged: Block | None = None, of: Iterable[Start] | None = None
    ) -> list[tuple[Start, int, int]]:
        """Faces that the mask reaches although the volume goes on and no window looks there.

        Args:
            state: the object.
            merged: its merged logits, where they are at hand.
            of: windows to look at; all when None.

        Returns:
            ``(window, axis, -1 or +1)``.
        """
        block, found = merged or self.merged(state), []
        mask = block.values > 0
        for start in [w.start for w in state.windows] if of is None else of:
            for axis in range(3):
                for side, ends in ((-1, start[axis] > 0), (1, start[axis] + self.size < self.volume.shape[axis])):
                    if ends and self._leaks(state, mask, block.start, start, axis, side):
                        found.append((start, axis, side))
        return found

    def _leaks(self, state: ObjectState, mask: Tensor, origin: Start, start: Start, axis: int, side: int) -> bool:
        """Whether the mask's voxels on a face have a neighbour beyond it that no window covers."""
        at = [slice(s - o, s - o + self.size) for s, o in zip(start, origin, strict=True)]
        last = at[axis].stop - 1 if side > 0 else at[axis].start
        at[axis] = slice(last, last + 1)
        beyond = mask[tuple(at)].nonzero() + torch.tensor([a.start + o for a, o in zip(at, origin, strict=True)])
        beyond[:, axis] += side
        seen = torch.zeros(len(beyond), dtype=torch.bool)
        for window in state.windows:
            first = torch.tensor(window.start)
            seen |= ((beyond >= first) & (beyond < first + self.size)).all(1)
        return bool((~seen).any())

    def _ask(self, state: ObjectState, starts: list[Start]) -> ObjectState:
        """Ask about these windows, and with ``follow`` about every further one that the answer calls for."""
        for start in starts:
            state = self._add(state, start, grown=False)
        asked = list(starts)
        while self.follow and (faces := self.open_faces(state, of=asked)):
            if len(state.windows) >= self.most:
                logger.warning("the mask goes on beyond %d windows, which is the most there may be", self.most)
                break
            asked.append(self._beyond(*faces[0]))
            state = self._add(state, asked[-1], grown=True)
        return replace(state, asked=tuple(asked))

    def _add(self, state: ObjectState, start: Start, *, grown: bool) -> ObjectState:
        """The object with a new answer for the window at ``start``."""
        known = next((w for w in state.windows if w.start == start), None)
        if known is None and len(state.windows) >= self.most:
            raise PromptError(
                "the object needs more windows than there may be",
                got=f"more than {self.most}",
                hint="raise max_windows, or undo the prompt that let the mask leak",
            )
        answer = self._decode(state, start, known, grown=grown)
        if known is None:
            return replace(state, windows=(*state.windows, answer))
        return replace(state, windows=tuple(answer if w.start == start else w for w in state.windows))

    def _decode(self, state: ObjectState, start: Start, known: Window | None, *, grown: bool) -> Window:
        embedding = self.volume.embedding(start)
        seed = None if known is None else known.seed
        side = low_res_size(embedding)
        masks = embedding.new_zeros(1, 1, side, side, side) if known is None else known.low_res
        if grown:
            before = self._known_logits(state, start)
            masks = F.adaptive_avg_pool3d(before[None, None], side).to(embedding)
            seed = _deepest(before, start)
        points, labels = self._shown(state, start, seed)
        box = None
        if state.box is not None:
            local = to_window(state.box[None], start, (self.size,) * 3).to(embedding)
            box = None if bool(local.isnan().any()) else local
        with torch.no_grad():
            prompts = self.network.prompts(
                points=torch.tensor([points], dtype=embedding.dtype, device=embedding.device) if points else None,
                labels=torch.tensor([labels], device=embedding.device) if points else None,
                boxes=box,
                masks=masks,
            )
            answer = self.network.decode(embedding, prompts)
        scores, chosen = getattr(answer, "scores", None), getattr(answer, "chosen", None)
        return Window(
            start,
            answer.masks,
            seed,
            None if scores is None else scores[0].float().cpu(),
            None if chosen is None else int(chosen[0]),
        )

    def _shown(
        self, state: ObjectState, start: Start, seed: tuple[float, ...] | None
    ) -> tuple[list[list[float]], list[int]]:
        """Clicks in voxels of the window, and their labels."""
        both = list(zip(state.points, state.labels, strict=True))
        if self.clicks == "latest":
            both = both[-1:]
        both = [(p, label) for p, label in both if self._holds(start, p)]
        if seed is not None and not any(label == 1 for _, label in both):
            both = [(seed, 1), *both]
        local = [[c - s for c, s in zip(p, start, strict=True)] for p, _ in both]
        return local, [label for _, label in both]

    def _known_logits(self, state: ObjectState, start: Start) -> Tensor:
        """What the windows so far say within another one ``[S, S, S]``; 0, undecided, where they say nothing."""
        block = self.merged(state)
        moved = [s - o for s, o in zip(start, block.start, strict=True)]
        values = torch.where(block.values == NOTHING, 0.0, block.values)
        return crop_at(values[None], moved, self.size)[0]

    def _holds(self, start: Start, point: Iterable[float]) -> bool:
        return all(s - 0.5 <= c < s + self.size - 0.5 for s, c in zip(start, point, strict=True))

    def _begin(self, low: Iterable[float], high: Iterable[float]) -> Start:
        """The window of a new object between two corners: an encoded one that holds it well, or one around it."""
        corners = np.array([list(low), list(high)])
        best, room = None, self.reuse * self.size
        for start in () if self.reuse >= 0.5 else self.volume.encoded:
            space = math.inf
            for axis, first in enumerate(start):
                if first > 0:
                    space = min(space, float(corners[0, axis]) - first)
                if first + self.size < self.volume.shape[axis]:
                    space = min(space, first + self.size - 1 - float(corners[1, axis]))
            if space >= room and all(self._holds(start, c) for c in corners):
                best, room = start, space
        return best if best is not None else start_around(corners.mean(0).tolist(), self.size)

    def _beyond(self, start: Start, axis: int, side: int) -> Start:
        """Half a window further, but not past the volume's end."""
        moved = list(start)
        moved[axis] += side * (self.size // 2)
        last = max(self.volume.shape[axis] - self.size, start[axis])
        moved[axis] = max(moved[axis], 0) if side < 0 else min(moved[axis], last)
        x, y, z = moved
        return x, y, z


def _tiles(low: float, extent: float, size: int) -> list[int]:
    """Starts of windows that cover ``extent`` voxels from ``low`` and an eighth of a window around them.

    Neighbours overlap by half a window at least; what fits into one window is put in its middle.
    """
    if extent <= size:
        return [round(low + (extent - 1) / 2) - size // 2]
    low, extent = low - size / 8, extent + size / 4
    count = math.ceil((extent - size) / (size / 2)) + 1
    return [round(low + i * (extent - size) / (count - 1)) for i in range(count)]


def _deepest(logits: Tensor, start: Start) -> tuple[float, ...] | None:
    """Voxel of the volume that lies deepest in a window's mask, None when the mask is empty."""
    depth = depth_inside(logits > 0)
    if not bool(depth.any()):
        return None
    at = np.unravel_index(int(depth.argmax()), depth.shape)
    return tuple(float(i) + s for i, s in zip(at, start, strict=True))
