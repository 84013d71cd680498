"""Box prompts for whole volumes, put where a promptable network's inferer finds them."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from torch import Tensor

from ...contract import Contract
from ...errors import ConfigError, PromptError
from ...plain_json import parse_object, read_plain
from ...prompts import boxes_from_label, clip_boxes
from ..datasets.dataset_json import case_name

__all__ = ["BOX_SOURCES", "BoxPromptsd", "KeepTargetsd", "TellUntaughtd", "UserPromptsd", "move_boxes"]

logger = logging.getLogger(__name__)

BOX_SOURCES = ("gt", "user", "none")


class BoxPromptsd(Transform):
    """Write ``image.meta["boxes"]`` ``[K, 2, 3]``: voxels of the preprocessed image, NaN where there is no box.

    Args:
        source: ``gt`` takes the tight box of every annotated structure from the label map (an *oracle* prompt, to be
            reported as such), ``user`` the entry ``boxes`` ``{structure name: [[x, y, z], [x, y, z]]}`` in voxels of
            the original image (also the name of a JSON file with them), ``none`` writes nothing.
        structures: the K foreground names.
        image: key of the preprocessed image ``[C, X, Y, Z]``.
        label: key of the label map on the original grid, with union indices.

    Raises:
        ConfigError: for an unknown source.
        PromptError: for a name that the network does not know.
    """

    def __init__(
        self, source: str, structures: tuple[str, ...] | list[str], image: str = "image", label: str = "label"
    ) -> None:
        if source not in BOX_SOURCES:
            raise ConfigError("unknown choice", where="prompt_source", got=source, expected=", ".join(BOX_SOURCES))
        self.source, self.structures, self.image, self.label = source, tuple(structures), image, label

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy whose image carries boxes."""
        result = dict(data)
        if self.source == "none" or (self.source == "user" and "boxes" not in data):
            return result
        image = result[self.image]
        if not isinstance(image, MetaTensor):
            raise PromptError("box prompts need the image's grid", got=type(image).__name__, expected="a MetaTensor")
        boxes, affine = self._boxes(result, image)
        moved = clip_boxes(move_boxes(boxes, affine, image.affine), image.shape[1:])
        image.meta["boxes"] = moved
        return result

    def _boxes(self, data: Mapping[Hashable, Any], image: MetaTensor) -> tuple[Tensor, Tensor]:
        if self.source == "gt":
            label = data[self.label]
            return boxes_from_label(label, len(self.structures)), label.affine
        boxes = torch.full((len(self.structures), 2, 3), torch.nan)
        given = data["boxes"]
        for name, corners in (_read_json(given) if isinstance(given, str) else given).items():
            if name not in self.structures:
                raise PromptError("no structure of that name", got=name, expected=", ".join(self.structures))
            boxes[self.structures.index(name)] = torch.as_tensor(corners, dtype=torch.float32)
        return boxes, torch.as_tensor(image.meta["original_affine"])


