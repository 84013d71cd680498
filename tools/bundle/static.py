"""Finds classes and functions in a bundle's own code, with their signatures, by reading it: nothing is imported."""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .lookup import ANYTHING, NotFoundError, library_signature

__all__ = ["signature_of"]

P = inspect.Parameter
_DEPTH = 20


class _Place(NamedTuple):
    """A definition and the module that it stands in."""

    node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    module: str
    owner: ast.ClassDef | None = None


def signature_of(name: str, folder: Path, depth: int = 0) -> inspect.Signature:
    """The signature with which ``name`` (``package.module.Class``) of a folder is called.

    Args:
        name: dotted name below ``folder``.
        folder: what would be on ``sys.path``.
        depth: how many names were followed already.

    Raises:
        NotFoundError: when there is no such module, class or function.
    """
    found = _find(name, folder, depth)
    if isinstance(found, inspect.Signature):
        return found
    if isinstance(found.node, ast.ClassDef):
        return _of_class(found.node, found.module, folder, depth)
    return _of_function(found.node, bound=found.owner is not None and not _decorated(found.node, "staticmethod"))


def _module_file(module: str, folder: Path) -> Path | None:
    path = folder.joinpath(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def _find(name: str, folder: Path, depth: int) -> _Place | inspect.Signature:
    if depth > _DEPTH:
        raise NotFoundError(f"{name} is defined in terms of itself")
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        module, rest = ".".join(parts[:split]), parts[split:]
        file = _module_file(module, folder)
        if file is not None:
            return _inside(module, file, rest, folder, depth)
    raise NotFoundError(f"there is no module {parts[0]!r} in the bundle")


def _inside(module: str, file: Path, rest: list[str], folder: Path, depth: int) -> _Place | inspect.Signature:
    node = next((n for n in _statements(_parse(file).body) if rest[0] in _binds(n)), None)
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        if len(rest) == 1:
            return _Place(node, module)
        for member in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(member, ast.FunctionDef) and member.name == rest[1] and len(rest) == 2:
                assert isinstance(node, ast.ClassDef)
                return _Place(member, module, node)
    target = None if node is None else _alias(node, rest[0], module, file)
    if target is None:
        raise NotFoundError(f"{module} defines no {'.'.join(rest)}")
    return _elsewhere(".".join([target, *rest[1:]]), folder, depth + 1)


def _parse(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise NotFoundError(f"{file.name} is not valid Python: {error}") from error


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from _statements([*node.body, *node.orelse])


def _binds(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [a.asname or a.name.split(".")[0] for a in node.names]
    if isinstance(node, ast.Assign):
        return [t.id for t in node.targets if isinstance(t, ast.Name)]
    return []


def _alias(node: ast.stmt, name: str, module: str, file: Path) -> str | None:
    """The absolute name that ``name`` stands for in a module."""
    if isinstance(node, ast.Import):
        return next((a.name if a.asname else a.name.split(".")[0] for a in node.names
                     if name == (a.asname or a.name.split(".")[0])), None)  # fmt: skip
    if isinstance(node, ast.ImportFrom):
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        original = next(a.name for a in node.names if name == (a.asname or a.name))
        return ".".join([*above, *([node.module] if node.module else []), original])
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name | ast.Attribute):
        return f"{module}.{ast.unparse(node.value)}"
    return None


def _elsewhere(name: str, folder: Path, depth: int) -> _Place | inspect.Signature:
    if _module_file(name.split(".")[0], folder) is not None:
        return _find(name, folder, depth)
    return library_signature(name, lambda inner, place: signature_of(inner, place, depth))


def _of_function(node: ast.FunctionDef | ast.AsyncFunctionDef, *, bound: bool) -> inspect.Signature:
    given = node.args
    plain = [*given.posonlyargs, *given.args]
    first_default = len(plain) - len(given.defaults)
    parameters = [
        P(a.arg, P.POSITIONAL_ONLY if a in given.posonlyargs else P.POSITIONAL_OR_KEYWORD,
          default=None if i >= first_default else P.empty)
        for i, a in enumerate(plain)
    ][1 if bound else 0 :]  # fmt: skip
    parameters += [P(given.vararg.arg, P.VAR_POSITIONAL)] if given.vararg else []
    parameters += [P(a.arg, P.KEYWORD_ONLY, default=P.empty if d is None else None)
                   for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True)]  # fmt: skip
    parameters += [P(given.kwarg.arg, P.VAR_KEYWORD)] if given.kwarg else []
    return inspect.Signature(parameters)


def _of_class(node: ast.ClassDef, module: str, folder: Path, depth: int) -> inspect.Signature:
    own = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if own is not None:
        return _of_function(own, bound=True)
    bases = [ast.unparse(b.value if isinstance(b, ast.Subscript) else b) for b in node.bases]
    if _decorated(node, "dataclass") or "NamedTuple" in bases:
        return inspect.Signature([*_fields(node)])
    for base in bases:
        if base not in ("object", "Generic", "Protocol", "ABC"):
            return _base(f"{module}.{base}", folder, depth + 1)
    return inspect.Signature([])


def _base(name: str, folder: Path, depth: int) -> inspect.Signature:
    try:
        return signature_of(name, folder, depth)
    except NotFoundError:
        found = getattr(builtins, name.rpartition(".")[2], None)
        if isinstance(found, type):
            return ANYTHING
        raise


def _fields(node: ast.ClassDef) -> Iterator[inspect.Parameter]:
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            if "ClassVar" not in ast.unparse(field.annotation):
                default: Any = P.empty if field.value is None else None
                yield P(field.target.id, P.POSITIONAL_OR_KEYWORD, default=default)


def _decorated(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> bool:
    return any(name in ast.unparse(d) for d in node.decorator_list)
