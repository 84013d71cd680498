"""A question on the terminal, whose answer is no where nobody can give one."""

from __future__ import annotations

import sys

__all__ = ["ask"]


def ask(question: str) -> bool:
    """Ask on the terminal; without one the answer is no."""
    if not sys.stdin.isatty():
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
