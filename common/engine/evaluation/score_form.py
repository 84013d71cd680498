"""Whether the scores beside a weights file have the form that is written; they may come from anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import DataError
from ...literals import check_name

__all__ = ["MEASURES", "checked_evaluation"]

MEASURES = ("dice", "hd95")
_LARGEST = 1e30
_HINT = "evaluate the weights again, or remove the file"


def checked_evaluation(said: Any, origin: object) -> dict[str, Any]:
    """One evaluation, unchanged.

    Args:
        said: what the file holds.
        origin: the file and the entry, for messages.

    Raises:
        DataError: naming file and key, for another form, text that is no name, or numbers that are not finite.
    """
    entry = _mapping(said, "the evaluation", origin)
    if not isinstance(entry.get("ignore_card", False), bool):
        raise _refusal("ignore_card", entry["ignore_card"], "true or false", origin)
    tasks = entry.get("tasks", [])
    if not isinstance(tasks, list | tuple):
        raise _refusal("tasks", tasks, "a list of names", origin)
    for task in tasks:
        check_name(task, "task", where=f"{origin}, tasks", error=DataError)
    if entry.get("split", "") != "":
        check_name(entry["split"], "split", where=f"{origin}, split", error=DataError)
    cases = entry.get("cases", 0)
    if type(cases) is not int or not 0 <= cases <= _LARGEST:
        raise _refusal("cases", cases, "a number of cases", origin)
    blocks = {"mean": entry["mean"]} if entry.get("mean") else {}
    for name, block in _mapping(entry.get("structures") or {}, "structures", origin).items():
        check_name(name, "structure", where=f"{origin}, structures", error=DataError)
        blocks[f"structures.{name}"] = block
    for key, block in blocks.items():
        _check_block(block, key, origin)
    return dict(entry)


def _check_block(said: Any, key: str, origin: object) -> None:
    """Mean and interval of each measure: finite numbers, or none at all."""
    block = _mapping(said, key, origin)
    for measure in MEASURES:
        row = _mapping(block.get(measure), f"{key}.{measure}", origin)
        none = row.get("mean", 0) is None
        needed = [k for k in ("mean", "low", "high") if not none or row.get(k) is not None]
        for part in needed:
            value: Any = row.get(part)
            if type(value) not in (int, float) or not abs(value) <= _LARGEST:  # NaN is not below anything
                raise _refusal(f"{key}.{measure}.{part}", value, "a finite number", origin)


def _mapping(said: Any, key: str, origin: object) -> Mapping[str, Any]:
    if not isinstance(said, Mapping):
        raise _refusal(key, said, "entries by name", origin)
    return said


def _refusal(key: str, said: Any, expected: str, origin: object) -> DataError:
    got = f"{said!a:.60} ({type(said).__name__})"
    return DataError("the scores beside the weights are damaged", where=f"{origin}, {key}", got=got, expected=expected,
                     hint=_HINT)  # fmt: skip
