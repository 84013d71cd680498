"""The one reader of JSON objects from files that others wrote."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from .errors import AmalgamationError, few
from .paths import special

__all__ = ["DEEPEST", "LARGEST", "parse", "parse_object", "read_object", "read_plain"]

DEEPEST = 100
LARGEST = 64 * 2**20


class _OddError(ValueError):
    """What JSON allows, or Python takes for JSON, and nobody can rely on."""


def read_object(
    path: str | Path,
    *,
    error: type[AmalgamationError],
    problem: str = "cannot read the file",
    expected: str | None = None,
    hint: str | None = None,
    finite: bool = True,
) -> dict[str, Any]:
    """Read a file with one JSON object: UTF-8 with or without a byte order mark, at most :data:`LARGEST` bytes.

    Args:
        path: the file.
        error: class of every refusal.
        problem: how the message begins.
        expected: what the file should hold; a JSON object when None.
        hint: what to do next.
        finite: refuse NaN and infinite numbers; False for records of our own that may hold them.

    Raises:
        AmalgamationError: of the class ``error``, when the file cannot be read, is no JSON, no object, too large or
            nested too deeply, gives a key twice or holds a number that is none.
    """
    data = read_plain(path, error=error, problem=problem, expected=expected, hint=hint, finite=finite)
    return _object(data, error(f"{problem}: it is not a JSON object", where=path, got=type(data).__name__,
                               expected=expected or "a JSON object", hint=hint))  # fmt: skip


def read_plain(
    path: str | Path,
    *,
    error: type[AmalgamationError],
    problem: str = "cannot read the file",
    expected: str | None = None,
    hint: str | None = None,
    finite: bool = True,
) -> Any:
    """As :func:`read_object`, for JSON of any kind."""
    if found := special(path):
        raise error(f"{problem}: it is no file but {found}", where=path, expected=expected, hint=hint)
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except FileNotFoundError:
        raise error(f"{problem}: the file is missing", where=path, expected=expected, hint=hint) from None
    except (OSError, ValueError) as wrong:  # ValueError: a path with a NUL
        reason = getattr(wrong, "strerror", None) or wrong
        raise error(f"{problem}: {reason}", where=path, expected=expected, hint=hint) from wrong
    return parse(content, error=error, where=path, problem=problem, expected=expected, hint=hint, finite=finite)


def parse_object(
    content: str | bytes,
    *,
    error: type[AmalgamationError],
    where: object | None = None,
    problem: str = "cannot read the text",
    finite: bool = True,
) -> dict[str, Any]:
    """As :func:`read_object`, of a text that was read already and comes from ``where``."""
    data = parse(content, error=error, where=where, problem=problem, finite=finite)
    return _object(data, error(f"{problem}: it is not a JSON object", where=where, got=type(data).__name__,
                               expected="a JSON object"))  # fmt: skip


def parse(
    content: str | bytes,
    *,
    error: type[AmalgamationError],
    where: object | None = None,
    problem: str = "cannot read the text",
    expected: str | None = None,
    hint: str | None = None,
    finite: bool = True,
) -> Any:
    """As :func:`read_object`, of a text and for JSON of any kind."""
    try:
        if len(content) > LARGEST:
            raise _OddError(f"it is larger than {LARGEST // 2**20} MiB")
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content.removeprefix("\ufeff")
        data = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_constant if finite else None,
            parse_float=_float if finite else None,
        )
        _refuse_deep(data)
    except _OddError as wrong:
        raise error(f"{problem}: {wrong}", where=where, expected=expected, hint=hint) from wrong
    except RecursionError:
        raise error(f"{problem}: it is nested more than {DEEPEST} levels deep", where=where, expected=expected,
                    hint=hint) from None  # fmt: skip
    except ValueError as wrong:
        raise error(f"{problem}: not valid JSON: {wrong}", where=where, expected=expected, hint=hint) from wrong
    return data


def _object(data: Any, otherwise: AmalgamationError) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise otherwise
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [k for k, _ in pairs]
        repeated = sorted({k for k in names if names.count(k) > 1})
        raise _OddError(f"a key is given twice: {few([ascii(k) for k in repeated])}")
    return found


def _constant(word: str) -> float:
    raise _OddError(f"it holds {word}, which is no number")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _OddError(f"it holds {text[:20]}, which is too large")
    return number


def _refuse_deep(data: Any) -> None:
    level = [data]
    for _ in range(DEEPEST + 1):
        containers = [n for n in level if isinstance(n, (dict, list))]
        if not containers:
            return
        level = [c for n in containers for c in (n.values() if isinstance(n, dict) else n)]
    raise RecursionError
