"""What a table of a page consists of; the macro ``table`` of ``parts.html.j2`` writes it out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from .numbers import Stat

__all__ = ["NOTHING", "Cell", "Head", "Line", "Table", "sense"]


class Head(NamedTuple):
    """A heading: its words, the colour key before them, and what shows under the pointer."""

    words: str
    key: str = ""
    hint: str = ""


class Cell(NamedTuple):
    """A cell.

    Args:
        words: what is read.
        raw: what is sorted by; the words when None. What has no value sorts last.
        cls: how it looks.
        below: further words, small.
        mean: whether the words are a mean, which has a place for its bar.
        bar: a small drawing beside the mean.
        key: a colour before the words.
        pills: marks behind the words.
        hint: what shows under the pointer.
        wide: columns that it takes.
    """

    words: str
    raw: str | None = None
    cls: str = ""
    below: str = ""
    mean: bool = False
    bar: Element | None = None
    key: str = ""
    pills: Sequence[str] = ()
    hint: str = ""
    wide: int = 1


NOTHING = Cell("–", "", "none")


class Line(NamedTuple):
    """A row; that of means stays the last."""

    cells: Sequence[Cell]
    cls: str = ""


class Table(NamedTuple):
    """A table that its reader can sort.

    Args:
        heads: of the columns.
        lines: the rows.
        name: on the button, where several share a place.
        measure: what it shows, where several share a place.
    """

    heads: Sequence[Head]
    lines: Sequence[Line]
    name: str = ""
    measure: str = ""


def sense(gap: Stat, sign: int = 1) -> str:
    """Whether a difference excludes zero: ``up`` for the better, ``down`` for the worse, else empty."""
    if gap.low <= 0 <= gap.high or not gap.n:
        return ""
    return "up" if sign * gap.mean > 0 else "down"
