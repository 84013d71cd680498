"""What the files of an amalgamation's folder hold, key by key: the folder may come from anywhere, or be damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..run_files import TEXT, TEXTS, Schema, check_record
from .verdict import rows_from

__all__ = ["PASSED", "RESULTS", "SCAN", "STUDENT", "WANTED", "check_form"]

_MOST = 1e15
_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": _MOST}
_MEASURE: Schema = {"type": "number", "minimum": 0, "maximum": _MOST}


def _all_of(names: Schema, *optional: str, more: bool = True) -> Schema:
    required = [name for name in names if name not in optional]
    return {"type": "object", "properties": names, "required": required, "additionalProperties": more}


def _by_name(value: Schema) -> Schema:
    return {"type": "object", "additionalProperties": value}


def _list(value: Schema) -> Schema:
    return {"type": "array", "items": value}


def _row(*values: Schema) -> Schema:
    return {"type": "array", "prefixItems": values, "minItems": len(values), "maxItems": len(values)}


WANTED = _all_of({
    **dict.fromkeys(("preset", "student", "start_from", "labels_used"), TEXT),
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**63}, "train": _list(_row(TEXT, TEXT)),
}, more=False)  # fmt: skip
"""Of ``wanted.json``."""

_DISPUTES = _list(_row(TEXT, TEXT, TEXT, TEXT, _COUNT))
_PICTURE = _all_of({"task": TEXT, "case": TEXT, "file": TEXT})
_LAYER = _all_of({"name": TEXT, "data": TEXT, "dice": {"type": "null"}})
_SHOWN = _all_of({"task": TEXT, "case": TEXT, "dim": {"enum": [2, 3]}, "kind": TEXT, "image": TEXT,
                  "layers": _list(_LAYER), "present": _list(_COUNT)})  # fmt: skip
_ROWS = _list({"type": "object"})

_FORECAST = {**_all_of({
    "scans": _COUNT, "step": _MEASURE, "steps": _COUNT, "prepared": _COUNT,
    "held_back": _COUNT, "scored": _COUNT,
    "experts": _list(_all_of({"name": TEXT, "scans": _COUNT, "seconds": _MEASURE, "bytes": _COUNT, "whole": _COUNT})),
}, "prepared", "held_back", "scored"), "dependentRequired": {"scored": ["held_back"]}}  # fmt: skip
_ANSWERS = _all_of({
    "seen": _by_name(_by_name(_by_name(_COUNT))), "scans": _by_name(_COUNT), "answers": _COUNT, "bytes": _COUNT,
    "disputed": _list(_row(TEXT, TEXT, _COUNT)),
    "contradictions": _list(_row(TEXT, TEXT, TEXT, TEXT, _MEASURE, _COUNT)),
}, "scans", "answers", "bytes", "disputed", "contradictions")  # fmt: skip
_SCORES = _all_of({
    "rows": _ROWS, "cost": _by_name(_MEASURE), "scans": _by_name(_COUNT), "disputed": _DISPUTES,
    "passes": {**_all_of({"experts": _MEASURE, "seconds": _MEASURE}, "experts", "seconds", more=False),
               "dependentRequired": {"experts": ["seconds"], "seconds": ["experts"]}},
    "pictures": _list(_PICTURE), "viewer": _list(_SHOWN), "structures": TEXTS,
})  # fmt: skip

_BOTH = _all_of({"task": TEXT, "case": TEXT, "structure": TEXT, "dice": {"type": "number", "minimum": 0, "maximum": 1}})

RESULTS: dict[str, Schema] = {
    "forecast": _FORECAST,
    "answers": _ANSWERS,
    "beside": _all_of({"experts": _by_name(TEXTS), "rows": _list(_BOTH)}),
    "scores": {**_SCORES, "if": {"properties": {"cost": {"minProperties": 1}}},
               "then": {"properties": {"cost": {"required": [""]}}}},
}  # fmt: skip
"""Of the steps' results."""

STUDENT = _all_of({"structures": TEXTS, "seconds": _MEASURE})
"""Of what is kept of the student's answers."""
PASSED = _all_of({"seconds": _MEASURE})
"""Of what is kept of its pass over one scan."""
SCAN = _all_of({
    "rows": _ROWS, "disputed": _DISPUTES, "picture": _PICTURE, "viewer": _SHOWN,
    "seconds": _by_name(_all_of({"seconds": _MEASURE, "opened": {"type": "boolean"}})),
}, "picture", "viewer")  # fmt: skip
"""Of what is kept of one scan."""


def check_form(content: Any, schema: Schema, file: Path, hint: str = "start the amalgamation anew") -> None:
    """Refuse what is not of a form, with the file, the key and what to do.

    Args:
        content: of the file.
        schema: one of this module's.
        file: for the message.
        hint: what to do next.

    Raises:
        DataError: for a key that is missing, or a value of another kind.
    """
    check_record(content, schema, file, hint=hint)
    if schema.get("properties", {}).get("rows") is _ROWS:
        rows_from(content["rows"], where=file, hint=hint)
