"""The card that travels inside a weights file: label space, channels, bundle and configuration."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .contract_form import RENAME, check_card_names, damaged
from .errors import LabelError, WeightError
from .integrity import sealed_write
from .labels import LabelSpace
from .literals import check_name
from .plain_json import parse_object

__all__ = ["CARD_ATTRIBUTE", "ModelCard", "save_weights", "tensor_bytes"]

CARD_ATTRIBUTE = "_card"
_SETTINGS: dict[str, tuple[Any, str]] = {
    **dict.fromkeys(("network", "plans", "dataset_json", "teacher", "intensities"), (Mapping, "entries by name")),
    **dict.fromkeys(("structures", "expert_hashes", "expert_structures", "heads"), ((list, tuple), "a list")),
    "overlap_from": ((list, tuple), "a list"),
    **dict.fromkeys(("level", "base_hash", "configuration", "name"), (str, "text")),
    "modalities": ((list, tuple, Mapping), "a list of names"),
}  # what the trainings of this collection write

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelCard:
    """What a weights file says about itself.

    Args:
        labels: the structures that the network predicts.
        channels: names of the input channels, in order.
        bundle: name of the bundle that trained the weights.
        version: version of that bundle.
        config_hash: sha256 of the meaningful configuration; the engine fills it in when empty.
        extra: further plain values (metric, epoch, hashes of the experts, ...).

    Raises:
        WeightError: when ``extra`` cannot be written as JSON, or a channel or the bundle has a name that is none.
    """

    labels: LabelSpace
    channels: tuple[str, ...] = ()
    bundle: str = ""
    version: str = ""
    config_hash: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind, said in (
            ("labels", LabelSpace, "a label space"), ("channels", (list, tuple), "a list of names"),
            ("bundle", str, "text"), ("version", str, "text"), ("config_hash", str, "text"),
            ("extra", Mapping, "a mapping"),
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise WeightError(f"the card's {name} must be {said}", got=f"{value!a:.100}", expected=said)
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "extra", dict(self.extra))
        for channel in self.channels:
            for name in channel.split(" | ") if isinstance(channel, str) else [channel]:
                check_name(name, "channel", where=self.bundle, error=WeightError)
        if self.bundle:
            check_name(self.bundle, "bundle", error=WeightError)
        try:
            json.dumps(self.extra)
        except (TypeError, ValueError, RecursionError) as error:
            raise WeightError(
                f"a card holds plain values only: {error}", where=self.bundle, got=", ".join(map(ascii, self.extra))
            ) from error

    def with_extra(self, **extra: Any) -> ModelCard:
        """The same card with more entries in ``extra``."""
        return replace(self, extra={**self.extra, **extra})

    def to_json(self) -> str:
        """One line of JSON, the form in which the card is stored."""
        return json.dumps(
            {
                "labels": self.labels.to_dict(),
                "channels": list(self.channels),
                "bundle": self.bundle,
                "version": self.version,
                "config_hash": self.config_hash,
                "extra": self.extra,
            },
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str, *, where: object | None = None, names: Mapping[str, str] | None = None) -> ModelCard:
        """Inverse of :meth:`to_json`; entries that a newer version has added are kept in ``extra``.

        Args:
            text: the card.
            where: the file, for messages.
            names: other names for what the card names, ``{old: new}``, before they are judged.

        Raises:
            WeightError: when the text is no card, or names something in a way that is no name.
        """
        problem = "the card cannot be read"
        data = parse_object(text, error=WeightError, where=where, problem=problem, finite=False)  # scores may be NaN
        try:
            data = {k: _renamed(v, names, keys=k == "extra") for k, v in data.items()} if names else data
            data = _with_newer(data, where)
            card = cls(**{**data, "labels": LabelSpace.from_dict(data.get("labels", {}), where=where)})
        except (LabelError, WeightError) as error:
            raise WeightError(f"{problem}: {error.problem}", where=where or error.where, got=error.got,
                              expected=error.expected, hint=RENAME) from error  # fmt: skip
        _check_settings(card.extra, where)
        check_card_names(card.extra, where or "the card")
        return card


def _check_settings(extra: Mapping[str, Any], where: object | None) -> None:
    """Refuse settings of a kind that no training wrote, whoever is going to read them."""
    said = extra.get("settings")
    settings = said if isinstance(said, Mapping) else {}
    wrong = [] if said is None or isinstance(said, Mapping) else [("settings", said, "entries by name")]
    for key, (kinds, expected) in _SETTINGS.items():
        value = settings.get(key)
        if value is not None and not isinstance(value, kinds):
            wrong.append((f"settings.{key}", value, expected))
    if wrong:
        key, value, expected = wrong[0]
        raise damaged(key, value, expected, where or "the card")


def _with_newer(data: dict[str, Any], where: object | None) -> dict[str, Any]:
    known = {f.name for f in fields(ModelCard)}
    newer = {k: v for k, v in data.items() if k not in known}
    extra = data.get("extra", {})
    if not newer or not isinstance(extra, Mapping):
        return data
    logger.info("%s: the card of a newer version says more, kept in its extra entries: %s", where,
                ", ".join(ascii(k) for k in newer))  # fmt: skip
    return {**{k: v for k, v in data.items() if k in known}, "extra": {**newer, **extra}}


def _renamed(value: Any, names: Mapping[str, str], *, keys: bool) -> Any:
    if isinstance(value, Mapping):
        new = {(names.get(k, k) if keys else k): _renamed(v, names, keys=keys) for k, v in value.items()}
        if len(new) != len(value):
            raise WeightError("two of its entries would get one name", got=", ".join(ascii(k) for k in value),
                              expected="names that differ from each other")  # fmt: skip
        return new
    if isinstance(value, list):
        return [_renamed(v, names, keys=keys) for v in value]
    return names.get(value, value) if isinstance(value, str) else value


def tensor_bytes(state: Mapping[str, Any]) -> int:
    """Bytes of all tensors in a (nested) mapping."""
    total = 0
    for value in state.values():
        if isinstance(value, Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, Mapping):
            total += tensor_bytes(value)
    return total


def save_weights(path: Path | str, state_dict: Mapping[str, Tensor], card: ModelCard | None = None) -> Path:
    """Write a flat state dict atomically, with its card inside and its sha256 beside it.

    ``.pt``/``.pth`` files are what ``torch.load(weights_only=True)``, ``CheckpointLoader`` and ``monai.bundle.load``
    read: the card is an attribute of the dict and never one of its keys. ``.safetensors`` keeps the card as metadata.

    Args:
        path: target file; the suffix selects the format.
        state_dict: names and tensors, any device; stored on the CPU.
        card: what the file says about itself.

    Raises:
        WeightError: for values that are no tensors or an unknown suffix.
        CheckpointError: when the disk is full (the previous file stays intact).
    """
    path = Path(path)
    wrong = [f"{k}: {type(v).__name__}" for k, v in state_dict.items() if not isinstance(v, Tensor)]
    if wrong:
        raise WeightError("only tensors can be stored as weights", where=path, got=", ".join(wrong[:5]))
    tensors = OrderedDict((k, v.detach().cpu().as_subclass(Tensor)) for k, v in state_dict.items())
    with sealed_write(path, needed=tensor_bytes(tensors)) as temporary:
        if path.suffix == ".safetensors":
            _write_safetensors(temporary, tensors, card)
        elif path.suffix in (".pt", ".pth"):
            if hasattr(state_dict, "_metadata"):
                tensors._metadata = state_dict._metadata  # type: ignore[attr-defined]
            if card is not None:
                setattr(tensors, CARD_ATTRIBUTE, card.to_json())
            with temporary.open("wb") as stream:
                torch.save(tensors, stream)  # given a path, torch stores its (temporary) name and the hash would change
        else:
            raise WeightError("unknown weights format", where=path, got=path.suffix, expected=".pt, .pth, .safetensors")
    return path


def _write_safetensors(path: Path, tensors: Mapping[str, Tensor], card: ModelCard | None) -> None:
    from safetensors.torch import save_file

    # Networks such as nnU-Net's register one tensor under several names; the format has no aliases.
    own = {k: v.contiguous().clone() for k, v in tensors.items()}
    save_file(own, str(path), metadata={"format": "pt"} | ({} if card is None else {"card": card.to_json()}))
