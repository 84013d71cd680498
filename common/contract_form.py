"""Whether what a card says of its training data has the form that is written; a card may come from anywhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .errors import WeightError

__all__ = ["checked_contract", "checked_names"]

_LARGEST = 1e30
_HINT = "write the card anew, or ask whoever made the weights"


def checked_contract(
    said: Any, origin: object
) -> tuple[dict[str, Mapping[str, Any]], dict[str, tuple[str, ...]], tuple[Mapping[str, Any], ...]]:
    """The modalities, the taught structures and the data sets of a card's ``contract``.

    Args:
        said: what the card holds.
        origin: the weights file.

    Raises:
        WeightError: naming file and key, when something has another form.
    """
    said = _mapping(said, "contract", origin)
    modalities = {}
    for name, entry in _mapping(said["modalities"], "contract.modalities", origin).items():
        key = f"contract.modalities.{name}"
        own = _mapping(entry, key, origin)
        if "channels" in own:
            checked_names(own["channels"], f"{key}.channels", origin)
        if not isinstance(own.get("intensities", []), list | tuple):
            raise _refusal(f"{key}.intensities", own["intensities"], "one entry per channel", origin)
        for number, stored in enumerate(own.get("intensities", ())):
            _check_range(stored, f"{key}.intensities[{number}]", origin)
        if own.get("dim", 3) not in (2, 3) or isinstance(own.get("dim"), bool):
            raise _refusal(f"{key}.dim", own["dim"], "2 for pictures, 3 for volumes", origin)
        modalities[str(name)] = own
    taught = _mapping(said.get("taught", {}), "contract.taught", origin)
    names = {str(k): tuple(checked_names(v, f"contract.taught.{k}", origin)) for k, v in taught.items()}
    data = said.get("data", ())
    if not isinstance(data, list | tuple):
        raise _refusal("contract.data", data, "a list", origin)
    return modalities, names, tuple(_mapping(d, f"contract.data[{i}]", origin) for i, d in enumerate(data))


def checked_names(said: Any, key: str, origin: object) -> list[str]:
    """Names, of a list or a mapping by name; a text is no list of its letters.

    Args:
        said: what the card holds.
        key: where it does.
        origin: the weights file.

    Raises:
        WeightError: for anything else.
    """
    if isinstance(said, str) or not isinstance(said, Collection) or not all(isinstance(n, str) for n in said):
        raise _refusal(key, said, "a list of names", origin)
    return list(said)


def _check_range(said: Any, key: str, origin: object) -> None:
    """Of one channel: what is known of its intensities, or None."""
    entry = {} if said is None else _mapping(said, key, origin)
    for name in ("lows", "highs"):
        pair = entry.get(name, (0, 0))
        numbers = isinstance(pair, list | tuple) and all(map(_is_number, pair))
        if not numbers or len(pair) != len((0, 0)):
            raise _refusal(f"{key}.{name}", pair, "the lowest and the highest number", origin)


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number that arithmetic takes."""
    return type(value) in (int, float) and abs(value) <= _LARGEST  # NaN is not below anything


def _mapping(said: Any, key: str, origin: object) -> Mapping[str, Any]:
    if not isinstance(said, Mapping):
        raise _refusal(key, said, "entries by name", origin)
    return said


def _refusal(key: str, said: Any, expected: str, origin: object) -> WeightError:
    got = f"{said!r:.60} ({type(said).__name__})"
    return WeightError("the card is damaged", where=f"{origin}, {key}", got=got, expected=expected, hint=_HINT)
