"""Figures in which names are text: matplotlib takes what stands between two ``$`` for a formula, and fails on most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import visible

__all__ = ["save_figure"]


def save_figure(figure: Any, path: str | Path, **options: Any) -> None:
    """Draw a matplotlib figure into a file, none of whose texts is a formula or holds a character that hides.

    Args:
        figure: with everything in it.
        path: the file.
        options: of ``Figure.savefig``.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
        if visible(text.get_text()) != text.get_text():
            text.set_text(visible(text.get_text()))
    figure.savefig(path, **options)
