"""The student's pass over the scans held back, scan by scan: what was passed before a kill is not passed again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from common.atomic import atomic_write
from common.data.datasets.fitting import fitting_items
from common.errors import DataError
from common.literals import file_name
from common.plain_json import read_object

from .form import PASSED, check_form

__all__ = ["OVERLAY", "NotePasses", "missing", "passed", "prediction"]

OVERLAY = Path(__file__).with_name("passes.json")  # over a bundle's inference


def prediction(output_dir: str | Path, entry: Mapping[str, Any]) -> Path:
    """Where the student's label map of a scan lies."""
    return Path(output_dir) / str(entry["task"]) / f"{entry['case']}.nii.gz"


def passed(
    output_dir: Path, mark: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], run: Callable[[], None]
) -> float:
    """Have the scans passed that were not yet, and say how many seconds one takes.

    Args:
        output_dir: folder of the label maps; times lie beside it.
        mark: all that decides what comes out, in plain JSON; label maps of something else are passed anew.
        entries: the scans.
        run: passes those of :func:`missing`.

    Raises:
        DataError: when a scan was not passed, whatever ran.
    """
    began = _aside(output_dir) / "of.json"
    if _read(began) != {"mark": mark}:
        for folder in (began.parent, output_dir):  # first what says that they are of use
            shutil.rmtree(folder, ignore_errors=True)
        _write(began, {"mark": mark})
    if any(_seconds(output_dir, entry) is None for entry in entries):
        run()
    took = [_seconds(output_dir, entry) for entry in entries]
    seconds = [one for one in took if one is not None]
    if len(seconds) < len(entries):
        lost = entries[took.index(None)]
        raise DataError("the student did not answer about a scan", where=f"{lost['task']}, case {lost['case']}",
                        expected=prediction(output_dir, lost), hint="type the same command again")  # fmt: skip
    return sum(seconds) / len(seconds)


def missing(output_dir: str | Path, **options: Any) -> list[dict[str, Any]]:
    """What :func:`~common.data.datasets.fitting.fitting_items` lists, without the scans that were passed.

    Args:
        output_dir: folder of the label maps.
        options: of that function.
    """
    return [entry for entry in fitting_items(**options) if _seconds(output_dir, entry) is None]


class NotePasses:
    """A handler that notes the seconds of each scan as soon as its label map is written.

    Args:
        output_dir: folder of the label maps.
        clock: source of seconds.
    """

    def __init__(self, output_dir: str | Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.output_dir, self.clock = output_dir, clock
        self._began, self._entry = 0.0, dict[str, str]()

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose batches are one scan."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._begin)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._name)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note)

    def _begin(self, _: Engine) -> None:
        self._began = self.clock()

    def _name(self, engine: Engine) -> None:  # later the batch is taken apart
        batch: Any = engine.state.batch
        self._entry = {key: str(batch[key][0]) for key in ("task", "case")}

    def _note(self, _: Engine) -> None:
        _write(_file(self.output_dir, self._entry), {"seconds": self.clock() - self._began})


def _aside(output_dir: str | Path) -> Path:
    return Path(output_dir).with_name("passed")


def _file(output_dir: str | Path, entry: Mapping[str, Any]) -> Path:
    return _aside(output_dir) / "scans" / f"{file_name(str(entry['task']), str(entry['case']))}.json"


def _seconds(output_dir: str | Path, entry: Mapping[str, Any]) -> float | None:
    """What its pass took; None of a scan that was not passed to the end."""
    file = _file(output_dir, entry)
    found = _read(file) if prediction(output_dir, entry).is_file() else {}
    with suppress(DataError):
        check_form(found, PASSED, file)
        return float(found["seconds"])
    return None


def _read(file: Path) -> dict[str, Any]:
    """A file's content; nothing where it is not there or damaged."""
    with suppress(DataError):
        return read_object(file, error=DataError, finite=False) if file.is_file() else {}
    return {}


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
