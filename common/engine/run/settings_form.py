"""Whether the settings of a card have the form that inference reads; a card may come from anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import WeightError

__all__ = ["CardSettings", "checked_settings"]

_HINT = "write the card anew, or ask whoever made the weights"
_MEASURES = ("spacing", "roi_size", "image_size")
_BY_MODALITY = ("intensities", "clip", "teacher")
_CT_NUMBERS = ("mean", "std", "percentile_00_5", "percentile_99_5")


class CardSettings(dict[str, Any]):
    """Settings by name; one that is missing is named with its file, whoever asks for it.

    Args:
        content: the settings.
        place: file and key, for messages.
    """

    def __init__(self, content: Mapping[str, Any], place: str) -> None:
        super().__init__(content)
        self.place = place

    def __missing__(self, key: str) -> Any:
        got = ", ".join(map(str, self))
        raise WeightError("the weights' card lacks settings", where=self.place, got=got, expected=key, hint=_HINT)

    def __reduce__(self) -> tuple[Any, ...]:
        return CardSettings, (dict(self), self.place)


def checked_settings(stored: Mapping[str, Any], defaults: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """A card's settings, each of the kind of its default; what has no default is nobody's business here.

    Text and what is null by default may be null. Lengths (``spacing``, ``roi_size``, ``image_size``) are above 0, and
    there are as many as in the default.

    Args:
        stored: what the card holds.
        defaults: what inference.json holds.
        path: the weights file.

    Raises:
        WeightError: naming file and key, for anything else.
    """
    result = dict(stored)
    for key in set(stored) & set(defaults):
        where = f"{path}, settings.{key}"
        named = key in _BY_MODALITY
        _check(stored[key], {} if named else defaults[key], where)
        if key in _MEASURES:
            _check_lengths(stored[key], defaults[key], where)
        if isinstance(stored[key], Mapping) and not named:
            result[key] = CardSettings(stored[key], where)
    _check_entries(stored, defaults, path)
    return result


def _check(value: Any, default: Any, where: str) -> None:
    if default is None or (value is None and isinstance(default, str)):
        return
    kinds = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
    for kind, told in kinds.items():
        if isinstance(default, kind):
            fits = isinstance(value, int | float if kind is float else kind)
            if (
                not fits
                or (kind is not bool and isinstance(value, bool))
                or (isinstance(value, float) and not math.isfinite(value))
            ):
                raise _refusal(value, told, where)
            return
    if isinstance(default, Mapping):
        if not isinstance(value, Mapping):
            raise _refusal(value, "entries by name", where)
        for key in set(value) & set(default):
            _check(value[key], default[key], f"{where}.{key}")
    elif isinstance(default, list | tuple):
        _check_list(value, list(default), where)


def _check_list(value: Any, default: list[Any], where: str) -> None:
    if not isinstance(value, list | tuple):
        raise _refusal(value, f"a list, such as {default!r:.60}", where)
    alike = len({type(d) for d in default}) == 1
    if not alike and len(value) != len(default):
        raise _refusal(value, f"as many as {default!r:.60}", where)
    for number, one in enumerate(value):
        _check(one, default[0] if alike else default[number], f"{where}[{number}]")


def _check_lengths(value: Any, default: Any, where: str) -> None:
    if isinstance(default, list | tuple) and len(value) != len(default):
        raise _refusal(value, f"{len(default)} numbers", where)
    if not all(number > 0 for number in (value if isinstance(value, list | tuple) else [value])):
        raise _refusal(value, "above 0", where)


def _check_entries(stored: Mapping[str, Any], defaults: Mapping[str, Any], path: str | Path) -> None:
    """How the modalities' intensities are changed, by name: ``intensities`` and ``clip``."""
    for name, entry in stored["intensities"].items() if "intensities" in {*stored} & {*defaults} else ():
        where = f"{path}, settings.intensities.{name}"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("scheme"), str):
            raise _refusal(entry, "a scheme and its numbers", where)
        for key in _CT_NUMBERS if entry["scheme"] == "CTNormalization" else ():
            _check(entry.get(key), 0.0, f"{where}.{key}")
    for name, bounds in stored["clip"].items() if "clip" in {*stored} & {*defaults} else ():
        where = f"{path}, settings.clip.{name}"
        if bounds is not None:
            _check(bounds, [0.0, 0.0], where)
            _check_lengths([1.0] * len(bounds), [0.0, 0.0], where)


def _refusal(value: Any, expected: str, where: str) -> WeightError:
    return WeightError(
        "the card is damaged", where=where, got=f"{value!r:.60} ({type(value).__name__})", expected=expected, hint=_HINT
    )
