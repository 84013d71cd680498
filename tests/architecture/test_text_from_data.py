"""Text from data has one door for each of its ways in and out, and the code keeps to it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.tree import shown, sources, tree

# who may call what others reach through them
DOORS = {
    ("json", "load"): set[str](),
    ("json", "loads"): {
        "common/plain_json.py",
        "tools/label/guard.py",  # both run in the label server's process, which has Python alone
        "tools/label/app.py",
    },
    ("yaml", "load"): set[str](),
    ("yaml", "safe_load"): set[str](),
    ("csv", "writer"): set[str](),
    ("csv", "DictWriter"): set[str](),
    ("csv", "reader"): {"common/tables.py"},
    ("csv", "DictReader"): set[str](),
    ("pickle", "load"): set[str](),
    ("pickle", "loads"): set[str](),
    ("os", "system"): set[str](),
    ("os", "popen"): set[str](),
    ("os.path", "expanduser"): set[str](),
    ("os.path", "expandvars"): set[str](),
}
NAMES = {name for _, name in DOORS}
WORDS = {"allow_pickle": True, "shell": True, "weights_only": False}


def called(file: Path) -> list[tuple[str, str, int]]:
    """Module, function and line of each call of one of the doors, however it was imported."""
    names: dict[str, tuple[str, str]] = {}
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: (node.module, a.name) for a in node.names}
    found = []
    for node in (n for n in ast.walk(tree(file)) if isinstance(n, (ast.Attribute, ast.Name))):
        if isinstance(node, ast.Attribute) and node.attr in NAMES:
            found.append((ast.unparse(node.value), node.attr, node.lineno))
        elif isinstance(node, ast.Name) and node.id in names:
            found.append((*names[node.id], node.lineno))
    return [f for f in found if f[:2] in DOORS]


def words(file: Path) -> list[str]:
    calls = [n for n in ast.walk(tree(file)) if isinstance(n, ast.Call)]
    return [
        f"{shown(file)}:{k.value.lineno} {k.arg}={k.value.value}"
        for call in calls
        for k in call.keywords
        if k.arg in WORDS and isinstance(k.value, ast.Constant) and k.value.value is WORDS[k.arg]
    ]


def test_files_of_others_are_read_through_one_door() -> None:
    wrong = [
        f"{shown(path)}:{line} calls {module}.{name}"
        for path in sources("common", "tools")
        for module, name, line in called(path)
        if shown(path) not in DOORS[module, name]
    ]
    assert not wrong, "plain_json, plain_yaml, tables and weights read for everybody:\n" + "\n".join(wrong)


def test_nothing_is_unpickled_and_no_shell_is_asked() -> None:
    assert not [w for path in sources("common", "tools") for w in words(path)]


@pytest.mark.parametrize(
    "text, name",
    [
        ("import json\njson.loads('1')", "loads"),
        ("from json import load as get\nget(1)", "load"),
        ("import os\nos.path.expanduser('~')", "expanduser"),
    ],
)
def test_another_door_is_found(text: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(text)
    assert [n for _, n, _ in called(file)] == [name]


def test_a_word_that_opens_a_door_is_found(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("f(1, allow_pickle=True)\ng(shell=True)\nh(shell=False)")
    assert [w.split()[1] for w in words(file)] == ["allow_pickle=True", "shell=True"]


QUOTING = {"shlex.quote", "shlex.join", "word", "files_word"}
# what stands in a printed command as it is: words of our own, numbers, and what was quoted where it was made
OWN_WORDS = {
    ("tools/__main__.py", "close[0]"),
    ("tools/__main__.py", "where"),
    ("tools/bundle/docs.py", "file"),
    ("tools/bundle/docs.py", "key"),
    ("tools/bundle/docs.py", "key.upper()"),
    ("tools/bundle/docs.py", "COMMANDS"),
    ("tools/chain/experts.py", "own"),
    ("tools/experts/describe.py", "bool(external)"),
    ("tools/experts/describe.py", "use"),
    ("tools/predict/dicom_results.py", "kind"),
    ("tools/train.py", "gpus"),
    ("tools/chain/plan.py", "folder"),
    ("common/data/dicom/slices.py", "option"),
    ("common/methods/samora/stage_one/teacher_file.py", "'ts_cpt' if own else 'ts'"),
    ("common/methods/samora/stage_two/start.py", "words"),
    ("tools/chain/command.py", "words"),
}
_COMMAND = re.compile(r"(?:python -m |pip install |torchrun )(?:(?![;,:(]\s|\n).)*$|--[\w:-]+[ =][\"']?$", re.DOTALL)


def unquoted(file: Path) -> list[str]:
    """Values that a printed command holds as they are, though a shell would read them."""
    inner = {id(n) for c in ast.walk(tree(file)) if quotes(c) for n in ast.walk(c)}
    found = []
    for node in ast.walk(tree(file)):
        if not isinstance(node, ast.JoinedStr) or id(node) in inner:
            continue
        before = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                before += str(part.value)
                continue
            assert isinstance(part, ast.FormattedValue)
            if _COMMAND.search(before) and not safe(part.value, file):
                found.append(f"{shown(file)}:{node.lineno} {before[-40:]!r} {ast.unparse(part.value)}")
            before += "X"
    return found


def quotes(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in QUOTING


def safe(node: ast.expr, file: Path) -> bool:
    if isinstance(node, ast.IfExp):
        return ((shown(file), ast.unparse(node)) in OWN_WORDS) or (safe(node.body, file) and safe(node.orelse, file))
    return isinstance(node, ast.Constant) or quotes(node) or (shown(file), ast.unparse(node)) in OWN_WORDS


def test_printed_commands_are_quoted_for_a_shell() -> None:
    wrong = [w for path in sources("common", "tools") for w in unquoted(path)]
    assert not wrong, "quote it with shlex, or say in OWN_WORDS that it is no text from data:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    "text, count",
    [
        ("f'next: python -m tools data check {out}'", 1),
        ("f'next: python -m tools data check {shlex.quote(out)}, then {out}'", 0),
        ("f'--name {name}'", 1),
        ("f'--name \"{name}\"'", 1),
        ("f'--name={quote(name)} --other {shlex.quote(name)}'", 1),
        ("f'python -m tools x {shlex.join([a, f\"--b {c}\"])} {d}'", 1),
        ("f'add --force True: {name}'", 0),
    ],
)
def test_an_unquoted_command_is_found(text: str, count: int, tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(text)
    assert len(unquoted(file)) == count
