"""Words of our command lines: each means what its argument's annotation says."""

from __future__ import annotations

import ast
import collections.abc
import inspect
import itertools
import re
import types
import typing
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common.bundle_words import guessed
from common.command_words import shown
from common.errors import ConfigError
from common.paths import is_there
from common.whole_numbers import whole_number

__all__ = ["count_of", "name_pairs", "parse_by_annotations", "parsed", "seeds_of", "with_values"]

_SWITCH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_VALUE = re.compile(r"-+[\w:#]+\s|-\d")  # "--key value" as one word, or a negative number

_FLOAT = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40}|inf)(e[+-]?[0-9]{1,2})?", re.IGNORECASE)
_LARGE = 10**18

_PAIR = re.compile(r"[^-=/\\\s][^=/\\]*=.")  # <name>=<value>, no option and no path
_DASHED = re.compile(r"-(?!-\w)")  # -x, which Fire takes for a short option; -, --, which mean something to it


def parse_by_annotations(function: Callable[..., Any]) -> None:
    """Tell Fire how to read the arguments of a function; what has no annotation stays Fire's guess.

    Args:
        function: a command, or a method that is one.
    """
    from fire.decorators import SetParseFns

    plain = function.__func__ if inspect.ismethod(function) else function
    hints = typing.get_type_hints(plain)
    named, default = {}, None
    for name, parameter in inspect.signature(plain).parameters.items():
        if name not in hints or parameter.kind is parameter.VAR_KEYWORD:
            continue
        read = partial(parsed, hint=hints[name], option=name)
        if parameter.kind is parameter.VAR_POSITIONAL:
            default = read
        else:
            named[name] = read
    SetParseFns(**named)(plain)
    if default is not None:
        vars(plain)["FIRE_METADATA"]["FIRE_PARSE_FNS"]["default"] = default


def parsed(text: str, *, hint: Any, option: str) -> Any:
    """A word as what an annotation says.

    Text stays text, also ``12345``, ``a,b`` and ``[x]``; ``None`` is none where that is allowed. Where both text and a
    list are, only a list of quoted entries is a list.

    Args:
        text: the word.
        hint: the annotation: ``str``, ``bool``, ``int``, ``float``, lists and mappings of them, and unions.
        option: the argument's name, for the message.

    Raises:
        ConfigError: for a word that cannot be what is wanted.
    """
    kinds = _kinds(hint)
    if Any in kinds:
        return guessed(text)
    if type(None) in kinds and text == "None":
        return None
    for kind in (k for k in (bool, int, float) if k in kinds):
        simple = _simple(text, kind)
        if simple is not None:
            return simple if kind is bool else _checked_seed(simple, option)
    if str in kinds or Path in kinds:
        mapping = dict in kinds and text.startswith("{")
        value = _guessed(text) if mapping else _literally(text) if Sequence in kinds and text[:1] in "[(" else None
        listed = isinstance(value, (list, tuple)) and all(isinstance(entry, str) for entry in value)
        return value if listed or isinstance(value, dict) else text
    value = _literally(text) if Sequence not in kinds and dict not in kinds else _guessed(text)
    if dict in kinds and isinstance(value, dict):
        return value
    if Sequence in kinds and not isinstance(value, dict):
        entries = value if isinstance(value, (list, tuple)) else (value,)
        if all(_fits(entry, _entries(hint)) for entry in entries):
            return _checked_seed(entries, option)
    wanted = " or ".join(sorted(_words(k) for k in kinds if k is not type(None)))
    raise ConfigError(f"this is not {wanted}", where=f"--{option}", got=f"{text!a:.200}", expected=wanted)


def _checked_seed(value: Any, option: str) -> Any:
    """The value; of a seed, refuse one below 0, for which no random numbers begin."""
    if option in ("seed", "seeds") and any(v < 0 for v in (value if isinstance(value, (list, tuple)) else [value])):
        raise ConfigError("a seed is a number >= 0", where=f"--{option}", got=value, expected="0, 1, 2, ...")
    return value


def seeds_of(value: int | str | Sequence[int | str]) -> tuple[int, ...]:
    """The seeds of an option, as numbers or in text.

    Raises:
        ConfigError: for none, one that is none, and one that is given twice.
    """
    given = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, Sequence) else [value]
    read = [whole_number(v.strip(), digits=18) if isinstance(v, str) else v for v in given]
    seeds = tuple(v for v in read if isinstance(v, int) and not isinstance(v, bool) and v >= 0)
    if not seeds or len(set(seeds)) < len(read):
        raise ConfigError("seeds are different numbers", where="--seeds", got=f"{value!a:.200}",
                          expected="numbers >= 0, for example 0,1,2")  # fmt: skip
    return seeds


