"""A session with a promptable network on one scan: click, look, click again, in the scan's own voxels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from ...data.io import read_volume
from ...data.prompts.targets import move_boxes
from ...errors import ConfigError, PromptError
from ...prompts import check_boxes, check_points, clip_boxes
from .encoded_volume import NOTHING, Block, EncodedVolume
from .object_windows import ObjectState, Windows
from .promptable import Promptable

__all__ = ["Answer", "Event", "Session"]

SPACES = ("voxel", "world")


class Event(NamedTuple):
    """One prompt of a session and the object after it.

    Args:
        name: of the object.
        kind: ``inside``, ``outside`` or ``box``.
        state: the object's prompts and windows, in voxels of the network's grid.
    """

    name: str
    kind: str
    state: ObjectState


class Answer(NamedTuple):
    """An object after a prompt.

    Args:
        name: of the object.
        mask: ``[1, X, Y, Z]`` uint8 on the scan's own grid.
        volume_ml: of the mask.
        scores: of a mixture's gate at the last prompt ``[m+1]``, the general decoder first; None for other networks.
        chosen: expert that answered, 0 the general decoder; None for other networks.
        windows: crops that look at the object.
        open_ended: the mask reaches a border beyond which the scan goes on and no window looks; ``follow=True`` looks.
    """

    name: str
    mask: MetaTensor
    volume_ml: float
    scores: Tensor | None
    chosen: int | None
    windows: int
    open_ended: bool


class Session:
    """Several named objects on one scan; crops are encoded once, every further click is a decoder's work.

    The scan, on any grid, is resampled to isotropic voxels along RAS for the network; prompts and answers are on its
    own. An object begins in a crop centred on its first click or box, or in one that is encoded already and holds it
    well. A click inside an object's crop never encodes anything.

    Args:
        network: encoder, prompts, decoder; a mixture's gate scores are passed on. Put into evaluation mode.
        image: ``[1, X, Y, Z]`` with its affine (RAS+ world, mm).
        follow: add crops where the mask reaches the border of its crop, and average the logits where they overlap;
            False is the single crop of the published model.
        clicks: ``accumulate`` shows the network all clicks, ``latest`` the newest one.
        spacing: of the network's grid in mm.
        clip: lowest and highest intensity, for CT (-1000, 1000) HU.
        cache: embeddings to keep; with ``follow`` at least those of two objects with all their crops.
        max_windows: crops per object when following.
        reuse_margin: see :class:`.object_windows.Windows`.
        device: where the network is.
        where: file or case for messages.

    Raises:
        ConfigError: for an option out of range.
        DataError: when the image cannot be used (see :class:`.encoded_volume.EncodedVolume`).
    """

    def __init__(
        self,
        *,
        network: Promptable,
        image: MetaTensor,
        follow: bool = False,
        clicks: str = "accumulate",
        spacing: float = 1.5,
        clip: Sequence[float] | None = None,
        cache: int = 8,
        max_windows: int = 27,
        reuse_margin: float = 0.25,
        device: torch.device | str = "cpu",
        where: object | None = None,
    ) -> None:
        if clicks not in ("accumulate", "latest"):
            raise ConfigError("unknown choice", where="clicks", got=clicks, expected="accumulate, latest")
        if max_windows < 1 or reuse_margin < 0:
            raise ConfigError("out of range", got=f"max_windows {max_windows}, reuse_margin {reuse_margin}")
        if isinstance(network, nn.Module):
            network.eval()
        self.where = where
        cache = max(cache, 2 * max_windows) if follow else cache  # an object never loses its own crops to its others
        self.volume = EncodedVolume(
            network=network, image=image, spacing=spacing, clip=clip, cache=cache, device=device, where=where
        )
        self.windows = Windows(volume=self.volume, follow=follow, clicks=clicks, most=max_windows, reuse=reuse_margin)
        self.events: list[Event] = []

    @classmethod
    def open(cls, path: str | Path, *, network: Promptable, **options: Any) -> Session:
        """A session on a file (NIfTI, NRRD, MHA, DICOM series); ``options`` as for the class."""
        return cls(network=network, image=read_volume(path), where=path, **options)

    @property
    def objects(self) -> tuple[str, ...]:
        """Names in the order in which the objects were begun."""
        return tuple(dict.fromkeys(e.name for e in self.events))

    @property
    def encodings(self) -> int:
        """How often the encoder ran."""
        return self.volume.encodings

    def click(self, name: str, point: Sequence[float], *, inside: bool = True, space: str = "voxel") -> Answer:
        """Click at an object; an unknown name begins a new one.

        Args:
            name: of the object.
            point: x, y, z in voxels of the scan, or in mm of its world (RAS+).
            inside: whether the voxel belongs to the object.
            space: ``voxel`` or ``world``.

        Raises:
            PromptError: for a click outside the scan or the object's only crop, or an object that begins with a click
                outside of it.
        """
        state = self._state(name)
        if state is None and not inside:
            raise PromptError("an object begins with a click inside it or a box", where=self._at(name), got="outside")
        voxel = self._point(name, point, space)
        state = self.windows.click(state or ObjectState(), voxel, int(inside))
        self.events.append(Event(name, "inside" if inside else "outside", state))
        return self.answer(name)

    def box(self, name: str, corners: Sequence[Sequence[float]], *, space: str = "voxel") -> Answer:
        """Give an object a box, in the place of any earlier one.

        Args:
            name: of the object.
            corners: ``[[x1, y1, z1], [x2, y2, z2]]``, low first, both inside the box.
            space: ``voxel`` or ``world``.

        Raises:
            PromptError: for a network without box prompts, a box without extent, or one outside the scan.
        """
        if not self.volume.network.boxes:
            raise PromptError(
                "a checkpoint without box embeddings used with boxes",
                where=self._at(name),
                hint="click, or use a network that was trained with boxes=True",
            )
        box = self._corners(name, corners, space)
        state = self.windows.box(self._state(name) or ObjectState(), box)
        self.events.append(Event(name, "box", state))
        return self.answer(name)

    def undo(self, name: str | None = None) -> Answer | None:
        """Take back the last prompt, of an object or of all; the object as it was before, None when it is gone.

        Raises:
            PromptError: when there is nothing to take back, or no such object.
        """
        if not self.events:
            raise PromptError("there is nothing to undo", where=self.where, hint="click first")
        if name is not None:
            self.state(name)
        last = max(i for i, e in enumerate(self.events) if name in (None, e.name))
        gone = self.events.pop(last)
        return None if self._state(gone.name) is None else self.answer(gone.name)

    def remove(self, name: str) -> None:
        """Forget an object and all its prompts.

        Raises:
            PromptError: for an unknown name.
        """
        self.state(name)
        self.events = [e for e in self.events if e.name != name]

    def answer(self, name: str) -> Answer:
        """An object as it is now.

        Raises:
            PromptError: for an unknown name.
        """
        state = self.state(name)
        merged = self.windows.merged(state)
        block = self.volume.to_given(merged)
        mask = torch.zeros(1, *self.volume.given.shape, dtype=torch.uint8)
        voxels = 0
        if block is not None:
            found = block.values > 0
            _paste(mask, block, found)
            voxels = int(found.count_nonzero())  # of the part that was found, not of the whole scan
        last = next(w for w in state.windows if w.start == state.asked[0])
        return Answer(
            name=name,
            mask=self._on_scan(mask),
            volume_ml=voxels * float(np.prod(self.volume.given.spacing)) / 1000,
            scores=last.scores,
            chosen=last.chosen,
            windows=len(state.windows),
            open_ended=bool(self.windows.open_faces(state, merged)),
        )

    def logits(self, name: str) -> MetaTensor:
        """``[1, X, Y, Z]`` on the scan's grid, exact around the mask and -20 far from it.

        Raises:
            PromptError: for an unknown name.
        """
        values = torch.full((1, *self.volume.given.shape), NOTHING)
        block = self.volume.to_given(self.windows.merged(self.state(name)))
        if block is not None:
            _paste(values, block, block.values)
        return self._on_scan(values)

    def _on_scan(self, values: Tensor) -> MetaTensor:
        return MetaTensor(values, affine=torch.from_numpy(self.volume.given.affine.copy()))

    def state(self, name: str) -> ObjectState:
        """The object's prompts and windows, in voxels of the network's grid.

        Raises:
            PromptError: for an unknown name.
        """
        state = self._state(name)
        if state is None:
            raise PromptError(
                "no object of that name", where=self.where, got=name, expected=", ".join(self.objects) or "none yet"
            )
        return state

    def label_map(self) -> MetaTensor:
        """``[1, X, Y, Z]`` uint8: 1 for the first of ``objects``, and so on; the highest logit where masks overlap.

        Raises:
            PromptError: when there is no object.
        """
        if not self.objects:
            raise PromptError("there is no object yet", where=self.where, hint="click first")
        best = torch.zeros(1, *self.volume.given.shape)
        index = torch.zeros(best.shape, dtype=torch.uint8)
        for i, name in enumerate(self.objects, start=1):
            logits = self.logits(name).as_tensor()
            index[logits > best] = i
            best = torch.maximum(best, logits)
        return self._on_scan(index)

    def _at(self, name: str) -> str:
        return f'object "{name}"' if self.where is None else f'{self.where}, object "{name}"'

    def _state(self, name: str) -> ObjectState | None:
        return next((e.state for e in reversed(self.events) if e.name == name), None)

    def _point(self, name: str, point: Sequence[float], space: str) -> tuple[float, ...]:
        """A point of the scan as a whole voxel of the network's grid."""
        at = torch.as_tensor(point, dtype=torch.float64).reshape(1, -1)
        shape = self.volume.given.shape
        if self._is_world(space) and at.shape[1] == 3:
            at = torch.from_numpy(nibabel.affines.apply_affine(np.linalg.inv(self.volume.given.affine), at.numpy()))
            last = torch.tensor(shape, dtype=at.dtype) - 1
            within = (at > -0.5) & (at < last + 0.5)  # of a rim voxel not only the inner half
            at = torch.where(within, at.clamp(min=0).minimum(last), at)
        check_points(at, shape, where=self._at(name))
        inner = np.rint(self.volume.to_inner(at.numpy()))[0].clip(0, np.array(self.volume.shape) - 1)
        return tuple(float(c) for c in inner)

    def _corners(self, name: str, corners: Sequence[Sequence[float]], space: str) -> Tensor:
        """``[2, 3]`` whole voxels of the network's grid."""
        box = torch.as_tensor(corners, dtype=torch.float64)
        if box.shape != (2, 3) or bool(box.isnan().any()):
            raise PromptError("a box has two corners of x, y, z", where=self._at(name), got=corners)
        given, inner = self.volume.given, self.volume.inner
        source = torch.eye(4, dtype=torch.float64)
        if self._is_world(space):
            _check_order(box, self._at(name))
        else:
            source = torch.from_numpy(given.affine.copy())
            check_boxes(box[None], given.shape, where=self._at(name))
        moved = clip_boxes(move_boxes(box[None], source, torch.from_numpy(inner.affine.copy())), inner.shape)[0]
        if bool(moved.isnan().any()):
            raise PromptError("the box lies outside the scan", where=self._at(name), got=corners)
        return moved

    def _is_world(self, space: str) -> bool:
        if space not in SPACES:
            raise PromptError("unknown space", where=self.where, got=space, expected=", ".join(SPACES))
        return space == "world"


def _check_order(box: Tensor, where: str) -> None:
    if bool((box[1] <= box[0]).any()):
        raise PromptError("the corners of a box are swapped or equal", where=where, got=box.tolist())


def _paste(values: Tensor, block: Block, part: Tensor) -> None:
    """Write ``part`` ``[x, y, z]`` over ``values`` ``[1, X, Y, Z]`` where the block lies."""
    x, y, z = (slice(a, a + n) for a, n in zip(block.start, block.values.shape, strict=True))
    values[0, x, y, z] = part.to(values.dtype)
