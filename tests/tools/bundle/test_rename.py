"""The package is renamed where it is meant, in code, expressions and documents, and nothing else changes."""

from __future__ import annotations

import ast
import subprocess
import sys
import types
from pathlib import Path

import pytest

from common.errors import ConfigError
from tools.bundle.closure import SOURCE, closure, named_modules
from tools.bundle.names import module_of, spots
from tools.bundle.rename import renamed_code, renamed_document, renamed_expression, renamed_target
from tools.bundle.vendor import leftovers

TRICKY = '''"""Of :class:`~common.labels.LabelSpace`, and of common.sense."""
from common import labels
from common.errors import few  # common.errors stays in a comment
from  common . labels  import ( LabelSpace,
    BACKGROUND )
import common as c, json
import common.prompts as prompts
from segment_anything.modeling import common as theirs
import importlib

TARGET = {"_target_": "common.labels.LabelSpace", "common": 1, "note": "see common.labels.LabelSpace there"}
MODULE = importlib.import_module('common.geometry')
ALSO = __import__(name="common")
FILE, WORD, ODD = "common.py", "common.denominator", r"common\\.labels"
größe = "ü"; SAME_LINE = "common.labels"


def frames(common, *, tools=None):
    """Variables that are called common."""
    items = common.get("common") or common.labels.get(f"{common.labels} common.labels {tools.x!r}")
    theirs.common = [common.errors for common in (common, items)]
    return dict(common=common, tools=tools), lambda common: common.labels
'''
EXPECTED = '''"""Of :class:`~b_bundle.common.labels.LabelSpace`, and of common.sense."""
from b_bundle.common import labels
from b_bundle.common.errors import few  # common.errors stays in a comment
from  b_bundle.common . labels  import ( LabelSpace,
    BACKGROUND )
import b_bundle.common as c, json
import b_bundle.common.prompts as prompts
from segment_anything.modeling import common as theirs
import importlib

TARGET = {"_target_": "b_bundle.common.labels.LabelSpace", "common": 1, "note": "see common.labels.LabelSpace there"}
MODULE = importlib.import_module('b_bundle.common.geometry')
ALSO = __import__(name="b_bundle.common")
FILE, WORD, ODD = "common.py", "common.denominator", r"common\\.labels"
größe = "ü"; SAME_LINE = "b_bundle.common.labels"


def frames(common, *, tools=None):
    """Variables that are called common."""
    items = common.get("common") or common.labels.get(f"{common.labels} common.labels {tools.x!r}")
    theirs.common = [common.errors for common in (common, items)]
    return dict(common=common, tools=tools), lambda common: common.labels
'''


def test_only_what_means_the_package_is_renamed() -> None:
    assert renamed_code(TRICKY, "b_bundle", SOURCE) == EXPECTED


def test_relative_imports_and_line_ends_stay() -> None:
    text = "from . import io\nfrom ..errors import few\nfrom ...common.x import y\r\nx = 1\r\n"
    assert renamed_code(text, "b", SOURCE) == text
    folded = "from \\\n  common.labels import x\n"
    assert renamed_code(folded, "b", SOURCE) == "from \\\n  b.common.labels import x\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import common.labels\n", r"(?s)binds the name 'common'.*from common\.x"),
        ("import json, common\n", "binds the name 'common'"),
        ("from importlib import import_module\nimport_module(f'common.methods.{x}')\n", "put together"),
        ("__import__('common.' + x)\n", "put together"),
        ("x = ('common.' 'labels')\n", "cannot be reached"),
    ],
)
def test_what_cannot_be_renamed_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        renamed_code(text, "b_bundle", SOURCE)


def test_the_renamed_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dictionary's method called through a variable named common, as the reader of enhanced images does."""
    code = renamed_code("def group(own, common, name):\n    return own.get(name) or common.get(name)\n", "b", SOURCE)
    module = types.ModuleType("renamed")
    exec(compile(code, "<renamed>", "exec"), module.__dict__)
    assert module.group({}, {"a": 3}, "a") == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("common.data.io.read_volume(@path)", "b.common.data.io.read_volume(@path)"),
        (
            " common.labels.x if @a::0::b else common.errors.few",
            " b.common.labels.x if @a::0::b else b.common.errors.few",
        ),
        ("import common.labels", "import b.common.labels"),
        ("from common.labels import LabelSpace", "from b.common.labels import LabelSpace"),
        ("__import__('common.labels').labels", "__import__('b.common.labels').labels"),
        ("[common.labels for common in @rows]", "[common.labels for common in @rows]"),
        ("(lambda common: common.data)(@x)", "(lambda common: common.data)(@x)"),
        ("@common.data.x + 'a common.place'", "@common.data.x + 'a common.place'"),
        ("my.common.data", "my.common.data"),
        ("@x['common.labels.LabelSpace']", "@x['b.common.labels.LabelSpace']"),
        ("'ä' + common.labels.x", "'ä' + b.common.labels.x"),
    ],
)
def test_expressions(text: str, expected: str) -> None:
    assert renamed_expression(text, "b", SOURCE) == expected


def test_expressions_and_targets_that_are_none() -> None:
    with pytest.raises(ConfigError, match="not an expression"):
        renamed_expression("common.data.(", "b", SOURCE)
    with pytest.raises(ConfigError, match="a module that there is not"):
        named_modules(["$common.nothing.x"])
    assert named_modules(["$[common.nothing for common in @x]", "$'a common.nothing'"]) == set()
    assert [renamed_target(t, "b") for t in ("common.a.B", "commons.a", "torch.common.x")] == [
        "b.common.a.B", "commons.a", "torch.common.x"]  # fmt: skip


