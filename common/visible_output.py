"""Streams and logs on which text from data is no command to a terminal, whoever prints it."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from .errors import visible

__all__ = ["VisibleStream", "make_visible", "visible_records"]

_MOVES = re.compile(r"(?:[\r\n]|\x1b\[A)*")  # with which a progress bar begins what it writes
_Factory = Callable[..., logging.LogRecord]


class VisibleStream:
    """A stream on which nothing is a terminal's command.

    Args:
        stream: what is written to.
        moves: let progress bars go to the beginning of their line, and up, where a piece of text begins so.
    """

    def __init__(self, stream: TextIO, *, moves: bool = False) -> None:
        self.stream, self.moves = stream, moves

    def write(self, text: str) -> int:
        """Write the text with control and direction characters spelt out."""
        found = _MOVES.match(text) if self.moves else None
        first = found.end() if found else 0
        self.stream.write(text[:first] + visible(text[first:]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's own."""
        return getattr(self.stream, name)


def visible_records(factory: _Factory) -> _Factory:
    """A factory of log records whose messages and tracebacks are visible.

    Args:
        factory: what makes the records; one that does so already is returned as it is.
    """
    if getattr(factory, "visible", False):
        return factory

    def record(*arguments: Any, **options: Any) -> logging.LogRecord:
        made = factory(*arguments, **options)
        with contextlib.suppress(Exception):  # the handler reports it
            message = made.getMessage()
            if visible(message) != message:
                made.msg, made.args = visible(message), ()
            if made.exc_info and made.exc_info[0] is not None:
                made.exc_text = visible("".join(traceback.format_exception(*made.exc_info)).rstrip("\n"))
        return made

    vars(record)["visible"] = True
    return record


def make_visible() -> None:
    """From now on, all that this process prints, logs and fails with is visible; a second call changes nothing."""
    logging.setLogRecordFactory(visible_records(logging.getLogRecordFactory()))
    if not isinstance(sys.stdout, VisibleStream):
        sys.stdout = VisibleStream(sys.stdout)
    if not isinstance(sys.stderr, VisibleStream):
        sys.stderr = VisibleStream(sys.stderr, moves=True)
