"""Text from data has one door for each of its ways in and out, and the code keeps to it."""

from __future__ import annotations

import ast
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
