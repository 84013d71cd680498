"""The code as the tests of its shape read it: files, modules, and who imports whom. Nothing is imported for that."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"(?<![\w./])(?:common|tools)(?:\.[A-Za-z_]\w*)+")


class Import(NamedTuple):
    """A module that is imported, a name out of it if it is not the module itself, and the line."""

    module: str
    name: str | None
    line: int


def sources(*folders: str) -> list[Path]:
    return sorted(p for f in folders for p in (ROOT / f).rglob("*.py") if "__pycache__" not in p.parts)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()


CODE = {module_of(p): p for p in sources("common", "tools")}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path, module: str, *, everywhere: bool = True) -> tuple[Import, ...]:
    """What a file imports of this repository; ``everywhere`` includes imports inside functions."""
    return tuple(_imports(path, module, everywhere=everywhere))


def _imports(path: Path, module: str, *, everywhere: bool) -> Iterator[Import]:
    nodes = statements(tree(path)) if everywhere else top_level(tree(path).body)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            found = [Import(a.name, None, node.lineno) for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found = [
                Import(f"{base}.{a.name}", None, node.lineno)
                if f"{base}.{a.name}" in CODE
                else Import(base, a.name, node.lineno)
                for a in node.names
            ]
        else:
            continue
        yield from (i for i in found if i.module.split(".")[0] in ("common", "tools"))


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Every statement, also inside functions; expressions are not looked at."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        inner = getattr(node, field, ())
        for child in inner if isinstance(inner, list) else ():
            if isinstance(child, ast.stmt):
                yield child
            yield from statements(child)


def top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.If | ast.Try):
            yield from top_level([*node.body, *node.orelse])
        else:
            yield node


def defined(path: Path) -> set[str]:
    """Names that a file makes itself, at its top level."""
    names: set[str] = set()
    for node in top_level(tree(path).body):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
    return names


def named(text: str) -> set[str]:
    """Modules that a text names: the longest part of each ``common.a.b.C`` that is a module."""
    found = set()
    for name in NAME.findall(text):
        parts = name.split(".")
        candidates = (".".join(parts[:n]) for n in range(len(parts), 1, -1))
        found |= {next((c for c in candidates if c in CODE), "")} - {""}
    return found


def configurations() -> str:
    """All JSON of bundles and commands, as one text."""
    files = [p for f in ("bundles", "tools") for p in sorted((ROOT / f).rglob("*.json"))]
    return "\n".join(json.dumps(json.loads(p.read_text(encoding="utf-8")), ensure_ascii=False) for p in files)
