"""Configurations in YAML or JSON as plain data that is no larger in memory than in its file.

A YAML file of a few lines can name a part of itself so often that reading it takes all memory; JSON has no such names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import ConfigError
from .paths import check_path

__all__ = ["check_plain_yaml", "read_config"]

_LARGEST = 10_000_000
_DEEPEST = 100


def check_plain_yaml(path: str | Path) -> None:
    """Refuse a configuration that is too large, too deep, or names parts of itself; nothing is built.

    Raises:
        ConfigError: for such a file, or one that is neither YAML nor JSON.
    """
    path = check_path(path, what="configuration", error=ConfigError)
    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigError("the configuration is too large", where=path, expected=f"at most {_LARGEST} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError("the configuration cannot be read", where=path, got=ascii(error)[:200]) from error
    depth = _depth(text) if path.suffix.lower() == ".json" else _yaml_depth(text, path)
    if depth > _DEEPEST:
        raise ConfigError("the configuration is too deep", where=path, expected=f"at most {_DEEPEST} levels")


def _yaml_depth(text: str, path: Path) -> int:
    """How deep lists and mappings nest, at most one more than is accepted."""
    from monai.bundle import config_parser

    yaml: Any = config_parser.yaml  # the one that MONAI reads with
    depth = deepest = 0
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise ConfigError("the configuration names parts of itself", where=path, got=ascii(event.anchor),
                                  expected="YAML without & and *", hint="write the parts out")  # fmt: skip
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            deepest = max(deepest, depth)
            if deepest > _DEEPEST:
                break
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError("the configuration cannot be read", where=path, got=ascii(error)[:200]) from error
    return deepest


def _depth(text: str) -> int:
    """How deep brackets nest; those in texts may count, which only makes a limit stricter."""
    depth = deepest = 0
    quoted = escaped = False
    for char in text:
        if quoted:
            quoted, escaped = escaped or char != '"', not escaped and char == "\\"
        elif char == '"':
            quoted = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def read_config(path: str | Path) -> dict[str, Any]:
    """A configuration as MONAI reads it, with nothing evaluated.

    Raises:
        ConfigError: for a file that :func:`check_plain_yaml` refuses, or that holds no keys and values.
    """
    from monai.bundle import ConfigParser

    check_plain_yaml(path)
    try:
        content = ConfigParser.load_config_file(str(path))
    except Exception as error:  # of the JSON or YAML reader
        raise ConfigError("the configuration cannot be read", where=path, got=ascii(error)[:200]) from error
    if not isinstance(content, dict):
        raise ConfigError("the configuration cannot be read", where=path, got=type(content).__name__,
                          expected="keys and values")  # fmt: skip
    return dict(content)
