"""Label spaces: the named structures that a dataset annotates or a network predicts."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import LabelError, placed
from .literals import check_name

__all__ = ["BACKGROUND", "LabelSpace", "sides", "union"]

BACKGROUND = "background"
HIGHEST = 2**31 - 1
_NUMBER = re.compile(r"-?[0-9]{1,12}")
_BACKGROUNDS = ("air", "bg", "clear label", "empty", "exterior", "none", "other", "outside", "rest", "unknown",
                "unlabeled", "unlabelled", "void")  # fmt: skip


_SIDES = {"l": "left", "r": "right", "links": "left", "linke": "left", "rechts": "right", "rechte": "right",
          "gauche": "left", "droit": "right", "droite": "right", "lt": "left", "rt": "right"}  # fmt: skip


def sides(name: str) -> set[str]:
    """Left, right or neither: the near name of a kidney is not that of the other side."""
    words = re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold())
    return {_SIDES.get(w, w) for w in words} & {"left", "right"}


@dataclass(frozen=True)
class LabelSpace:
    """Named foreground structures in a fixed order; index 0 is always the background.

    Class ``names[i]`` has *index* ``i + 1`` in tensors (one-hot channels, logits) and *value* ``values[i]`` in label
    files. Both agree unless a file's values have gaps.

    Args:
        names: foreground names, unique, without the background.
        values: the integer that a label file uses for each name, unique and > 0; ``1..K`` when omitted.
        exclusive: True when a voxel belongs to one structure at most (softmax), False when they overlap (sigmoid).

    Raises:
        LabelError: for empty, repeated or non-positive entries, or a name that is none (:func:`.literals.check_name`).
    """

    names: tuple[str, ...]
    values: tuple[int, ...] = field(default=())
    exclusive: bool = True

    def __post_init__(self) -> None:
        names, values = _listed(self.names, "structure names"), _listed(self.values, "label values")
        object.__setattr__(self, "names", names)
        if not isinstance(self.exclusive, bool):
            raise LabelError(
                "whether structures exclude each other is true or false", got=f"exclusive: {self.exclusive!a}"
            )
        try:
            whole = tuple(_whole(v) for v in values)
        except ValueError as error:
            raise LabelError(f"a label value {error}", got=values, expected="whole numbers > 0") from error
        object.__setattr__(self, "values", whole or tuple(range(1, len(names) + 1)))
        if not self.names:
            raise LabelError("a label space needs at least one foreground structure", got="no names")
        for name in self.names:
            check_name(name, "structure")
        if BACKGROUND in self.names:
            raise LabelError("the background is implied and must not be listed", got=self.names)
        if len(set(self.names)) != len(self.names):
            raise LabelError("structure names repeat", got=self.names)
        if len(self.values) != len(self.names) or len(set(self.values)) != len(self.values) or min(self.values) < 1:
            raise LabelError(
                "label values must be unique positive integers, one per name",
                got=self.values,
                expected=f"{len(self.names)} values",
            )

    @classmethod
    def from_json(cls, labels: Mapping[str, Any], *, where: object | None = None, exclusive: bool = True) -> LabelSpace:
        """Read the ``labels`` mapping of a ``dataset.json``: nnU-Net's ``{name: value}`` or MSD's ``{value: name}``.

        Raises:
            LabelError: for what is no such mapping, a value that is no whole number, or a structure at value 0.
        """
        expected = '{"background": 0, "liver": 1, ...} or {"0": "background", "1": "liver", ...}'
        if not isinstance(labels, Mapping):
            raise LabelError("labels are a mapping", where=where, got=type(labels).__name__, expected=expected)
        pairs: list[tuple[str, int]] = []
        try:
            for key, value in labels.items():
                named_by_value = _NUMBER.fullmatch(str(key)) and isinstance(value, str)
                name, number = (value, str(key)) if named_by_value else (key, value)
                pairs.append((check_name(name, "structure", where=where), _whole(number, text=True)))
        except ValueError as error:
            raise LabelError(
                f"cannot read the label mapping: a value {error}",
                where=where,
                got=dict(labels),
                expected=expected,
                hint="region-based labels (lists of values) are not supported: give each structure one value",
            ) from error
        hidden = [n for n, v in pairs if v == 0 and not _is_background(n)]
        if hidden:
            raise LabelError("value 0 is the background's and no structure's", where=where, got=", ".join(hidden),
                             expected=expected, hint="give it another value, in the label maps as well")  # fmt: skip
        foreground = sorted((v, n) for n, v in pairs if v != 0)
        if not foreground:
            raise LabelError("the label mapping names no foreground structure", where=where, got=dict(labels))
        return cls.of(
            tuple(n for _, n in foreground), tuple(v for v, _ in foreground), exclusive=exclusive, where=where
        )

    @classmethod
    def of(cls, names: Any, values: Any = (), *, exclusive: Any = True, where: object | None) -> LabelSpace:
        """A label space from somewhere, whose refusals say where.

        Raises:
            LabelError: as of the class, with ``where``.
        """
        try:
            return cls(names, values, exclusive)
        except LabelError as error:
            raise placed(error, where) from error

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, where: object | None = None) -> LabelSpace:
        """Inverse of :meth:`to_dict`.

        Args:
            data: what it gave.
            where: the file or model that it comes from.

        Raises:
            LabelError: for what is no label space.
        """
        if not isinstance(data, Mapping) or "names" not in data:
            raise LabelError("this is no label space", where=where, got=f"{data!a:.100}",
                             expected='{"names": ["liver", "spleen"]}')  # fmt: skip
        return cls.of(data["names"], data.get("values", ()), exclusive=data.get("exclusive", True), where=where)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON and checkpoints."""
        return {"names": list(self.names), "values": list(self.values), "exclusive": self.exclusive}

    def to_json(self) -> dict[str, int]:
        """The ``labels`` mapping of a ``dataset.json``: ``{"background": 0, name: value, ...}``."""
        return {BACKGROUND: 0, **dict(zip(self.names, self.values, strict=True))}

    def channel_def(self) -> dict[str, str]:
        """The ``channel_def`` of a bundle's metadata: ``{"0": "background", "1": name, ...}`` (by index)."""
        return {"0": BACKGROUND, **{str(i): n for i, n in enumerate(self.names, start=1)}}

    def __len__(self) -> int:
        """Number of foreground structures K."""
        return len(self.names)

    @property
    def num_classes(self) -> int:
        """K + 1, the background included."""
        return len(self.names) + 1

    def index(self, name: str) -> int:
        """Tensor index of a structure (1..K), 0 for the background."""
        if name == BACKGROUND:
            return 0
        if name not in self.names:
            close = [n for n in difflib.get_close_matches(name, self.names) if sides(n) == sides(name)]
            raise LabelError(
                f"no structure is called {name!r}",
                got=name,
                expected=", ".join(self.names),
                hint=f"did you mean {close[0]!r}?" if close else None,
            )
        return self.names.index(name) + 1

    def indices(self, names: Iterable[str]) -> tuple[int, ...]:
        """Tensor indices of several structures."""
        return tuple(self.index(n) for n in names)

    def subset(self, names: Iterable[str]) -> LabelSpace:
        """The named structures alone, in this space's order, re-indexed 1..K."""
        wanted = set(self.indices(names))
        return LabelSpace(tuple(n for i, n in enumerate(self.names, 1) if i in wanted), exclusive=self.exclusive)

    def annotated(self, part: LabelSpace) -> NDArray[np.bool_]:
        """``[K+1]`` mask of this space's indices that ``part`` annotates; the background always is."""
        mask = np.zeros(self.num_classes, dtype=bool)
        mask[0] = True
        mask[list(self.indices(part.names))] = True
        return mask

    def lookup(self, values_of: LabelSpace) -> dict[int, int]:
        """``{file value in values_of: tensor index in this space}``; 0 is background, and what this space lacks."""
        pairs = zip(values_of.names, values_of.values, strict=True)
        return {0: 0, **{v: self.index(n) if n in self.names else 0 for n, v in pairs}}


