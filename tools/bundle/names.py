"""Where code and expressions name modules of ``common``: found in their syntax, never by a likeness of words."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common.errors import ConfigError

__all__ = ["NAME", "ROOT", "Spot", "expression_spots", "module_file", "module_of", "parsed_expression", "spots"]

ROOT = "common"
NAME = re.compile(r"(?<![\w./-])common((?:\.[A-Za-z_]\w*)+)")
_WHOLE = re.compile(r"common(?:\.[A-Za-z_]\w*)+")
_FROM = re.compile(rb"from(?:\s|\\\r?\n)+")
_QUOTE = re.compile(rb"""[rRuU]?("{3}|'{3}|"|')""")
_REFERENCE = re.compile(r"@\w+(?:::\w+)*")
_CALLS = ("import_module", "__import__", "locate", "optional_import", "find_spec", "resolve_name")


class Spot(NamedTuple):
    """One place that names a module of ours.

    Args:
        node: the part of the syntax tree: an import, a text, or the first name of a chain.
        at: offset in bytes at which ``common`` stands; None where it cannot be told.
        name: what is named, ``common.data.io.read``.
    """

    node: ast.AST
    at: int | None
    name: str


def module_file(module: str, source: Path) -> Path | None:
    """The file of ``common.a.b`` below the folder of ``common``."""
    path = source.joinpath(*module.split(".")[1:])
    for candidate in (path.with_suffix(".py") if path != source else path, path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def module_of(name: str, source: Path, *, defined: bool = True) -> str | None:
    """The longest part of ``common.a.b.C`` that is a module, None when there is none below ``common``.

    Args:
        name: what is named.
        source: the folder of ``common``.
        defined: also None when what follows the module is not defined in it: then it is some other text.
    """
    parts = name.split(".")
    for n in range(len(parts), 1, -1):
        file = module_file(".".join(parts[:n]), source)
        if file is not None:
            known = n == len(parts) or not defined or parts[n] in _defined(file)
            return ".".join(parts[:n]) if known else None
    return None


@functools.cache
def _defined(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    named = {n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)}
    return frozenset(stored | named | {a.asname or a.name for n in ast.walk(tree)
                                       if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names})  # fmt: skip


def spots(tree: ast.AST, text: str, source: Path, roots: tuple[str, ...] = (ROOT,)) -> Iterator[Spot]:
    """Imports of ``common``, and texts that are the whole name of something of ours or are imported by a call.

    Variables, attributes, arguments, keys and texts that merely hold the word are none.

    Raises:
        ConfigError: for the name of a module that is put together while the code runs.
    """
    if not any(root in text for root in roots):
        return
    raw, lines = text.encode(), _line_starts(text)
    called = {id(a) for n in ast.walk(tree) if isinstance(n, ast.Call) and _last(n.func) in _CALLS
              for a in (*n.args, *(k.value for k in n.keywords))}  # fmt: skip
    bare = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and _root(node.module) in roots:
            found = _FROM.match(raw, _offset(node, lines))
            yield Spot(node, found.end() if found else None, node.module or "")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if _root(alias.name) in roots:
                    yield Spot(alias, _offset(alias, lines), alias.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            whole = _WHOLE.fullmatch(node.value) is not None and module_of(node.value, source) is not None
            if whole or (id(node) in called and _root(node.value) in roots):
                quote = _QUOTE.match(raw, _offset(node, lines))
                at = quote.end() if quote and raw.startswith(node.value.encode(), quote.end()) else None
                yield Spot(node, at, node.value)
        elif isinstance(node, ast.JoinedStr | ast.BinOp) and id(node) in called and _root(_start(node)) in roots:
            problem = "the name of a module is put together while the code runs: it cannot be renamed"
            raise ConfigError(problem, where=f"line {node.lineno}", got=ast.unparse(node), hint="write the whole name")


def parsed_expression(text: str) -> ast.AST:
    """The syntax tree of what follows ``$``; references (``@a::b``) become names of the same length.

    Raises:
        ConfigError: when it is no Python.
    """
    plain = _REFERENCE.sub(lambda m: m.group().replace("@", "_").replace(":", "_"), text)
    try:
        return ast.parse(plain.strip())
    except SyntaxError as error:
        raise ConfigError(f"not an expression that can be read: {error.msg}", got=f"${text[:200]}") from error


def expression_spots(text: str, source: Path, roots: tuple[str, ...] = (ROOT,)) -> Iterator[Spot]:
    """As :func:`spots` for what follows ``$`` in a configuration, where ``common`` is itself a module's name.

    Offsets are those in ``text`` without the blanks around it.
    """
    tree, text = parsed_expression(text), text.strip()
    lines = _line_starts(text)
    yield from spots(tree, text, source, roots)
    bound = {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    bound |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    for node in ast.walk(tree):
        chain = ast.unparse(node) if isinstance(node, ast.Attribute) and id(node) not in inner else ""
        first = node
        while isinstance(first, ast.Attribute):
            first = first.value
        if chain and isinstance(first, ast.Name) and first.id in roots and first.id not in bound:
            yield Spot(first, _offset(first, lines), chain)


def _root(name: str | None) -> str:
    return (name or "").split(".")[0]


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _start(node: ast.expr) -> str:
    """The text that a text put together begins with."""
    while isinstance(node, ast.BinOp):
        node = node.left
    first = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def _line_starts(text: str) -> list[int]:
    starts = [0]
    for line in text.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def _offset(node: ast.AST, lines: list[int]) -> int:
    return lines[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined,no-any-return]
