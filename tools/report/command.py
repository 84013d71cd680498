"""The report command: find the runs, build the page, write one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.atomic import atomic_write
from common.command_words import shown_option
from common.errors import ConfigError
from common.paths import check_new

from .comparison import read_comparison
from .comparison_files import csv_of_methods, csv_of_structures, markdown
from .comparison_page import comparison_facts, render_comparison
from .markdown import tables
from .page import facts, render
from .results import read_study
from .volumes import viewer_volumes

__all__ = ["comparison_report", "report"]


def report(*runs: str, out: str | None = None, title: str | None = None, dataset_dir: str | None = None) -> str:
    """Write one HTML page with everything inline: it can be mailed, opened offline and kept.

    Its tables lie beside it as Markdown, to be pasted into a document: ``tables.md``, or ``<name>.md`` beside a
    ``<name>.html``.

    Args:
        runs: the folder of a chain (with ``chain.json``) or of a comparison (with ``compare.json``), or folders of
            single runs to compare.
        out: folder for ``index.html``, or a file name ending in ``.html``; ``<first folder>/report`` when omitted.
        title: heading; the chain's or the folder's name when omitted.
        dataset_dir: the data of a comparison, for its viewer; data that only the record names are not read, unless
            they lie in the comparison's folder.

    Returns:
        The file that was written.

    Raises:
        ConfigError: for ``dataset_dir`` with anything but one comparison.
    """
    folders = _folders(runs)
    if len(folders) == 1 and (folders[0] / "compare.json").is_file():
        return comparison_report(folders[0], out=out, title=title, dataset_dir=dataset_dir)
    study = read_study(folders)
    if dataset_dir is not None:
        got = f"{shown_option('dataset_dir', dataset_dir)} with {', '.join(map(str, folders))}"
        raise ConfigError("only a comparison's page takes the data, for its viewer", where="report", got=got,
                          expected="one folder with compare.json", hint="leave --dataset_dir out")  # fmt: skip
    target = Path(out) if out else folders[0] / "report"
    file = _page(target)
    with atomic_write(file) as partial:
        partial.write_text(render(study, title), encoding="utf-8")
    beside = file.with_suffix(".md") if file == target else file.with_name("tables.md")
    with atomic_write(beside) as partial:
        chain = study.chain or {}
        made_with = [*_command(chain), *facts(chain)] if chain.get("command") else []
        partial.write_text(tables(study, made_with), encoding="utf-8")
    return str(file)


def _page(target: Path) -> Path:
    """The page's file: that name, or ``index.html`` in that folder, which may be called ``x.html``."""
    named = target.suffix == ".html" and not check_new(target, error=ConfigError).is_dir()
    return check_new(target if named else target / "index.html", error=ConfigError)


def comparison_report(
    folder: str | Path, out: str | None = None, title: str | None = None, dataset_dir: str | Path | None = None
) -> str:
    """Write a comparison's page, and beside it its tables: ``tables.md``, ``methods.csv`` and ``structures.csv``.

    Args:
        folder: of the comparison, with ``compare.json``; it need not be finished.
        out: folder, or the page's file name ending in ``.html``; ``<folder>/report`` when omitted.
        title: heading.
        dataset_dir: the data, as the user gave them; None takes those in the comparison's folder.

    Returns:
        The page.
    """
    comparison = read_comparison(Path(folder))
    target = Path(out) if out else Path(folder) / "report"
    file = _page(target)
    contents = {
        file.with_name("tables.md"): markdown(comparison, _command(comparison.record) + comparison_facts(comparison)),
        file.with_name("methods.csv"): csv_of_methods(comparison),
        file.with_name("structures.csv"): csv_of_structures(comparison),
        file: render_comparison(comparison, viewer_volumes(comparison, dataset_dir=dataset_dir), title),
    }
    for path, content in contents.items():
        with atomic_write(path) as partial:
            partial.write_text(content, encoding="utf-8")
    return str(file)


def _command(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [("Command", str(record["command"]))] if record.get("command") else []


def _folders(runs: Sequence[str | Sequence[str]]) -> list[Path]:
    flat = [r for run in runs for r in ([run] if isinstance(run, str | Path) else run)]
    return [Path(r) for r in flat] or [Path()]
