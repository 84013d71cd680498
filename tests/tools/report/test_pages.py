"""Pages and tables say what they said when somebody last read them: ``approved_pages/`` holds their words.

Who changes a page reads the new words (the failure names their file) and copies them there. Also the test of
``tools.report.sections``, ``tools.report.page``, ``tools.report.comparison_tables``, ``tools.report.comparison_page``,
``tools.report.comparison_rows``, ``tools.report.comparison_files``, ``tools.report.pair_figures``.
"""

from __future__ import annotations

import html.parser
import re
from collections.abc import Callable
from pathlib import Path

from tests.tools.report.made_comparison import write_comparison
from tools.report.command import report

APPROVED = Path(__file__).with_name("approved_pages")


class Words(html.parser.HTMLParser):
    """A page's texts, a line each, and what scripts sort and colour by."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.within: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = [f"{k}={v}" for k, v in attrs if k.startswith("data-") or k in ("id", "open", "colspan", "title")]
        if tag not in ("meta", "img", "br", "input"):
            self.within.append(tag)
        if told and "svg" not in self.within:
            self.lines.append(f"<{tag} {' '.join(told)}>")

    def handle_endtag(self, tag: str) -> None:
        self.within.pop()

    def handle_data(self, data: str) -> None:
        if data.strip() and not {"script", "style", "svg"} & set(self.within):
            self.lines.append(" ".join(data.split()))


def words(page: Path, folder: Path) -> str:
    parser = Words()
    parser.feed(page.read_text(encoding="utf-8"))
    return plain("\n".join(parser.lines), folder) + "\n"


def plain(text: str, folder: Path) -> str:
    """Without what is another one each time: the folder, the moment of writing, and the libraries' versions."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:\\+]+", "MOMENT", text.replace(str(folder), "FOLDER"))
    return re.sub(r"\b(monai|torch) \d+(\.\d+)+", r"\1 VERSION", text)


def same(name: str, found: str, tmp_path: Path) -> None:
    new, known = tmp_path / name, APPROVED / name
    new.write_text(found, encoding="utf-8")
    assert known.is_file() and known.read_text(encoding="utf-8") == found, f"read {new}; if it is good, it is {known}"


def test_a_comparisons_page_and_tables(tmp_path: Path) -> None:
    folder = write_comparison(tmp_path)
    page = Path(report(str(folder)))
    same("comparison.txt", words(page, tmp_path), tmp_path)
    for file in sorted(page.parent.iterdir()):
        if file.suffix in (".md", ".csv"):
            same(f"comparison_{file.name}", plain(file.read_text(encoding="utf-8"), tmp_path), tmp_path)


def test_a_chains_page_and_tables(make_chain: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_chain(tmp_path / "chain", cases=5, pictures=False)
    page = Path(report(str(folder)))
    same("chain.txt", words(page, tmp_path), tmp_path)
    same("chain_tables.md", plain((page.parent / "tables.md").read_text(encoding="utf-8"), tmp_path), tmp_path)


def test_a_page_of_single_runs(make_chain: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_chain(tmp_path / "chain", cases=3, pictures=False)
    runs = [str(folder / name / "seed0") for name in ("alone", "amalgamated")]
    page = Path(report(*runs, out=str(tmp_path / "two.html")))
    same("runs.txt", words(page, tmp_path), tmp_path)


def test_no_page_is_kept_that_nobody_makes() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    named = set(re.findall(r'same\("([\w.]+)"', text))
    named |= {f"comparison_{name}" for name in ("tables.md", "methods.csv", "structures.csv")}
    assert {p.name for p in APPROVED.iterdir()} == named
