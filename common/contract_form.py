"""Whether what a card says of its training data has the form that is written; a card may come from anywhere."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .errors import WeightError
from .literals import LONGEST, check_name

__all__ = ["RENAME", "check_card_names", "checked_contract", "checked_names", "damaged"]

RENAME = "give it other names: python -m tools weights rename OLD.pt NEW.pt --names \"{'old': 'new'}\""

_LARGEST = 1e30
_NAMED = {
    "modalities": "modality",
    "structures": "structure",
    "heads": "structure",
    "expert_structures": "structure",
    "overlap_from": "expert",
}


def checked_contract(
    said: Any, origin: object
) -> tuple[dict[str, Mapping[str, Any]], dict[str, tuple[str, ...]], tuple[Mapping[str, Any], ...]]:
    """The modalities, the taught structures and the data sets of a card's ``contract``.

    Args:
        said: what the card holds.
        origin: the weights file.

    Raises:
        WeightError: naming file and key, when something has another form, or a name is none.
    """
    said = _mapping(said, "contract", origin)
    modalities = {}
    for name, entry in _mapping(said["modalities"], "contract.modalities", origin).items():
        key = f"contract.modalities.{name}"
        own = _mapping(entry, key, origin)
        if "channels" in own:
            checked_names(own["channels"], f"{key}.channels", origin)
        if not isinstance(own.get("intensities", []), list | tuple):
            raise damaged(f"{key}.intensities", own["intensities"], "one entry per channel", origin)
        for number, stored in enumerate(own.get("intensities", ())):
            _check_range(stored, f"{key}.intensities[{number}]", origin)
        for number, part in enumerate(_list(own.get("taught", ()), f"{key}.taught", origin)):
            names = _mapping(part, f"{key}.taught[{number}]", origin)
            for what in ("channels", "structures"):
                checked_names(names.get(what), f"{key}.taught[{number}].{what}", origin)
        if own.get("dim", 3) not in (2, 3) or isinstance(own.get("dim"), bool):
            raise damaged(f"{key}.dim", own["dim"], "2 for pictures, 3 for volumes", origin)
        modalities[str(name)] = own
    taught = _mapping(said.get("taught", {}), "contract.taught", origin)
    names = {str(k): tuple(checked_names(v, f"contract.taught.{k}", origin)) for k, v in taught.items()}
    data = _list(said.get("data", ()), "contract.data", origin)
    sets = tuple(_checked_set(d, f"contract.data[{i}]", origin) for i, d in enumerate(data))
    check_card_names({"contract": said}, origin)
    return modalities, names, sets


def check_card_names(extra: Mapping[str, Any], origin: object) -> None:
    """Refuse what no configuration, path or command may take for its own among the names of ``contract`` and
    ``settings``: modalities, their kinds and channels, structures, heads, and the model's own name.

    Whether they have the form that is written is not looked at. A name may be empty where nobody gave one.

    Args:
        extra: of the card.
        origin: the weights file.

    Raises:
        WeightError: for the first that is no name; ``weights rename`` gives it another.
    """
    contract, settings = _entries(extra.get("contract")), _entries(extra.get("settings"))
    found = [("contract.modalities", "modality", n) for n in _entries(contract.get("modalities"))]
    for name, entry in _entries(contract.get("modalities")).items():
        own, key = _entries(entry), f"contract.modalities.{name}"
        found += [(f"{key}.kind", "modality", own.get("kind"))]
        found += [(f"{key}.channels", "channel", n) for n in _texts(own.get("channels"))]
        for part in said if isinstance(said := own.get("taught"), list | tuple) else ():
            found += [(f"{key}.taught", "channel", n) for n in _texts(_entries(part).get("channels"))]
            found += [(f"{key}.taught", "structure", n) for n in _texts(_entries(part).get("structures"))]
    for name, entry in _entries(contract.get("taught")).items():
        found += [("contract.taught", "modality", name)]
        found += [(f"contract.taught.{name}", "structure", n) for n in _texts(entry)]
    for i, entry in enumerate(said if isinstance(said := contract.get("data"), list | tuple) else ()):
        found += [(f"contract.data[{i}].name", "data set", _entries(entry).get("name"))]
        found += [(f"contract.data[{i}].modalities", "modality", n) for n in _texts(_entries(entry).get("modalities"))]
    found += [("settings.intensities", "modality", n) for n in _entries(settings.get("intensities"))]
    for key, what in _NAMED.items():
        found += [(f"settings.{key}", what, n) for n in _texts(settings.get(key))]
    long = settings.get("name")  # the names of structures, joined by "+"
    step = LONGEST // 2
    pieces = [long] if not isinstance(long, str) or len(long) <= LONGEST else [
        f"x{long[i : i + LONGEST - 2]}x" for i in range(0, len(long), step)]  # fmt: skip
    found += [("settings.name", "model", n) for n in pieces]
    for key, what, text in found:
        if text in (None, ""):
            continue
        try:
            for part in text.split(" | ") if isinstance(text, str) else [text]:
                check_name(part, what, where=f"{origin}, {ascii(key)[1:-1]}", error=WeightError)
        except WeightError as error:
            raise WeightError(f"the card cannot be read: {error.problem}", where=error.where, got=error.got,
                              expected=error.expected, hint=RENAME) from error  # fmt: skip


def _entries(said: Any) -> Mapping[Any, Any]:
    return said if isinstance(said, Mapping) else {}


def _texts(said: Any) -> list[str]:
    """All text in nested lists, and the keys and values of mappings."""
    if isinstance(said, Mapping):
        return [t for pair in said.items() for part in pair for t in _texts(part)]
    if isinstance(said, list | tuple):
        return [t for part in said for t in _texts(part)]
    return [said] if isinstance(said, str) else []


def _checked_set(said: Any, key: str, origin: object) -> Mapping[str, Any]:
    """Of one data set: its name, the names of its modalities, and numbers of cases by split."""
    data = _mapping(said, key, origin)
    if not isinstance(data.get("name") or "", str):
        raise damaged(f"{key}.name", data["name"], "text", origin)
    if data.get("modalities") is not None:
        checked_names(data["modalities"], f"{key}.modalities", origin)
    for split, entry in _mapping(data.get("cases") or {}, f"{key}.cases", origin).items():
        number = _mapping(entry, f"{key}.cases.{split}", origin).get("number", 0)
        if type(number) is not int or not 0 <= number <= _LARGEST:
            raise damaged(f"{key}.cases.{split}.number", number, "a number of cases", origin)
    return data


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
        raise damaged(key, said, "a list of names", origin)
    return list(said)


def _check_range(said: Any, key: str, origin: object) -> None:
    """Of one channel: what is known of its intensities, or None."""
    entry = {} if said is None else _mapping(said, key, origin)
    for name in ("lows", "highs"):
        pair = entry.get(name, (0, 0))
        numbers = isinstance(pair, list | tuple) and all(map(_is_number, pair))
        if not numbers or len(pair) != len((0, 0)):
            raise damaged(f"{key}.{name}", pair, "the lowest and the highest number", origin)


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number that arithmetic takes."""
    return type(value) in (int, float) and abs(value) <= _LARGEST  # NaN is not below anything


def _list(said: Any, key: str, origin: object) -> Sequence[Any]:
    if not isinstance(said, list | tuple):
        raise damaged(key, said, "a list", origin)
    return said


def _mapping(said: Any, key: str, origin: object) -> Mapping[str, Any]:
    if not isinstance(said, Mapping):
        raise damaged(key, said, "entries by name", origin)
    return said


def damaged(key: str, said: Any, expected: str, origin: object) -> WeightError:
    """The refusal of a card that holds something of another kind than was written.

    Args:
        key: where in the card.
        said: what it holds there.
        expected: what was written.
        origin: the weights file.
    """
    got = f"{said!a:.60} ({type(said).__name__})"
    hint = "write the card anew, or ask whoever made the weights"
    return WeightError("the card is damaged", where=f"{origin}, {key}", got=got, expected=expected, hint=hint)