def test_documents_by_their_code_only() -> None:
    text = (
        "A common.labels word, `common.labels.LabelSpace`, ``common.errors``, `common.sense` and "
        "[code](common/labels.py).\n\n```python\nfrom common.labels import x\ncommon.append(1)\n```\n"
        "~~~\ncommon.errors\n~~~\n"
    )
    assert renamed_document(text, "b", SOURCE) == (
        "A common.labels word, `b.common.labels.LabelSpace`, ``b.common.errors``, `common.sense` and "
        "[code](common/labels.py).\n\n```python\nfrom b.common.labels import x\ncommon.append(1)\n```\n~~~\n"
        "b.common.errors\n~~~\n"
    )


def test_a_name_is_one_of_ours_when_it_is_defined() -> None:
    assert module_of("common.labels.LabelSpace", SOURCE) == "common.labels"
    assert module_of("common.labels.nothing", SOURCE) is None and module_of("common.nothing", SOURCE) is None
    assert module_of("common.labels.nothing", SOURCE, defined=False) == "common.labels"


def test_a_module_that_a_text_names_travels(tmp_path: Path) -> None:
    for name, text in (("__init__", ""), ("a", "X = {'_target_': 'common.b.Y'}\n"), ("b", "class Y: ...\n"), ("c", "")):
        (tmp_path / "common").mkdir(exist_ok=True)
        (tmp_path / "common" / f"{name}.py").write_text(text)
    assert list(closure(["common.a.X"], tmp_path / "common").modules) == ["common", "common.a", "common.b"]
    (tmp_path / "common" / "a.py").write_text("__import__('common.gone')\n")
    with pytest.raises(ConfigError, match="a module that there is not"):
        closure(["common.a.X"], tmp_path / "common")


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("a.py", TRICKY, {2, 3, 4, 6, 7, 11, 12, 13, 15}),
        ("b.py", EXPECTED, set()),
        ("c.py", "import tools.x\ntools = common = {}\ntools.x = common.labels\n", {1}),
        ("a.json", '{"_target_": "tools.x.Y",\n "y": "$common.labels.x",\n "z": "$torch.x"}', {1, 2}),
        ("b.json", '{"note": "common.labels", "y": "$[common.labels for common in @x]"}', set()),
        ("a.md", "a \\`common.labels\\` b\n`common.labels`\n", {2}),
        ("b.md", "a\\`, b\\`common.labels, c\n", set()),
        ("c.json", '{"price": "$5 for common.labels", "y": "$common.labels.x"}', {1}),
        ("d.json", '{"price": "$5 for common.labels"}', set()),
        ("docs/data_license.txt", "the data of common.labels", set()),
        ("a.md", "common.labels\n`common.labels` and `tools.chain.command.Chain`\n", {2}),
        ("a.txt", "x\nclass=common.labels.LabelSpace\ncommon.sense", {2}),
    ],
)
def test_what_is_left_is_found(tmp_path: Path, name: str, text: str, lines: set[int]) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert {int(line.split(":")[1]) for line in leftovers(tmp_path)} == lines


def test_a_name_that_an_expression_puts_together_is_refused(tmp_path: Path) -> None:
    expression = "$__import__('importlib').import_module('tools.' + 'x')"
    (tmp_path / "a.json").write_text(f'{{"y": "{expression}"}}')
    with pytest.raises(ConfigError, match="put together"):
        leftovers(tmp_path)


def test_a_variable_that_was_renamed_would_be_noticed() -> None:
    """The check of the nine bundles finds what the packer once wrote."""
    pytest.importorskip("ruff")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "-"]
    code = "def group(common, name):\n    return b_bundle.common.get(name)\n"
    done = subprocess.run(command, check=False, input=code, capture_output=True, text=True)
    assert done.returncode == 1 and "b_bundle" in done.stdout


def test_a_name_is_ours_where_it_is_whole_or_where_a_call_imports_it() -> None:
    """A text that only begins with the word is imported by a call, and is a text everywhere else."""
    source = SOURCE
    for text, count in (
        ("x = 'common.labels.LabelSpace'", 1),  # a whole name of something of ours
        ("x = 'common.denominator'", 0),
        ("import_module('common.denominator')", 1),  # whatever is imported so is meant as a module
        ("import_module('json')", 0),
        ("other('common.denominator')", 0),
        ("import_module(name='common.denominator')", 1),
        ("'common.labels'", 0),  # a document
        ("x = 'common'", 0),
        ("import json\nx = 'json.common'", 0),
    ):
        assert len(list(spots(ast.parse(text), text, source))) == count, text
    with pytest.raises(ConfigError, match="put together"):
        list(spots(ast.parse("import_module(f'common.{x}')"), "import_module(f'common.{x}')", source))


@pytest.mark.parametrize(
    ("text", "name", "at"),
    [
        ("from common.labels import LabelSpace", "common.labels", 5),
        ("from  common import labels", "common", 6),
        ("import json, common.errors as e", "common.errors", 13),
        ("x = 'common.labels'", "common.labels", 5),
        ("'ä'; import common", "common", 13),  # bytes are counted
    ],
)
def test_a_spot_says_what_is_named_and_where(text: str, name: str, at: int) -> None:
    (spot,) = spots(ast.parse(text), text, SOURCE)
    assert (spot.name, spot.at) == (name, at)
    assert text.encode()[spot.at :].startswith(b"common")
    assert not list(spots(ast.parse("from .common import x"), "from .common import x", SOURCE))
