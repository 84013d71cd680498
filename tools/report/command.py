"""The report command: find the runs, build the page, write one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.atomic import atomic_write

from .markdown import tables
from .page import facts, render
from .results import read_study

__all__ = ["report"]


def report(*runs: str, out: str | None = None, title: str | None = None) -> str:
    """Write one HTML page with everything inline: it can be mailed, opened offline and kept.

    Its tables lie beside it as Markdown, to be pasted into a document: ``tables.md``, or ``<name>.md`` beside a
    ``<name>.html``.

    Args:
        runs: the folder of a chain (with ``chain.json``), or folders of single runs to compare.
        out: folder for ``index.html``, or a file name ending in ``.html``; ``<first folder>/report`` when omitted.
        title: heading; the chain's or the folder's name when omitted.

    Returns:
        The file that was written.
    """
    folders = _folders(runs)
    study = read_study(folders)
    target = Path(out) if out else folders[0] / "report"
    file = target if target.suffix == ".html" else target / "index.html"
    with atomic_write(file) as partial:
        partial.write_text(render(study, title), encoding="utf-8")
    beside = file.with_suffix(".md") if target.suffix == ".html" else file.with_name("tables.md")
    with atomic_write(beside) as partial:
        chain = study.chain or {}
        made_with = [("Command", f"`{chain['command']}`"), *facts(chain)] if chain.get("command") else []
        partial.write_text(tables(study, made_with), encoding="utf-8")
    return str(file)


def _folders(runs: Sequence[str | Sequence[str]]) -> list[Path]:
    flat = [r for run in runs for r in ([run] if isinstance(run, str | Path) else run)]
    return [Path(r) for r in flat] or [Path()]
