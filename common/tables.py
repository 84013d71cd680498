"""Tables with text from data in them: CSV files that no spreadsheet runs, Markdown that no viewer takes for markup."""

from __future__ import annotations

import csv
import errno
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .atomic import atomic_write
from .errors import visible
from .literals import spreadsheet_cell, text_of_cell
from .paths import special

__all__ = ["TableError", "csv_text", "markdown_code", "markdown_table", "markdown_text", "read_csv", "write_csv"]

TableError = csv.Error
# What is raised for text that is no CSV.

_MARKUP = re.compile(
    r"[\\`*\[\]|~!$@]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # an underscore between letters is just that
    r"|:(?=\S)|(?<=www)\.|#(?=\w)|(?<=\bGH)-(?=\d)"  # addresses without brackets, emoji, numbers of issues
    r"|^[-+=#:]",  # what begins a list or a heading
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^\d{1,9}(?=[.)])", re.ASCII)  # what begins a list of numbers


def csv_text(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """The rows as CSV, with a ``'`` before every text (of the heading, too) that a spreadsheet would run.

    Args:
        rows: with the same keys each; a missing one becomes an empty field.
        columns: the keys in order; those of the first row when None.
    """
    table = list(rows)
    names = list(table[0] if table else ()) if columns is None else list(columns)
    unknown = [key for row in table for key in row if key not in names]
    if unknown:
        raise ValueError(f"no columns for {unknown[:5]}")
    lines: list[list[Any]] = [list(names), *([row.get(name) for name in names] for row in table)]
    return "".join(",".join(map(_field, line)) + "\n" for line in lines)


def _field(value: Any) -> str:
    text = "" if value is None else str(spreadsheet_cell(value))
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',;"\t\r\n') else text


def write_csv(path: str | Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> Path:
    """Write :func:`csv_text`, complete or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(csv_text(rows, columns), encoding="utf-8", newline="")
    return Path(path)


def read_csv(path: str | Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and rows of a file that :func:`write_csv` wrote, every text as it was; missing fields are empty."""
    if found := special(path):
        raise OSError(errno.EINVAL, f"no file but {found}", str(path))
    with Path(path).open(newline="", encoding="utf-8-sig") as stream:
        lines = [[text_of_cell(cell) for cell in line] for line in csv.reader(stream) if line]
    head = lines[0] if lines else []
    filled = [[*line, *[""] * (len(head) - len(line))] for line in lines[1:]]
    return head, [dict(zip(head, line, strict=False)) for line in filled]


def markdown_text(text: object) -> str:
    """Text from data in a Markdown line or cell: on one line, and nothing in it is markup, HTML, a link or a formula.

    What cannot be seen, or turns the direction of the text, is spelt out.
    """
    line = visible(" ".join(str(text).split()))
    escaped = _MARKUP.sub(lambda found: "\\" + found.group(), line.replace("&", "&amp;"))
    escaped = _NUMBERED.sub(lambda found: found.group() + "\\", escaped)
    return escaped.replace("<", "&lt;").replace(">", "&gt;") if line.startswith(">") else escaped.replace("<", "&lt;")


def markdown_code(text: object) -> str:
    """Text from data as code in a line of Markdown, whatever backticks it holds."""
    line = visible(" ".join(str(text).split()))
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]], left: int) -> str:
    """A Markdown table of cells that are Markdown already (names go through :func:`markdown_text` first).

    Args:
        head: of the columns.
        lines: cells.
        left: how many columns are text; the others are numbers, to the right.
    """
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *lines])
