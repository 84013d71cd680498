"""What runs left, read as text from anywhere: checked before a word of it is used, and never outside of its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema

from common.engine.evaluation.score_summary import read_case_csv
from common.errors import DataError
from common.paths import special
from common.plain_json import read_plain
from common.tables import TableError, read_csv

__all__ = [
    "CAPTIONS",
    "CHAIN",
    "COMPARISON",
    "COSTS",
    "LARGEST",
    "OVERLAYS",
    "SUMMARY",
    "check_record",
    "inside",
    "read_record",
    "read_scores",
    "read_table",
]

LARGEST = 1e100
"""Beyond it, no drawing has a scale and no sum an end."""

Schema = Mapping[str, Any]
TEXT: Schema = {"type": "string"}
TITLE: Schema = {"type": "string", "pattern": r"\S"}
TEXT_OR_NONE: Schema = {"type": ["string", "null"]}
NUMBER: Schema = {"type": ["number", "null"]}
FLAG: Schema = {"type": ["boolean", "null"]}
TEXTS: Schema = {"type": "array", "items": TEXT}


def _table(names: Schema, *required: str) -> Schema:
    return {"type": "object", "properties": names, "required": required}


def _each(value: Schema, kind: str = "object") -> Schema:
    return {"type": [kind, "null"], "additionalProperties" if kind == "object" else "items": value}


_TASK = _table({
    "modality": {"type": ["string", "array"], "items": TEXT}, "structures": TEXTS, "cases": _each(NUMBER),
    "dim": {"type": "integer"},
})  # fmt: skip
_FACTS: dict[str, Schema] = {
    **dict.fromkeys(("name", "bundle", "created", "command", "dataset_dir", "split", "preset"), TEXT),
    "commit": TEXT_OR_NONE,
    "seeds": _each({"type": "integer"}, "array"),
    "seed": NUMBER,
    "tasks": _each(_TASK),
    "packages": _each(TEXT),
    "hardware": {**_table({"cpu": TEXT_OR_NONE, "gpu": TEXT_OR_NONE, "cores": NUMBER, "memory_gb": NUMBER}),
                 "type": ["object", "null"]},
}  # fmt: skip
_STEP = _table({
    "id": TITLE, "title": TITLE, "kind": TEXT, "status": TEXT, "output_dir": TEXT, "command": TEXT,
    "subject": TEXT_OR_NONE, "commit": TEXT_OR_NONE, "seconds": NUMBER, "sha256": _each(TEXT),
}, "id", "output_dir")  # fmt: skip
_WORDS = {
    "type": ["object", "null"],
    "properties": {
        **dict.fromkeys(("title", "amalgamated"), TITLE),
        **dict.fromkeys(("alone", "note_amalgamated", "note_alone"), TEXT),  # empty where nothing runs alone
        "hub": {**TEXTS, "minItems": 3, "maxItems": 3},
    },
}
_MEMBER = _table({
    "name": TEXT, "title": TITLE, "bundle": TITLE, "preset": TEXT, "run": TEXT, "prompted": {"type": "boolean"},
    "trained": {"type": "boolean"}, "runs": TEXTS, "experts": TEXTS,
}, "name", "title", "bundle", "preset", "run", "prompted")  # fmt: skip
_BUDGET = {**_table({"steps": NUMBER, "minutes": NUMBER, "words": TEXT}), "type": ["object", "null"]}
_CASE = _table({
    "task": TEXT, "case": TEXT, "counted": FLAG, "seconds": NUMBER, "peak_mb": NUMBER, "multiply_adds_g": NUMBER,
}, "task", "case")  # fmt: skip

CHAIN = _table({**_FACTS, "words": _WORDS, "steps": {"type": "array", "items": _STEP}}, "steps")
"""Of ``chain.json``."""
COMPARISON = _table({
    **_FACTS, "members": {"type": "array", "items": _MEMBER}, "reference": TEXT_OR_NONE, "budget": _BUDGET,
    "failures": {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": TEXT}},
    "left_out": _each(TEXT),
}, "members")  # fmt: skip
"""Of ``compare.json``."""
SUMMARY = _table({
    "empty_rule": TEXT, "surface_tolerance_mm": {"type": "number"}, "prompt_source": TEXT_OR_NONE,
    "prompt": TEXT_OR_NONE, "labels": _table({"names": TEXTS}),
})  # fmt: skip
"""Of ``evaluation/summary.json``."""
OVERLAYS = {
    "type": "array",
    "items": _table({"file": TEXT, "kind": TEXT, "case": TEXT, "task": TEXT, "structure": TEXT, "dice": NUMBER},
                    "file", "kind", "case", "structure", "dice"),
}  # fmt: skip
"""Of ``overlays.json``."""
CAPTIONS = {"type": "object", "additionalProperties": TEXT}
"""Of ``captions.json``."""
COSTS = _table({
    **dict.fromkeys(("seconds", "steps", "trained_parameters", "peak_mb", "parameters", "threads"), NUMBER),
    **dict.fromkeys(("planned_steps", "step_seconds"), NUMBER),
    "device": TEXT_OR_NONE, "ended_by_clock": FLAG, "cases": {"type": "array", "items": _CASE},
})  # fmt: skip
"""Of ``training_costs.json`` and ``evaluation/costs.json``."""


def _finite(_: object, value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


_BASE = jsonschema.Draft202012Validator
_VALIDATOR = jsonschema.validators.extend(_BASE, type_checker=_BASE.TYPE_CHECKER.redefine("number", _finite))


def read_record(path: Path, schema: Schema) -> Any:
    """A JSON file that a run wrote; NaN and the infinities are None.

    Args:
        path: the file.
        schema: what its values must be, one of this module's.

    Raises:
        DataError: when it cannot be read, or a value is of another kind; it names the file and the key.
    """
    content = _numbered(
        read_plain(path, error=DataError, problem="the file cannot be read", expected="what a run wrote", finite=False)
    )
    check_record(content, schema, path)
    return content


def _numbered(content: Any) -> Any:
    """The content with None for what is no number."""
    if isinstance(content, dict):
        return {key: _numbered(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_numbered(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def check_record(content: object, schema: Schema, path: Path, *, hint: str | None = None) -> None:
    """Refuse what no run writes.

    Args:
        content: of the file.
        schema: what its values must be, one of this module's.
        path: the file, for the message.
        hint: what to do next.

    Raises:
        DataError: when a value is of another kind; it names the file and the key.
    """
    wrong = next(_VALIDATOR(schema).iter_errors(content), None)
    if wrong is not None:
        expected = wrong.validator_value if wrong.validator == "type" else f"{wrong.validator} {wrong.validator_value}"
        raise DataError(f"{wrong.json_path[:200]} is not what a run writes", where=path, got=f"{wrong.instance!r:.200}",
                        expected=" or ".join(expected) if isinstance(expected, list) else f"{expected:.200}",
                        hint=hint or "make the folder anew with the command that made it")  # fmt: skip


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that a run wrote.

    Raises:
        DataError: when it cannot be read.
    """
    try:
        return read_csv(path)[1]
    except (OSError, ValueError, TableError) as error:
        raise _no_table(path, error) from error


