"""Which modules and data files of ``common`` a bundle needs, found by reading imports, without importing anything."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import common
from common.errors import ConfigError

from .names import ROOT, expression_spots, module_file, module_of, spots

__all__ = ["SOURCE", "Closure", "closure", "imports", "named_modules"]

SOURCE = Path(common.__file__).resolve().parent


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


class Read(NamedTuple):
    """What a file of code says: its imports, all texts in it, and whether it looks for files beside itself."""

    imports: tuple[Import, ...]
    texts: frozenset[str]
    beside: bool


class Import(NamedTuple):
    """One import: the absolute name, and whether it happens when the module is imported."""

    name: str
    early: bool


def named_modules(texts: Iterable[str], source: Path = SOURCE) -> set[str]:
    """Modules that ``_target_`` values and ``$`` expressions name: of each ``common.a.b.C`` the part that is a module.

    Raises:
        ConfigError: when a text names something that is in no module, or is no expression.
    """
    found = set()
    for text in texts:
        names = [s.name for s in expression_spots(text[1:], source)] if text.startswith("$") else [text]
        for name in names:
            if name.split(".")[0] != ROOT:
                continue
            module = module_of(name, source, defined=False)
            if module is None:
                raise ConfigError("names a module that there is not", where=text[:80], got=name)
            found.add(module)
    return found


def imports(path: Path, module: str, source: Path = SOURCE) -> Iterator[Import]:
    """Every import of a file as absolute names; ``from a import b`` gives ``a`` and ``a.b``.

    Texts that name a module of ours, as importlib takes them, count as well.

    Raises:
        ConfigError: for a bare ``import common.x``, which a renamed package could not offer under that name.
    """
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    yield from _imports(tree, path, module)
    for spot in spots(tree, text, source):
        if isinstance(spot.node, ast.Constant):
            named = module_of(spot.name, source)
            if named is None:
                raise ConfigError("names a module that there is not", where=path, got=spot.name)
            yield Import(named, False)


def _imports(tree: ast.AST, path: Path, module: str) -> Iterator[Import]:
    inside = {
        id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)
    }
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        early = id(node) not in inside
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == ROOT and alias.asname is None:
                    problem = "cannot be vendored: write 'from common.x import y' or 'import common.x as x'"
                    raise ConfigError(problem, where=f"{path}:{node.lineno}", got=ast.unparse(node))
                yield Import(alias.name, early)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield Import(base, early)
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", early)


@functools.lru_cache(maxsize=1024)
def _read(path: Path, module: str, source: Path, state: tuple[int, int]) -> Read:
    """A file read once, however many bundles take it; ``state`` (size and time) tells one version from another."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    texts = frozenset(n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str))
    beside = any(isinstance(n, ast.Name) and n.id == "__file__" for n in nodes)
    return Read(tuple(imports(path, module, source)), texts, beside)


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
    files: set[str] = set()
    while waiting:
        module = waiting.pop()
        path = module_file(module, source)
        if module in modules or path is None:
            continue
        modules[module] = path
        waiting += [module.rpartition(".")[0]] if "." in module else []
        status = path.stat()
        read = _read(path, module, source, (status.st_size, status.st_mtime_ns))
        files.update(_read_beside(path, read, source))
        for found in read.imports:
            root = found.name.split(".")[0]
            if root == ROOT:
                waiting.append(found.name)
            elif root not in sys.stdlib_module_names:
                (early if found.early else late).add(root)
    return Closure(dict(sorted(modules.items())), tuple(sorted(files)), frozenset(early), frozenset(late - early))


def _read_beside(path: Path, read: Read, source: Path) -> Iterator[str]:
    """Files beside a module that it reads: those that it names in full, and those that have its own name.

    Raises:
        ConfigError: when it looks for files beside itself and none is known.
    """
    beside = [p for p in sorted(path.parent.iterdir()) if p.is_file() and p.suffix not in (".py", ".pyc")]
    found = [p for p in beside if p.name in read.texts or p.stem == path.stem]
    if not found and read.beside:
        hint = "give the files the module's name, or name them in full"
        raise ConfigError("reads files beside itself that cannot be told from its code", where=path, hint=hint)
    yield from (p.relative_to(source).as_posix() for p in found)