def count_of(value: int | str, option: str, *, auto: int) -> int:
    """A number from 1 on, or ``auto``.

    Args:
        value: what was typed.
        option: its name, for the message.
        auto: what ``auto`` is.

    Raises:
        ConfigError: for anything else.
    """
    if value == "auto":
        return auto
    found = whole_number(value) if isinstance(value, str) else value
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ConfigError("how many?", where=f"--{option}", got=f"{value!a:.200}", expected="auto, or 1, 2, ...")
    return found


def with_values(arguments: Sequence[str], function: Callable[..., Any]) -> list[str]:
    """The words of a command with ``--option value`` joined by ``=`` where the value looks like an option itself.

    ``--stage1 "--max_epochs 2"`` is one option with its value; Fire would take it for two. Several ``<name>=<value>``
    after an option that takes a list are its list: ``--scans ct=scans mr=others``.

    Args:
        arguments: what follows the command's name.
        function: the command.

    Raises:
        ConfigError: for a value in a word of its own that Fire would take for an option, or for a sign of its own.
    """
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters
    words, result = list(arguments), []
    while words:
        word = words.pop(0)
        known = word.startswith("--") and "=" not in word and word[2:].replace("-", "_") in parameters
        if known and words and _VALUE.match(words[0]):
            word = f"{word}={words.pop(0)}"
        elif known and words and _DASHED.match(words[0]) and not _switch(hints.get(word[2:].replace("-", "_"), Any)):
            problem = "a value that begins with '-' stands in one word with its option"
            raise ConfigError(problem, where=word, got=words[0], hint=shown(f"{word}={words[0]}"))
        elif known and len(pairs := _leading_pairs(words)) > 1 and _lists(hints.get(word[2:].replace("-", "_"), Any)):
            words = words[len(pairs) :]
            word = f"{word}={pairs!r}"
        result.append(word)
    return result


def _leading_pairs(words: Sequence[str]) -> list[str]:
    return list(itertools.takewhile(_PAIR.match, words))


def _lists(hint: Any) -> bool:
    return {str, Sequence} <= _kinds(hint)


def name_pairs(value: str | Sequence[str]) -> list[str]:
    """``<name>=<file>`` each; commas belong to a name or a file where no ``=`` follows.

    Args:
        value: what was typed, or a list.
    """
    if not isinstance(value, str):
        return [str(v) for v in value]
    pairs, before = list[str](), ""
    for part in value.split(","):
        if "=" in part:
            pair = f"{before}{part}".lstrip()
            pairs.append(pair if is_there(pair.partition("=")[2]) else pair.rstrip())  # a name may end in a space
            before = ""
        elif pairs and not is_there(pairs[-1].partition("=")[2]):
            pairs[-1] += f",{part}"
        else:
            before += f"{part},"
    return [*pairs, *([before.rstrip(",")] if before.rstrip(",") else [])]


def _switch(hint: Any) -> bool:
    return not {bool, Any}.isdisjoint(_kinds(hint))


def _entries(hint: Any) -> set[Any]:
    """What the entries of a list may be, of the lists that an annotation allows."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return set().union(*(_kinds(typing.get_args(p)[0]) for p in parts if Sequence in _kinds(p) and typing.get_args(p)))


def _fits(entry: Any, kinds: set[Any]) -> bool:
    """Whether an entry that Fire read is a number where the annotation says so; others are judged elsewhere."""
    if not kinds or not kinds <= {int, float}:
        return True
    number = isinstance(entry, (int, float) if float in kinds else int) and not isinstance(entry, bool)
    return number and abs(entry) < _LARGE


def _kinds(hint: Any) -> set[Any]:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return set().union(*(_kinds(part) for part in typing.get_args(hint)))
    if origin is None:
        return {Sequence if hint in (list, tuple) else hint}
    if origin in (list, tuple, collections.abc.Sequence):
        return {Sequence}
    return {dict} if origin in (dict, collections.abc.Mapping) else {origin}


def _words(kind: Any) -> str:
    names = {bool: "True or False", int: "a whole number", float: "a number", dict: "a mapping such as {'a': 1}",
             Sequence: "a list such as 1,2,3"}  # fmt: skip
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def _simple(text: str, kind: type) -> Any:
    if kind is bool:
        return _SWITCH.get(text.lower())
    if kind is int:
        return whole_number(text, digits=18, negative=True)
    return float(text) if _FLOAT.fullmatch(text) else None


def _guessed(text: str) -> Any:
    try:
        return guessed(text)
    except (ValueError, MemoryError, RecursionError):
        return None


def _literally(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