def read_scores(path: Path) -> list[dict[str, Any]]:
    """The rows of ``cases.csv``.

    Raises:
        DataError: when it cannot be read, or a score is beyond all measure.
    """
    try:
        rows = read_case_csv(path)
    except (OSError, ValueError, TableError) as error:
        raise _no_table(path, error) from error
    for row in rows:
        for key, value in row.items():
            if isinstance(value, float) and abs(value) > LARGEST:
                raise DataError(f"{key} is no score", where=f"{path}, case {row['case']}", got=value)
    return rows


def _no_table(path: Path, error: Exception) -> DataError:
    return DataError("the table cannot be read", where=path, got=f"{type(error).__name__}: {error!s:.200}",
                     expected="CSV in UTF-8, as a run wrote it")  # fmt: skip


def inside(folder: Path, name: str, *, where: str) -> Path:
    """A place that a record names, which must lie in the record's folder.

    Args:
        folder: of the record.
        name: relative to it.
        where: file and key, for the message.

    Raises:
        DataError: for an absolute path, one that leads out, be it by ``..`` or by a link, and what is no file.
    """
    try:
        place = folder / name
        if place.resolve().is_relative_to(folder.resolve()) and not Path(name).is_absolute():
            place.is_dir()  # a name that no file system takes
            found = special(place)
            if found is None:
                return place
            problem = f"no file but {found}"
        else:
            problem = "the path leads out of the folder"
    except (OSError, ValueError, RuntimeError) as error:
        problem = f"no path: {type(error).__name__}"
    raise DataError(problem, where=where, got=f"{name!r:.200}", expected=f"a place in {folder}")