class UserPromptsd(Transform):
    """Write ``image.meta["prompts"]``, a text that survives batching: a user's points and boxes by object.

    They are the entry ``prompts`` of a case, or those of the configuration for cases without:
    ``{name: {"inside": [[x, y, z], ...], "outside": [...], "box": [[x, y, z], [x, y, z]]}}``, voxels of the original
    image.

    Args:
        prompts: for cases that have none of their own; also a JSON file's name.
        image: key of the image.

    Raises:
        PromptError: for a file that cannot be read, or something else than names with prompts.
    """

    def __init__(self, prompts: Mapping[str, Any] | str | None = None, image: str = "image") -> None:
        self.prompts, self.image = _read_prompts(prompts), image

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy whose image carries the prompts."""
        result = dict(data)
        given = _read_prompts(result.pop("prompts", None)) or self.prompts
        if given:
            image = result[self.image]
            if not isinstance(image, MetaTensor):
                raise PromptError("prompts need the image's grid", got=type(image).__name__, expected="a MetaTensor")
            image.meta["prompts"] = json.dumps(given)
        return result


def _read_json(file: str) -> Any:
    return read_plain(file, error=PromptError, problem="the prompts cannot be read", expected="a JSON file")


def _read_prompts(given: Any) -> dict[str, Any]:
    if isinstance(given, str):
        given = _read_json(given)
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(v, Mapping) for v in given.values()):
        raise PromptError(
            "prompts are objects by name", got=given, expected='such as {"liver": {"inside": [[120, 80, 40]]}}'
        )
    return {str(k): dict(v) for k, v in given.items()}


class KeepTargetsd(Transform):
    """Leave only the asked-for structures to compete: the logits of all others become a very small number.

    A network over a united label space was never told what, say, a stomach looks like on a modality whose task does
    not annotate it; whoever knows the task asks for its structures only.

    Args:
        targets: ``all``, ``task`` (what the case's task annotates) or a list of structure names.
        structures: the K foreground names.
        key: logits ``[K+1, X, Y, Z]`` (exclusive) or ``[K, X, Y, Z]`` (overlapping), of pictures without ``Z``; several
            keys, the first of which must be there.
        annotated: key of the case's bool ``[K+1]``, for ``task``.
        contract: of a trained model: with ``all`` and ``task``, what it was not taught on the case's modality, where
            the case names one, does not compete either. Names that are listed are taken as asked for.
        modality: what all cases are, whatever they say; what each says when None.

    Raises:
        DataError: when the contract knows no such ``modality``.
        PromptError: for a name that the network does not know, or logits over other structures.
    """

    def __init__(
        self,
        targets: str | Sequence[str],
        structures: Sequence[str],
        key: str | Sequence[str] = "pred",
        annotated: str = "annotated",
        contract: Contract | None = None,
        modality: str | None = None,
    ) -> None:
        if modality and contract is not None:
            for note in contract.fit(None, modality, where="modality").notes:
                logger.warning(note)
        self.contract, self.modality = contract, modality
        self.targets, self.structures = targets, tuple(structures)
        self.keys, self.annotated = (key,) if isinstance(key, str) else tuple(key), annotated
        unknown = [] if targets in ("all", "task") else sorted(set(targets) - set(structures))
        if unknown:
            raise PromptError("unknown targets", got=unknown, expected="all, task, or of " + ", ".join(structures))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with masked logits."""
        result = dict(data)
        keep = self.competing(result)
        if bool(keep.all()) and self.targets == "all":
            return result
        for key in (self.keys[0], *(k for k in self.keys[1:] if k in result)):
            if torch.is_floating_point(result[key]):  # else the classes were decided while the tiles were joined
                result[key] = self._only(result[key], keep)
        return result

    def competing(self, data: Mapping[Hashable, Any]) -> Tensor:
        """``[K+1]`` bool: what is left to compete in a case, background first."""
        taught = self._taught(data)
        if self.targets == "all":
            return torch.ones(len(self.structures) + 1, dtype=torch.bool) if taught is None else taught
        if self.targets == "task":
            keep = torch.as_tensor(data[self.annotated]).bool()
            return keep if taught is None else keep & taught.to(keep.device)
        return torch.tensor([True, *(n in self.targets for n in self.structures)])

    def _taught(self, data: Mapping[Hashable, Any]) -> Tensor | None:
        """``[K+1]`` of what the model was taught on the case's modality; None when nobody knows."""
        modality = self.modality or data.get("modality")
        taught = self.contract.taught_on([modality]) if self.contract and isinstance(modality, str) else None
        return None if taught is None else torch.tensor([True, *(n in taught for n in self.structures)])

    def _only(self, logits: Tensor, keep: Tensor) -> Tensor:
        known = len(self.structures)
        if logits.shape[0] not in (known, known + 1):
            raise PromptError("the logits are not over these structures", got=logits.shape[0], expected=known + 1)
        others = ~keep[-logits.shape[0] :].to(logits.device)
        return logits.masked_fill(others.view(-1, *[1] * (logits.ndim - 1)), torch.finfo(logits.dtype).min / 4)


class TellUntaughtd(Transform):
    """Say which prompted structures the model never learned on the case's modality; the prompt alone then decides.

    Any object may be prompted for, so nothing is refused. What is said is logged, and goes to the case's ``notes``,
    which an annotation server's answer hands on.

    Args:
        contract: of the trained model; nothing is said where it does not know what was taught.
        modality: of cases that name none; any that was taught when None.
        image: key of the image whose ``meta["prompts"]`` are looked at.
    """

    def __init__(self, contract: Contract, modality: str | None = None, image: str = "image") -> None:
        self.contract, self.modality, self.image = contract, modality, image

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy, perhaps with a remark."""
        image, modality = data[self.image], data.get("modality") or self.modality
        told_prompts = image.meta.get("prompts") if isinstance(image, MetaTensor) else None
        prompts = parse_object(told_prompts, error=PromptError) if told_prompts else {}
        names = [str(modality)] if modality else list(self.contract.taught)
        taught = self.contract.taught_on(names)
        left = [n for n in prompts if taught is not None and n not in taught and not n.lower().startswith("object")]
        if not left:
            return dict(data)
        told = f"never taught on {' or '.join(names)}, the answer follows the prompt alone: {', '.join(left)}"
        logger.warning("%s: %s", case_name(data), told)
        return {**data, "notes": [*(data.get("notes") or ()), told]}


def move_boxes(boxes: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Boxes in voxels of another grid: the tight box around the eight moved corners.

    Args:
        boxes: ``[K, 2, 3]`` voxels, NaN for none.
        source: ``[4, 4]`` affine of the boxes, voxels to mm.
        target: ``[4, 4]`` affine of the grid that they are moved to.

    Returns:
        ``[K, 2, 3]`` voxels of the target grid, in order, rounded to whole voxels.
    """
    matrix = torch.linalg.inv(torch.as_tensor(target, dtype=torch.float64)) @ torch.as_tensor(source).double()
    picks = torch.tensor(list(itertools.product((0, 1), repeat=3)))
    corners = boxes.double()[:, picks, torch.arange(3)]
    moved = corners @ matrix[:3, :3].T + matrix[:3, 3]
    return torch.stack([moved.amin(1), moved.amax(1)], 1).round().float()
