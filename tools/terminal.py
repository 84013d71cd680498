"""What commands print: names from data stay what they are, whatever signs of markup or control they hold."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from common.errors import visible
from common.visible_output import VisibleStream, visible_records

__all__ = ["console", "one_line", "say", "visible_output"]


def one_line(text: object) -> str:
    """Text from data on a terminal: control and direction characters spelt out, line ends too."""
    return visible(str(text)).replace("\n", "\\n")


def say(line: object, *, error: bool = False) -> None:
    """Print one line that may hold text from data.

    Args:
        line: it stays one line.
        error: print it where errors go.
    """
    print(one_line(line), file=sys.stderr if error else sys.stdout, flush=True)


class _Plain(Console):
    """Rich's own colours and movements reach the terminal, those of the text do not."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text, style, control) if control else Segment(visible(text), style)

    def render_str(self, text: str, **options: Any) -> Any:
        return super().render_str(visible(text), **options)


def console(*, stderr: bool = False) -> Console:
    """A console that takes no text for rich's markup (``[red]``), for an emoji's name or for a terminal's command.

    Args:
        stderr: print there.
    """
    stream = sys.stderr if stderr else sys.stdout
    plain = stream.stream if isinstance(stream, VisibleStream) else stream
    return _Plain(file=plain, stderr=stderr, markup=False, emoji=False, highlight=False)


@contextlib.contextmanager
def visible_output() -> Iterator[None]:
    """All that a command prints and logs meanwhile is visible, whoever prints it.

    Progress bars still move on the stream of errors; warnings, of which a network may make its own, do not.
    """
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(visible_records(before))
    try:
        errors = VisibleStream(sys.stderr, moves=True)
        with contextlib.redirect_stdout(VisibleStream(sys.stdout)), contextlib.redirect_stderr(errors):
            yield
    finally:
        logging.setLogRecordFactory(before)