def _listed(values: Any, what: str) -> tuple[Any, ...]:
    """A list as a tuple; a text is none, though Python would take its letters."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise LabelError(f"the {what} must be a list", got=f"{values!a:.100}", expected='such as ["liver", "spleen"]')
    return tuple(values)


def _whole(value: Any, *, text: bool = False) -> int:
    """A whole number that a label file can hold.

    Raises:
        ValueError: for any other value, in words that follow "a value".
    """
    if text and isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value)
    plain = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not plain or not abs(value) <= HIGHEST or value != int(value):  # NaN is not below anything
        raise ValueError(f"is no whole number up to {HIGHEST}: {value!a:.50}")
    return int(value)


def _is_background(name: str) -> bool:
    plain = name.casefold().replace("_", " ").replace("-", " ")
    return BACKGROUND in plain or plain in _BACKGROUNDS


def union(*spaces: LabelSpace) -> LabelSpace:
    """All structures of all spaces, in order of first appearance, re-indexed 1..K.

    Raises:
        LabelError: when no space is given or exclusive and overlapping spaces are mixed.
    """
    if not spaces:
        raise LabelError("a union needs at least one label space")
    if len({s.exclusive for s in spaces}) > 1:
        raise LabelError("exclusive and overlapping label spaces cannot be united", got=[s.names for s in spaces])
    return LabelSpace(tuple(dict.fromkeys(n for s in spaces for n in s.names)), exclusive=spaces[0].exclusive)
