"""Words of a ``python -m monai.bundle run`` command, which both its readers take for the value that is meant.

Fire reads a word first and makes numbers, lists or mappings of it, MONAI's configuration second and evaluates text with
certain signs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .command_words import option, shown_option
from .literals import inert

__all__ = [
    "FILES",
    "TypedText",
    "as_typed",
    "guessed",
    "knob",
    "knobs",
    "said_again",
    "shown_knob",
    "with_files",
    "word",
]

FILES = "config_file"


class TypedText(str):
    """A value that a user typed for a configuration, which may mean it as an expression; all other text is data."""


def as_typed(overrides: Iterable[tuple[str, str]]) -> dict[str, TypedText]:
    """Overrides that a user typed."""
    return {key: TypedText(value) for key, value in overrides}


def said_again(value: object) -> TypedText:
    """What a user typed and Fire has read already, as the word that it reads so again."""
    plain = isinstance(value, str) and _taken_for(value) == value
    return TypedText(value if plain else repr(value))


def knob(key: str, value: object) -> str:
    """A value of a configuration as one word of the command, ``--key=word``.

    Args:
        key: of the configuration.
        value: as of :func:`word`.

    Raises:
        ConfigError: for a key that is none.
    """
    return option(key, word(value))


def knobs(values: Mapping[str, object]) -> list[str]:
    """:func:`knob` of each."""
    return [knob(key, value) for key, value in values.items()]


def with_files(files: Sequence[Path]) -> str:
    """``--config_file=...``, the word that names the configuration files in the order of merging."""
    plain = len(files) == 1 and _taken_for(str(files[0])) == str(files[0])
    return option(FILES, str(files[0]) if plain else "[" + ",".join(repr(str(f)) for f in files) + "]")


def shown_knob(key: str, value: object) -> str:
    """:func:`knob` as a person would type it into a shell."""
    return shown_option(key, word(value))


def word(value: object) -> str:
    """The value of an option that Fire and MONAI read as this value and nothing else.

    Text that Fire would take for a number or a list, or MONAI for an expression, travels as the call of
    :func:`common.literals.value`. It may begin with ``-``: :func:`knob` makes one word of it and its key.
    """
    if isinstance(value, TypedText):
        return str(value)
    content = inert(_plain(value))
    return content if isinstance(content, str) and _taken_for(content) == content else repr(content)


def _plain(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return str(value) if isinstance(value, Path) else value


def guessed(text: str) -> Any:
    """What Fire takes a value for without an annotation: bare words inside lists and mappings are text."""
    from fire.parser import DefaultParseValue

    return DefaultParseValue(text)


def _taken_for(text: str) -> Any:
    try:
        return guessed(text)
    except (MemoryError, RecursionError):
        return None  # brackets or signs too deep for Python's parser; as a quoted text they are none
