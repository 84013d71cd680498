"""The configuration of somebody else's MONAI bundle, put together from files of the bundle alone.

MONAI takes ``%file.json::key`` from anywhere, seen from the folder that one happens to stand in. What a bundle's code
is would then hang on files that nobody has agreed to, so that such words are taken from the bundle or refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ExpertError
from ..paths import check_path
from ..plain_yaml import read_config

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

__all__ = ["bundle_parser", "calls_of"]

_LARGEST = 10_000_000
_LONGEST_CHAIN = 20
_CUT = "::"


def bundle_parser(file: Path, root: Path) -> ConfigParser:
    """A parser of a bundle's configuration, all of it from files below the bundle's folder; nothing is evaluated.

    Args:
        file: the configuration.
        root: the bundle's folder, from which ``%file.json::key`` is read.

    Raises:
        ConfigError: for a file that cannot be read.
        ExpertError: for a word that names a file out of the bundle, one that is not there, or too many of them.
    """
    from monai.bundle import ConfigParser

    read_config(file)  # refused before MONAI merges keys such as a::b
    budget = [_LARGEST]
    try:
        content = ConfigParser.load_config_files(str(file.resolve()))
        whole = _whole(content, file, root.resolve(), budget)
        parser = ConfigParser()
        parser.read_config(whole)
    except (KeyError, ValueError, TypeError, IndexError, RecursionError) as error:
        raise ConfigError("the configuration cannot be read", where=file, got=ascii(error)[:200]) from error
    return parser


def _whole(node: Any, file: Path, root: Path, budget: list[int]) -> Any:
    """A part of a configuration with what it names in other files in their place."""
    if isinstance(node, Mapping):
        for key in node:
            if _split(str(key))[0]:
                problem = "a key of the configuration is a file's name, and %-words could read that file"
                raise ExpertError(problem, where=file, got=f"{key!a:.100}", hint="give the key another name")
        return {key: _whole(value, file, root, budget) for key, value in node.items()}
    if isinstance(node, list):
        return [_whole(value, file, root, budget) for value in node]
    if not isinstance(node, str) or not node.startswith("%"):
        return node
    name, place = _split(node[1:])
    return _part(_inside(name, node, file, root), place, node, file, budget) if name else node


def _inside(name: str, word: str, file: Path, root: Path) -> Path:
    """The file of a bundle that a word names."""
    found = check_path(root / name, what="file", where=file, error=ExpertError).resolve()
    if not found.is_relative_to(root):
        problem = "the bundle's configuration reads a file that lies outside of the bundle"
        expected = "files of the bundle, by paths from its folder"
        hint = "copy the file into the bundle, look at it, and describe the bundle again"
        raise ExpertError(problem, where=file, got=f"{word!a:.200}", expected=expected, hint=hint)
    if not found.is_file():
        problem = "the bundle's configuration reads a file that the bundle does not have"
        raise ExpertError(problem, where=file, got=f"{word!a:.200}", expected="a path from the bundle's folder")
    return found


def _part(path: Path, place: str, word: str, file: Path, budget: list[int]) -> Any:
    """What lies at a place of a file that names no further files."""
    budget[0] -= path.stat().st_size
    if budget[0] < 0:
        problem = "the bundle's configuration reads too much"
        raise ExpertError(problem, where=file, got=f"{word!a:.200}", expected=f"at most {_LARGEST} bytes in all")
    node: Any = read_config(path)
    for key in place.split(_CUT) if place else []:
        try:
            node = node[int(key) if isinstance(node, list) else key]
        except (LookupError, TypeError, ValueError) as error:
            raise ExpertError("there is no such part of the file", where=path, got=f"{word!a:.200}") from error
    _refuse_files(node, path)
    return node


def _refuse_files(node: Any, path: Path) -> None:
    if isinstance(node, str) and node.startswith("%") and _split(node[1:])[0]:
        problem = "a file that the bundle's configuration reads names a further one"
        raise ExpertError(problem, where=path, got=f"{node!a:.200}", hint="write that part out")
    children = dict(enumerate(node)) if isinstance(node, list) else node if isinstance(node, Mapping) else {}
    for key, value in children.items():
        if _split(str(key))[0]:
            raise ExpertError("a key of the configuration is a file's name", where=path, got=f"{key!a:.100}")
        _refuse_files(value, path)


def _split(text: str) -> tuple[str, str]:
    """The file and the place in it that a word names, as MONAI takes it apart; no file for a place alone."""
    from monai.bundle import ConfigParser

    name, place = ConfigParser.split_path_id(text)
    return name, place


def calls_of(parser: ConfigParser) -> list[str]:
    """What a configuration would call, evaluate and copy, one line each.

    A call whose name stands elsewhere in the configuration (``@name``, ``%name``) is listed with that name.
    """
    found: list[str] = []
    waiting: list[tuple[str, Any]] = [("", parser.get())]
    while waiting:
        place, node = waiting.pop()
        if isinstance(node, Mapping):
            if "_target_" in node:
                own = f"{place}{_CUT}_target_" if place else "_target_"
                found.append(f"call      {_shown(_named(parser, own, node['_target_']))}")
            waiting += [(f"{place}{_CUT}{k}" if place else str(k), v) for k, v in reversed(list(node.items()))]
        elif isinstance(node, list):
            waiting += [(f"{place}{_CUT}{i}" if place else str(i), v) for i, v in reversed(list(enumerate(node)))]
        elif isinstance(node, str) and node.startswith("$"):
            found.append(f"evaluate  {_shown(node[1:])}")
        elif isinstance(node, str) and node.startswith("%"):
            found.append(f"read      {_shown(node[1:])}")
    return list(dict.fromkeys(found))


def _named(parser: ConfigParser, place: str, target: Any) -> str:
    """A call's name, and what it stands for where it is a word for another part of the configuration."""
    chain = [str(target)]
    while isinstance(target, str) and target.startswith(("@", "%")) and len(chain) < _LONGEST_CHAIN:
        try:
            place = parser.resolve_relative_ids(place, target)[1:]
            target = parser[place]
        except (KeyError, ValueError, IndexError, TypeError):
            target = "something that cannot be seen here"
        chain.append(str(target))
    return " = ".join(chain)


def _shown(text: object) -> str:
    return ascii(text)[1:-1]
