"""Words of command lines: text from data is the value of an option or a place, and never an option of its own.

Programs tell options from values by the first sign of a word: ``--name -x`` is two options. So a value stands in one
word with its option, ``--name=-x``, and a path that begins with ``-`` gets ``./`` in front. Nothing else in the code
puts ``--`` before a value or quotes for a shell.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from .errors import ConfigError

__all__ = ["option", "place", "shown", "shown_option", "shown_place"]

_KEY = re.compile(r"\+?\w[\w:#.+-]*")
_OPTION = re.compile(r"(--\+?\w[\w:#.+-]*=)(.*)", re.DOTALL)
_OBEYED = frozenset('"$`\\!')


def option(key: str, value: object) -> str:
    """``--key=value``, one word whatever the value holds.

    Args:
        key: the option's name, without dashes.
        value: what follows, as text.

    Raises:
        ConfigError: for a key that would end before its ``=`` or is none.
    """
    if not _KEY.fullmatch(key):
        raise ConfigError("this cannot be the name of an option", got=f"--{key!a}",
                          expected="letters, digits and _, parts joined by ::")  # fmt: skip
    return f"--{key}={value}"


def place(path: str | Path) -> str:
    """A path as a word of its own that no program takes for an option."""
    text = str(path)
    return f"./{text}" if text.startswith("-") else text


def shown(*words: str) -> str:
    """Words as a person would type them into a shell."""
    return " ".join(map(_quoted, words))


def shown_option(key: str, value: object) -> str:
    """An option and its value as a person would type them: ``--key value``, or in one word a value with ``-`` in front.

    Args:
        key: as of :func:`option`.
        value: also.

    Raises:
        ConfigError: as :func:`option`.
    """
    word = option(key, value)
    return shown(word) if str(value).startswith("-") else shown(f"--{key}", str(value))


def shown_place(path: str | Path) -> str:
    """A path as a person would type it into a shell."""
    return shown(place(path))


def _quoted(word: str) -> str:
    found = _OPTION.fullmatch(word)
    start, value = found.groups() if found else ("", word)
    if "'" in value and not set(value) & _OBEYED:
        return f'{start}"{value}"'
    return start + shlex.quote(value) if value or not start else word
