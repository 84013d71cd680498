"""The document around a report: navigation, style and script, everything inline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.pages import templates

__all__ = ["document"]

TEMPLATES = templates(Path(__file__).parent)


def document(template: str, title: str, sections: Mapping[str, Any]) -> str:
    """The whole HTML document.

    Args:
        template: of the page, beside this module; it extends ``frame.html.j2``.
        title: of the window.
        sections: what each section is filled with, by its id; None leaves it out.
    """
    return TEMPLATES.get_template(template).render(title=title, sections=sections) + "\n"
