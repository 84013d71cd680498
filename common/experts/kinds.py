"""What each field of an expert's description must be: ``expert.json`` may come from anybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..backbones.nnunet.folds import is_fold
from ..errors import ExpertError
from ..labels import LabelSpace

__all__ = ["ORIENTATION", "SPACING", "check_kinds", "is_orientation", "is_spacing"]

ORIENTATION = "three axis codes, one of each of L R, P A and I S, such as RAS"
SPACING = "three numbers > 0, in mm"

_AXES = ({"L", "R"}, {"P", "A"}, {"I", "S"})
_TEXTS = ("kind", "path", "role", "task", "sha256", "trusted")
_TEXTS_OR_NONE = ("features", "configuration", "checkpoint")
_LARGE = 1e30
_NORMALISE = ("low", "high", "mean", "std")


def check_kinds(spec: Any) -> None:
    """Check the fields of an :class:`~common.experts.spec.ExpertSpec` but for its names.

    A spacing becomes a tuple of floats, several folds a tuple, ``extra`` and ``renamed`` dicts.

    Raises:
        ExpertError: naming the first field of a wrong kind or range.
    """

    def need(fits: bool, field: str, expected: str) -> None:
        if not fits:
            problem = f"the description of an expert has a wrong {field}"
            got = f"{getattr(spec, field)!a:.100}"
            raise ExpertError(problem, where=f"expert {spec.name!a:.100}", got=got, expected=expected)

    for name in (*_TEXTS, *_TEXTS_OR_NONE):
        value = getattr(spec, name)
        none = value is None and name in _TEXTS_OR_NONE
        need(none or (isinstance(value, str) and ("\0" not in value or name == "checkpoint")), name, "text")
    need(bool(spec.path), "path", "a folder or file")
    need(isinstance(spec.labels, LabelSpace), "labels", "a label space")
    need(isinstance(spec.channels, (list, tuple)), "channels", "a list of names")
    folds = list(spec.fold) if isinstance(spec.fold, (list, tuple)) else [spec.fold]
    once = len({str(f) for f in folds}) == len(folds)
    need(bool(folds) and once and all(map(is_fold, folds)), "fold", "a number >= 0, all, or a list of these")
    object.__setattr__(spec, "fold", tuple(folds) if len(folds) > 1 else folds[0])
    if spec.spacing is not None:
        need(is_spacing(spec.spacing), "spacing", SPACING)
        object.__setattr__(spec, "spacing", tuple(float(s) for s in spec.spacing))
    if spec.orientation is not None:
        need(is_orientation(spec.orientation), "orientation", ORIENTATION)
    renamed = spec.renamed
    need(isinstance(renamed, Mapping) and all(isinstance(t, str) for pair in renamed.items() for t in pair),
         "renamed", "a mapping of names")  # fmt: skip
    object.__setattr__(spec, "renamed", dict(renamed))
    need(isinstance(spec.extra, Mapping) and all(isinstance(k, str) for k in spec.extra), "extra", "a mapping")
    object.__setattr__(spec, "extra", dict(spec.extra))
    need(_divides(spec.extra.get("divisor", 1)), "extra", "divisor: a whole number from 1 to 4096, or three of them")
    given = spec.extra.get("normalise", {"scheme": "none"})
    listed = list(given) if isinstance(given, (list, tuple)) else [given]
    need(
        bool(listed) and all(map(_normalises, listed)),
        "extra",
        "normalise: a scheme with finite numbers, low (0) below high (1)",
    )


def is_spacing(given: Any) -> bool:
    """Whether a value is a spacing in mm: :data:`SPACING`."""
    three = isinstance(given, (list, tuple)) and len(given) == 3
    return three and all(_number(s) and 1e-9 < s <= 1e4 for s in given)


def is_orientation(given: Any) -> bool:
    """Whether a value is axis codes: :data:`ORIENTATION`."""
    three = isinstance(given, str) and len(given) == 3
    return three and all(sum(c in a for c in given) == 1 for a in _AXES)


def _divides(given: Any) -> bool:
    each = given if isinstance(given, (list, tuple)) and len(given) == 3 else [given]
    return all(isinstance(d, int) and not isinstance(d, bool) and 0 < d <= 4096 for d in each)


def _normalises(given: Any) -> bool:
    if not isinstance(given, Mapping) or not isinstance(given.get("scheme"), str):
        return False
    out = given.get("out", (0.0, 1.0))
    pair = isinstance(out, (list, tuple)) and len(out) == 2 and all(_number(v) for v in out)
    plain = all(_number(given[k]) for k in _NORMALISE if k in given)
    clips = given["scheme"] in ("range", "ct") or {"low", "high"} <= given.keys()
    ordered = plain and (not clips or given.get("low", 0.0) < given.get("high", 1.0))  # as they are when left out
    return pair and plain and ordered and isinstance(given.get("masked", False), bool)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGE
