"""What a step found so far: a file for each scan, so that an interrupted step does not find it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.atomic import atomic_write
from common.errors import DataError
from common.plain_json import read_object

from ..run_files import Schema
from .form import check_form

__all__ = ["kept"]


def kept(
    file: Path, mark: Mapping[str, Any], find: Callable[[], dict[str, Any]], form: Schema | None = None
) -> dict[str, Any]:
    """What ``find`` finds; what an earlier process kept, where it was of the same.

    Args:
        file: where it is kept.
        mark: all that decides it, in plain JSON; something else is found anew.
        find: finds it, as plain JSON.
        form: what was kept must be of it; what is not is found anew.
    """
    if file.is_file():
        with suppress(DataError):  # a file that somebody damaged is no more than one that is not there
            data = read_object(file, error=DataError, finite=False)
            if data.get("mark") == mark and isinstance(data.get("found"), dict):
                check_form(data["found"], form or {}, file)
                return dict(data["found"])
    found = find()
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps({"mark": mark, "found": found}) + "\n", encoding="utf-8")
    return found
