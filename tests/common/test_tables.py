"""Text from data in tables: no spreadsheet, Markdown viewer or terminal takes it for its own."""

import csv
import io
import re
from pathlib import Path

import pytest

from common.engine.evaluation.score_summary import read_case_csv, write_case_csv
from common.engine.monitor.history import read_history, write_history
from common.methods.sam_med3d_moe.forgetting_table import forgetting_table
from common.tables import csv_text, markdown_code, markdown_table, markdown_text, read_csv, write_csv
from tools.terminal import console

ROOT = Path(__file__).resolve().parents[2]
FORMULAS = ["=1+2", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+2", "＋1", "－1", "＠x"]
HARMLESS = [
    "liver",
    "left kidney (1)",
    "a=b",
    "-1.5",
    "+2e-3",
    "-inf",
    "",
    "1-2",
    "O'Neill",
    "'",
    "a,b",
    'say "x"',
    "a\nb",
]
QUOTED = ["'=1+2", "''=1", "'-5", "'liver"]


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.mark.parametrize("text", [*FORMULAS, *QUOTED[:3]])
def test_what_begins_like_a_formula_is_text_for_a_spreadsheet(text: str) -> None:
    for cell in (c for line in cells(csv_text([{text: text}])) for c in line):
        assert cell == "'" + text


@pytest.mark.parametrize("text", [*HARMLESS, "'liver"])
def test_everything_else_is_written_as_it_is(text: str) -> None:
    assert cells(csv_text([{"case": text, "dice": -0.5, "n": 3, "none": None}]))[1] == [text, "-0.5", "3", ""]


def test_our_own_files_are_read_back_as_they_were(tmp_path: Path) -> None:
    texts = [*FORMULAS, *HARMLESS, *QUOTED]
    rows = [{"name": t, "=head": t, "n": i} for i, t in enumerate(texts)]
    head, found = read_csv(write_csv(tmp_path / "x.csv", rows))
    assert head == ["name", "=head", "n"]
    assert found == [{"name": t, "=head": t, "n": str(i)} for i, t in enumerate(texts)]


def test_a_missing_field_is_empty_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    assert read_csv(write_csv(tmp_path / "x.csv", [{"a": 1}, {"b": 2}], ["a", "b"]))[1][0] == {"a": "1", "b": ""}
    with pytest.raises(ValueError, match="no columns for"):
        csv_text([{"a": 1}, {"b": 2}])


def test_scores_and_histories_keep_their_names(tmp_path: Path) -> None:
    row = {"case": "=cmd|x", "task": "-t", "structure": "+liver", "dice": 0.5}
    write_case_csv([row], tmp_path / "cases.csv")
    assert "'=cmd|x,'-t,'+liver,0.5" in (tmp_path / "cases.csv").read_text()
    found = read_case_csv(tmp_path / "cases.csv")[0]
    assert {k: found[k] for k in row} == row
    write_history(tmp_path / "history.csv", [{"epoch": 1, "-val": 0.5}])
    assert read_history(tmp_path / "history.csv")[0]["-val"] == 0.5


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("left_kidney (1)", "left_kidney (1)"),
        ("a|b", "a\\|b"),
        ("_a_", "\\_a\\_"),
        ("`x`", "\\`x\\`"),
        ("<img src=x onerror=y>", "&lt;img src=x onerror=y>"),
        ("&lt;b>", "&amp;lt;b>"),
        ("![x](http://y)", "\\!\\[x\\](http\\://y)"),
        ("see https://x.org/a", "see https\\://x.org/a"),
        ("WWW.x.org", "WWW\\.x.org"),
        ("me@x.org @team", "me\\@x.org \\@team"),
        ("[^1] :smile: #12 $x$", "\\[^1\\] \\:smile: \\#12 \\$x\\$"),
        ("<!-- x -->", "&lt;\\!-- x -->"),
        ("> x", "&gt; x"),
        ("- x", "\\- x"),
        ("12. x", "12\\. x"),
        ("a\u202eb\x1b\u2028c", "a\\\\u202eb\\\\x1b c"),
        ("T1: 0.5, C#", "T1: 0.5, C#"),
        ("a\n\n# b", "a # b"),
        ("# b", "\\# b"),
        ("\\|", "\\\\\\|"),
    ],
)
def test_a_name_is_no_markdown(text: str, shown: str) -> None:
    assert markdown_text(text) == shown
    line = markdown_table(["name", "n"], [[shown, "1"]], left=1).splitlines()[2]
    assert len(re.split(r"(?<!\\)(?:\\\\)*\|", line)) == 4


@pytest.mark.parametrize(
    ("text", "shown"), [("a b", "`a b`"), ("a\nb", "`a b`"), ("a`b", "``a`b``"), ("``a", "``` ``a ```"), ("", "``")]
)
def test_a_command_is_code(text: str, shown: str) -> None:
    assert markdown_code(text) == shown


def test_the_forgetting_report_keeps_names_in_their_cells() -> None:
    own = {"dice": {"box": {"general": 0.5}}, "objects": 1, "expert": "a|b", "structures": 1}
    found = {"prompts": ["box"], "gate_right": 1.0, "groups": {"a|b": own}, "structures": {"<i>|": own}, "protocol": {}}
    text = forgetting_table(found)
    assert "| **a\\|b** (1) | 1 |" in text and "| &lt;i>\\| | 1 |" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1234567. x", "1234567\\. x"),
        ("GH-12", "GH\\-12"),
        ("a/b#1", "a/b\\#1"),
        ("a-12 1.5", "a-12 1.5"),
        ("C# x", "C# x"),
    ],
)
def test_numbers_of_lists_and_issues_are_text(text: str, shown: str) -> None:
    assert markdown_text(text) == shown


def test_a_terminal_shows_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    console().print("[red]x[/red] [link=http://y]z[/link] :smile:")
    assert capsys.readouterr().out == "[red]x[/red] [link=http://y]z[/link] :smile:\n"


def test_nobody_writes_tables_or_markup_past_these() -> None:
    wanted = re.compile(r"^\s*(?:import|from) (csv|rich\.console)\b", re.MULTILINE)
    for path in (p for folder in ("common", "tools") for p in (ROOT / folder).rglob("*.py")):
        own = {"csv": "common/tables.py", "rich.console": "tools/terminal.py"}
        for name in wanted.findall(path.read_text(encoding="utf-8")):
            assert path.relative_to(ROOT).as_posix() == own[name], f"{path} imports {name}"


def test_a_reader_of_markdown_finds_text_alone() -> None:
    markdown_it = pytest.importorskip("markdown_it")
    reader = markdown_it.MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for text in (
        "http://x.org <http://x.org> <a@x.org> [x](http://y) ![x](y) [^1] <!-- c --> <b>",
        "# a", "> a", "- a", "+ a", "* a", "1. a", "12) a", "1234567. x", "123456789) x", "1234567890. x",
        "=== a", "    a", "```a", "~~a~~ **a** _a_ `a`",
        "&lt;b&gt;", "a\\", "|a|b|", "[a]: http://x", "<a href='x'>", "a\n---", "---", "a  \nb",
    ):  # fmt: skip
        tokens = reader.parse(markdown_text(text))
        assert [t.type for t in tokens] == ["paragraph_open", "inline", "paragraph_close"], text
        assert {c.type for c in tokens[1].children or ()} <= {"text", "text_special"}, text
        shown = "".join(c.content for c in tokens[1].children or ())
        assert shown == " ".join(text.split()), text
