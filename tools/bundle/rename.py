"""Gives ``common`` another name in code, expressions and documents, where they mean the package and nowhere else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

from common.errors import ConfigError

from .names import NAME, ROOT, Spot, expression_spots, module_of, spots

__all__ = ["named_in_code", "renamed_code", "renamed_document", "renamed_expression", "renamed_target"]

# Markdown: a fenced block, or code between as many backticks as it began with; an escaped one begins none
_CODE = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n]*\n.*?(?:^ {0,3}\1[^\n]*$|\Z)|(?<![`\\])(`+)(?!`)(?:.+?)(?<!`)\2(?!`)",
                   re.MULTILINE | re.DOTALL)  # fmt: skip


def renamed_target(name: str, package: str) -> str:
    """A ``_target_``: ``common.a.B`` becomes ``<package>.common.a.B``; anything else stays."""
    return f"{package}.{name}" if name.split(".")[0] == ROOT else name


def renamed_expression(text: str, package: str, source: Path) -> str:
    """What follows ``$`` in a configuration, with the names of our modules in the package.

    Raises:
        ConfigError: when it is no Python, or a name in it cannot be reached.
    """
    body = text.strip()
    found = list(expression_spots(body, source))
    return text.replace(body, _edited(body, found, package, "$" + body[:60])) if found else text


def renamed_code(text: str, package: str, source: Path, where: object = "code") -> str:
    """A module's text with its imports of ``common`` from the package; its layout and everything else stay.

    What comes out is read again and compared with what was meant, so that nothing else can have changed.

    Args:
        text: Python.
        package: package that holds ``common``.
        source: the folder of ``common``, which says what is a module.
        where: what messages should name.

    Raises:
        ConfigError: for a bare ``import common.x``, or a name that cannot be reached without touching the code.
    """
    if ROOT not in text:
        return text
    tree = ast.parse(text)
    found = list(spots(tree, text, source))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(a.name.split(".")[0] == ROOT and not a.asname for a in node.names):
            problem = "an import binds the name 'common' itself"
            expected = "from common.x import y, or import common.x as x"
            raise ConfigError(problem, where=f"{where}:{node.lineno}", got=ast.unparse(node), expected=expected)
    result = _in_docstrings(_edited(text, found, package, where), package, source)
    _mean(tree, found, package, source)
    if ast.dump(ast.parse(result)) != ast.dump(tree):
        problem = "the names of our modules in this code cannot be told from the rest"
        got = ", ".join(s.name for s in found)
        raise ConfigError(problem, where=where, got=got, hint="write each as one plain text")
    return result


def renamed_document(text: str, package: str, source: Path) -> str:
    """Markdown with the names of our modules in the package, in its code: blocks and what stands in backticks."""
    return _CODE.sub(lambda m: _named(m.group(), package, source), text)


def named_in_code(text: str) -> Iterable[tuple[int, str]]:
    """The code of a Markdown text with the number of the line at which each piece begins."""
    for match in _CODE.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match.group()


def _named(text: str, package: str, source: Path) -> str:
    """Names that are those of modules, or of what is defined in one."""
    return NAME.sub(lambda m: f"{package}.{m.group()}" if module_of(m.group(), source) else m.group(), text)


def _edited(text: str, found: Iterable[Spot], package: str, where: object) -> str:
    raw = text.encode()
    for at, name in sorted({(s.at, s.name) for s in found}, key=lambda p: -1 if p[0] is None else p[0], reverse=True):
        if at is None or not raw.startswith(ROOT.encode(), at):
            raise ConfigError(
                "the name of a module cannot be reached here", where=where, got=name, hint="write it as one plain text"
            )
        raw = raw[:at] + f"{package}.".encode() + raw[at:]
    return raw.decode()


def _docstrings(tree: ast.AST) -> list[ast.Constant]:
    return [n.value for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)
            and isinstance(n.value.value, str)]  # fmt: skip


def _in_docstrings(text: str, package: str, source: Path) -> str:
    """Sentences about our modules, in the texts that only people read."""
    raw = text.encode()
    starts = [0]
    for line in raw.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in sorted(_docstrings(ast.parse(text)), key=lambda n: (n.lineno, n.col_offset), reverse=True):
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        raw = raw[:begin] + _named(raw[begin:end].decode(), package, source).encode() + raw[end:]
    return raw.decode()


def _mean(tree: ast.AST, found: Iterable[Spot], package: str, source: Path) -> None:
    """Change the tree as the text should have been changed."""
    for spot in found:
        if isinstance(spot.node, ast.ImportFrom):
            spot.node.module = f"{package}.{spot.node.module}"
        elif isinstance(spot.node, ast.alias):
            spot.node.name = f"{package}.{spot.node.name}"
        elif isinstance(spot.node, ast.Constant):
            spot.node.value = f"{package}.{spot.name}"
    for node in _docstrings(tree):
        node.value = _named(str(node.value), package, source)
