"""Which modules and data files of ``common`` a bundle needs, found by reading imports, without importing anything."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import common
from common.errors import ConfigError

__all__ = ["SOURCE", "Closure", "closure", "imports", "named_modules"]

SOURCE = Path(common.__file__).resolve().parent
ROOT = "common"
NAME = re.compile(r"(?<![\w./])common((?:\.[A-Za-z_]\w*)+)")


class Closure(NamedTuple):
    """What has to travel with a bundle.

    Args:
        modules: file of every module by its name (``common.data.io``), packages included.
        data: files beside the modules that they read, relative to ``common``'s folder.
        required: libraries that are imported when a module is.
        optional: libraries that are only imported inside functions.
    """

    modules: dict[str, Path]
    data: tuple[str, ...]
    required: frozenset[str]
    optional: frozenset[str]


class Import(NamedTuple):
    """One import: the absolute name, and whether it happens when the module is imported."""

    name: str
    early: bool


def _file(module: str, source: Path) -> Path | None:
    path = source.joinpath(*module.split(".")[1:])
    for candidate in (path.with_suffix(".py") if path != source else path, path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def named_modules(texts: Iterable[str], source: Path = SOURCE) -> set[str]:
    """Modules that texts name: the longest part of each ``common.a.b.C`` that is a module.

    Raises:
        ConfigError: when a text names something that is in no module.
    """
    found = set()
    for text in texts:
        for match in NAME.finditer(text):
            parts = [ROOT, *match.group(1)[1:].split(".")]
            module = next((".".join(parts[:n]) for n in range(len(parts), 1, -1) if _file(".".join(parts[:n]), source)),
                          None)  # fmt: skip
            if module is None:
                raise ConfigError("names a module that there is not", where=text[:80], got=".".join(parts))
            found.add(module)
    return found


def imports(path: Path, module: str) -> Iterator[Import]:
    """Every import of a file as absolute names; ``from a import b`` gives ``a`` and ``a.b``.

    Raises:
        ConfigError: for a bare ``import common``, which a renamed package could not offer.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef)
              for n in ast.walk(f)}  # fmt: skip
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        early = id(node) not in inside
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == ROOT:
                    raise ConfigError(
                        "cannot be vendored: write 'from common.x import y'", where=f"{path}:{node.lineno}"
                    )
                yield Import(alias.name, early)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield Import(base, early)
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", early)


def closure(texts: Iterable[str], source: Path = SOURCE) -> Closure:
    """Modules that configurations name, everything that those import, and the data files that they read.

    Args:
        texts: ``_target_`` values and ``$`` expressions.
        source: the folder of ``common``.

    Raises:
        ConfigError: when something is named or imported that does not exist.
    """
    waiting = sorted(named_modules(texts, source)) or [ROOT]
    modules: dict[str, Path] = {}
    early: set[str] = set()
    late: set[str] = set()
    while waiting:
        module = waiting.pop()
        path = _file(module, source)
        if module in modules or path is None:
            continue
        modules[module] = path
        waiting += [module.rpartition(".")[0]] if "." in module else []
        for found in imports(path, module):
            root = found.name.split(".")[0]
            if root == ROOT:
                waiting.append(found.name)
            elif root not in sys.stdlib_module_names:
                (early if found.early else late).add(root)
    files = sorted({f for p in modules.values() for f in _read_beside(p, source)})
    return Closure(dict(sorted(modules.items())), tuple(files), frozenset(early), frozenset(late - early))


def _read_beside(path: Path, source: Path) -> Iterator[str]:
    """Files beside a module that it reads: those that it names in full, and those that have its own name.

    Raises:
        ConfigError: when it looks for files beside itself and none is known.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    named = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    beside = [p for p in sorted(path.parent.iterdir()) if p.is_file() and p.suffix not in (".py", ".pyc")]
    found = [p for p in beside if p.name in named or p.stem == path.stem]
    if not found and any(isinstance(n, ast.Name) and n.id == "__file__" for n in ast.walk(tree)):
        raise ConfigError("reads files beside itself that cannot be told from its code", where=path,
                          hint="give the files the module's name, or name them in full")  # fmt: skip
    yield from (p.relative_to(source).as_posix() for p in found)
