"""What commands print: names from data stay what they are, whatever signs of markup they hold."""

from __future__ import annotations

from rich.console import Console

__all__ = ["console"]


def console(*, stderr: bool = False) -> Console:
    """A console that takes no text for rich's markup (``[red]``, ``[link=...]``) or for an emoji's name.

    Args:
        stderr: print there.
    """
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)
