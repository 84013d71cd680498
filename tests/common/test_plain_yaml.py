"""A configuration is no larger in memory than in its file, whatever it names."""

from __future__ import annotations

import json

import pytest

from common.errors import ConfigError
from common.plain_yaml import check_plain_yaml, read_config

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("x.yaml", BOMB, "names parts of itself"),
        ("x.yml", "a: &me [*me]\n", "names parts of itself"),
        ("x.yml", "a: &unused 1\n", "names parts of itself"),
        ("x.yml", "base: &b {k: 1}\nc:\n  <<: *b\n", "names parts of itself"),
        ("x.yml", "[" * 5000, "too deep|cannot be read"),
        ("x.yml", "a: " + "[" * 200 + "]" * 200, "too deep"),
        ("x.json", "[" * 100_000, "too deep"),
        ("x.json", '{"a": ' * 200 + "1" + "}" * 200, "too deep"),
        ("x.json", '{"a": "' + "x" * 10_000_000 + '"}', "too large"),
        ("x.yml", "a: [1", "cannot be read"),
        ("x.yml", "a: !!python/object/apply:os.system [id]\n", "cannot be read"),
        ("x.yml", "- 1\n", "cannot be read"),
        ("x.json", "{", "cannot be read"),
    ],
    ids=range(13),
)
def test_what_would_take_all_memory_is_refused(name, text, problem, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_config(tmp_path / name)


def test_ordinary_configurations_are_read(tmp_path):
    content = {"a": {"b": [1, "& * [[[[", '"[' * 200]}, "c": "$@a + 1"}
    (tmp_path / "x.json").write_text(json.dumps(content))
    (tmp_path / "x.yaml").write_text("a:\n  b: [1, '&x *x']\nc: $@a + 1\n")
    assert read_config(tmp_path / "x.json") == content
    assert read_config(tmp_path / "x.yaml") == {"a": {"b": [1, "&x *x"]}, "c": "$@a + 1"}
    with pytest.raises(ConfigError, match="cannot be read"):
        check_plain_yaml(tmp_path / "missing.yml")


def test_a_hundred_levels_are_not_too_deep(tmp_path):
    for name, start, stop in (("x.json", '{"a": ', "}"), ("x.yml", "{a: ", "}"), ("x.yaml", "[", "]")):
        file = tmp_path / name
        file.write_text(start * 100 + "1" + stop * 100)
        check_plain_yaml(file)
        file.write_text(start * 101 + "1" + stop * 101)
        with pytest.raises(ConfigError, match="too deep"):
            check_plain_yaml(file)


def test_brackets_in_a_text_are_no_levels(tmp_path):
    file = tmp_path / "x.json"
    for text in ("[" * 200, '\\"' + "[" * 200, "\\\\", "{" * 101 + "\\\\"):
        file.write_text('{"a": "' + text + '", "b": [[1], [2]]}')
        check_plain_yaml(file)
    file.write_text('{"a": "\\\\", "b": ' + "[" * 100 + "]" * 100 + "}")
    with pytest.raises(ConfigError, match="too deep"):
        check_plain_yaml(file)
    file.write_text(json.dumps([[1]] * 300))  # beside each other
    check_plain_yaml(file)


def test_ten_million_bytes_are_not_too_large(tmp_path):
    file = tmp_path / "x.json"
    file.write_text('"' + "x" * 9_999_998 + '"')
    check_plain_yaml(file)
