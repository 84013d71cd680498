"""Text from data has one door for each of its ways in and out, and the code keeps to it."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, shown, sources, tree

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
    modules: dict[str, str] = {}
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            modules |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: (node.module, a.name) for a in node.names}
            modules |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    found = []
    for node in (n for n in ast.walk(tree(file)) if isinstance(n, (ast.Attribute, ast.Name))):
        if isinstance(node, ast.Attribute) and node.attr in NAMES:
            first, dot, rest = ast.unparse(node.value).partition(".")
            found.append((modules.get(first, first) + dot + rest, node.attr, node.lineno))
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
        ("import json as j\nj.loads('1')", "loads"),
        ("from os import path\npath.expanduser('~')", "expanduser"),
        ("import os.path as p\np.expanduser('~')", "expanduser"),
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


DOOR = "common/command_words.py"  # alone makes options with values, and quotes for a shell
QUOTING = {"shown", "shown_option", "shown_place", "shown_knob"}
WORDS_OF_OPTIONS = {"option", "knob", "place", "shown_option", "shown_knob", "shown_place"}
# what stands in a printed command as it is: words of our own, numbers, and what was quoted where it was made
OWN_WORDS = {
    ("tools/__main__.py", "close[0]"),
    ("tools/__main__.py", "where"),
    ("tools/bundle/docs.py", "key.upper()"),
    ("tools/chain/experts.py", "own"),
    ("tools/experts/describe.py", "bool(external)"),
    ("tools/experts/describe.py", "use"),
    ("tools/predict/dicom_results.py", "kind"),
    ("tools/chain/plan.py", "folder"),
    ("common/data/dicom/slices.py", "option"),
    ("common/methods/samora/stage_one/teacher_file.py", "'ts_cpt' if own else 'ts'"),
    ("tools/chain/command.py", "words"),
}
_BEGUN = re.compile(r"--(?:[\w:-]+[ =][\"']?)?$")
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
            begun = _BEGUN.search(before) is not None and before[-2:] != "--"  # an option that lacks its value alone
            if _COMMAND.search(before) and not (own(part.value, file) if begun else safe(part.value, file)):
                found.append(f"{shown(file)}:{node.lineno} {before[-40:]!r} {ast.unparse(part.value)}")
            before += "X"
    return found


def quotes(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in QUOTING


def safe(node: ast.expr, file: Path) -> bool:
    if isinstance(node, ast.IfExp):
        return ((shown(file), ast.unparse(node)) in OWN_WORDS) or (safe(node.body, file) and safe(node.orelse, file))
    return quotes(node) or own(node, file)


def own(node: ast.expr, file: Path) -> bool:
    return isinstance(node, ast.Constant) or (shown(file), ast.unparse(node)) in OWN_WORDS


def split_options(file: Path) -> list[str]:
    """Options that stand apart from a value that is no constant, or are put together with it by other means."""
    found = []
    for node in ast.walk(tree(file)):
        entries: list[ast.expr] = []
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            entries = node.elts
        elif isinstance(node, ast.Call):
            entries = node.args
            text = node.func.value if isinstance(node.func, ast.Attribute) and node.func.attr == "format" else None
            if isinstance(text, ast.Constant) and re.search(r"--[\w:-]*[ =]?[\"']?\{", str(text.value)):
                found.append(f"{shown(file)}:{node.lineno} {ast.unparse(node)}")
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mod)):
            start, sign = _text(node.left), r"$" if isinstance(node.op, ast.Add) else r"%"
            if re.search(rf"(?:^|[\s\"'])--(?:[\w:-]+[ =][\"']?)?{sign}", start):
                found.append(f"{shown(file)}:{node.lineno} {ast.unparse(node)}")
        for before, after in itertools.pairwise(entries):
            if re.fullmatch(r"--?[a-zA-Z][\w:-]*|--X", _text(before)) and _text(before) not in ("-c", "-m"):
                made = isinstance(after, ast.Call) and ast.unparse(after.func) in WORDS_OF_OPTIONS
                if not made and not isinstance(after, ast.Constant):
                    found.append(f"{shown(file)}:{before.lineno} {ast.unparse(before)}, {ast.unparse(after)}")
    return found


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(p.value) if isinstance(p, ast.Constant) else "X" for p in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def quoters(file: Path) -> list[str]:
    """Where a module quotes for a shell by itself."""
    names = {"quote", "join", "list2cmdline"}
    plain = {a.asname or a.name for n in ast.walk(tree(file)) if isinstance(n, ast.ImportFrom)
             and n.module in ("shlex", "subprocess", "pipes") for a in n.names if a.name in names}  # fmt: skip
    return [
        f"{shown(file)}:{node.lineno} {ast.unparse(node)}"
        for node in ast.walk(tree(file))
        if (isinstance(node, ast.Name) and node.id in plain)
        or (isinstance(node, ast.Attribute) and node.attr in names
            and ast.unparse(node.value) in ("shlex", "subprocess", "pipes"))
    ]  # fmt: skip


def test_one_module_makes_options_of_values_and_quotes_for_shells() -> None:
    files = [p for p in sources("common", "tools") if shown(p) != DOOR]
    wrong = [w for path in files for w in (*split_options(path), *quoters(path))]
    assert not wrong, "common.command_words and common.bundle_words make the words of commands:\n" + "\n".join(wrong)
    assert quoters(ROOT / DOOR), "the door is where it was"


@pytest.mark.parametrize(
    "text, count",
    [
        ("['run', '--name', name]", 1),
        ("w += ['--name', word(name)]", 1),
        ("w += [f'--{key}', str(value)]", 1),
        ("f('--name', name)", 1),
        ("['-i', str(path)]", 1),
        ("['--name', '1', '-m', x, '-c', y]", 0),
        ("['-i', place(path), option('name', name), '--quiet', knob('a', b)]", 0),
        ("'--name ' + name", 1),
        ("'--' + key", 1),
        ("'a --name=' + name", 1),
        ("'--name=%s' % name", 1),
        ("'--name {}'.format(name)", 1),
        ("'--{}={}'.format(key, name)", 1),
        ("'a -- ' + name", 0),
    ],
)
def test_an_option_apart_from_its_value_is_found(text: str, count: int, tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(text)
    assert len(split_options(file)) == count


@pytest.mark.parametrize(
    "text, count",
    [
        ("import shlex\nshlex.quote(a) + shlex.join(b)", 2),
        ("from shlex import quote as q\nq(a)", 1),
        ("import shlex\nshlex.split(a)\n','.join(b)", 0),
    ],
)
def test_a_quoter_is_found(text: str, count: int, tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(text)
    assert len(quoters(file)) == count


def test_printed_commands_are_quoted_for_a_shell() -> None:
    wrong = [w for path in sources("common", "tools") if shown(path) != DOOR for w in unquoted(path)]
    assert not wrong, "take shown_option and shown_place, or say in OWN_WORDS that it is none from data:\n" + "\n".join(
        wrong
    )


@pytest.mark.parametrize("file, words", sorted(OWN_WORDS))
def test_every_exemption_is_needed(file: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "OWN_WORDS", OWN_WORDS - {(file, words)})
    assert unquoted(ROOT / file), "take it out of OWN_WORDS: nothing in a printed command is called so"


@pytest.mark.parametrize(
    "text, count",
    [
        ("f'next: python -m tools data check {out}'", 1),
        ("f'next: python -m tools data check {shown_place(out)}, then {out}'", 0),
        ("f'next: python -m tools data check {shlex.quote(out)}'", 1),
        ("f'python -m tools x {shown_option(key, out)}'", 0),
        ("f'--name {shown(name)}'", 1),
        ("f'--{key} {name}'", 1),
        ("f'--name {name}'", 1),
        ("f'--name \"{name}\"'", 1),
        ("f'--name={quote(name)} --other {shown(name)}'", 2),
        ("f'python -m tools x {shown(a, f\"--b {c}\")} {d}'", 1),
        ("f'add --force True: {name}'", 0),
    ],
)
def test_an_unquoted_command_is_found(text: str, count: int, tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(text)
    assert len(unquoted(file)) == count
