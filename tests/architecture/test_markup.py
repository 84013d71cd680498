"""Pages come out of templates that escape what is put in: no door leads around that."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from jinja2 import Environment, nodes

from tests.architecture.tree import ROOT, shown, sources, tree

PAGES = ROOT / "common" / "pages.py"  # the one that makes environments, all of them escaping
OURS = [p for p in sources("common", "tools") if p != PAGES]
TEMPLATES = sorted(p for folder in ("common", "tools") for p in (ROOT / folder).rglob("*.j2"))
OPEN = re.compile(r"\bMarkup\b|\bmarkupsafe\b|\bjinja2\b|__html__")
ELEMENT = re.compile(r"</[a-z]|<[a-z]+\d?\s+[\w-]+=|<!doctype", re.IGNORECASE)
LEAVING = {"safe", "escape", "e", "forceescape"}


def doors(path: Path) -> list[str]:
    """Where a file of ours declares a text to be markup, or makes templates by itself; texts do not count."""
    if not OPEN.search(path.read_text(encoding="utf-8")):
        return []
    found = []
    for node in ast.walk(tree(path)):
        names = [getattr(node, field, None) for field in ("id", "attr", "module", "name")]
        if any(OPEN.search(n) for n in names if isinstance(n, str)):
            found.append(f"{shown(path)}:{getattr(node, 'lineno', 1)}")
    return found


def template_doors(text: str) -> list[str]:
    """Where a template leaves the escaping, by its syntax tree."""
    found = Environment().parse(text)
    scopes = found.find_all((nodes.ScopedEvalContextModifier, nodes.EvalContextModifier))
    return [n.name for n in found.find_all(nodes.Filter) if n.name in LEAVING] + [type(n).__name__ for n in scopes]


def elements(path: Path) -> list[str]:
    """Texts of a file of ours that open or close an element of a page."""
    if not ELEMENT.search(path.read_text(encoding="utf-8")):
        return []
    return [
        f"{shown(path)}:{node.lineno}: {node.value[:60]}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and ELEMENT.search(node.value)
    ]


def test_no_text_is_declared_to_be_markup() -> None:
    found = [door for path in OURS for door in doors(path)]
    assert not found, "fill a template instead: " + ", ".join(found)
    found = [f"{shown(p)}: {door}" for p in TEMPLATES for door in template_doors(p.read_text(encoding="utf-8"))]
    assert TEMPLATES and not found, found


def test_elements_are_written_by_templates_alone() -> None:
    found = [e for path in OURS for e in elements(path)]
    assert not found, "\n".join(found)


def included(template: Path) -> list[Path]:
    """Styles, scripts and texts that a template takes in as they are."""
    found = Environment().parse(template.read_text(encoding="utf-8")).find_all(nodes.Include)
    names = [n.template.value for n in found if isinstance(n.template, nodes.Const)]
    return [template.parent / name for name in names if not name.endswith(".j2")]


def test_styles_and_scripts_hold_nothing_that_a_template_obeys() -> None:
    """A brace too many there would be a place to fill, or a comment that silently ends somewhere else."""
    files = {f for template in TEMPLATES for f in included(template)}
    assert {"style.css", "page.js", "viewer.js", "page.css", "LICENSE-niivue.txt"} <= {f.name for f in files}
    assert not [f for f in files if re.search(r"\{[{%#]", f.read_text(encoding="utf-8"))]


def test_these_tests_can_fail(tmp_path: Path) -> None:
    lines = ("from markupsafe import Markup", "x = Markup(y)", "x = jinja2.utils.Markup(y)", "import jinja2",
             "class A:\n    def __html__(self):\n        return x")  # fmt: skip
    for i, line in enumerate(lines):
        (tmp_path / f"{i}.py").write_text(line)
        assert doors(tmp_path / f"{i}.py"), line
    for text in ("{{ x|safe }}", "{% autoescape false %}{{ x }}{% endautoescape %}", "{{ x|upper|safe }}"):
        assert template_doors(text), text
    assert not template_doors('{{ x|upper }}{% include "a.css" %}')
    for i, line in enumerate(('x = f"<b>{y}"\nz = "</b>"', """x = f'<p class="a">{y}'""", 'x = "<!doctype html>"')):
        (tmp_path / f"e{i}.py").write_text(line)
        assert elements(tmp_path / f"e{i}.py"), line
