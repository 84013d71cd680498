"""The document around a report: navigation, style and script, everything inline."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

__all__ = ["document"]

HERE = Path(__file__).parent


def document(title: str, sections: Sequence[tuple[str, str, str]], *, wide: bool = False, after: str = "") -> str:
    """The whole HTML document.

    Args:
        title: of the window.
        sections: id, name in the navigation, and content of each; empty ones are left out.
        wide: for tables with many columns.
        after: further elements behind the page's own script.
    """
    shown = [s for s in sections if s[2]]
    links = "".join(f'<a href="#{i}">{n}</a>' for i, n, _ in shown)
    body = "".join(f'<section id="{i}">{html}</section>' for i, _, html in shown)
    style, script = ((HERE / n).read_text(encoding="utf-8") for n in ("style.css", "page.js"))
    width = ' class="wide"' if wide else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body{width}>"
        f'<nav><div>{links}<button id="theme" type="button">Theme</button></div></nav>'
        f"<main>{body}<footer>{_footer()}</footer></main>"
        f'<dialog aria-label="picture"><img alt="" src="data:,"></dialog><script>{script}</script>{after}'
        "</body></html>\n"
    )


def _footer() -> str:
    return (
        "Research software, not for clinical use. Intervals: percentile bootstrap over cases (95 %, 1000 resamples); "
        "seeds are averaged per case first. “Mean” weighs every structure of every task alike."
    )
