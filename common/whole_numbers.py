"""Whole numbers in text from data and options: ASCII digits alone, and no more of them than anybody means.

``int`` takes the digits of every script, spaces and ``_``, and raises for 5000 of them; ``str.isdigit`` takes ``²``,
for which ``int`` raises. So whoever reads a number from a text asks here.
"""

from __future__ import annotations

import re

__all__ = ["WHOLE", "whole_number"]

# what is expected, for messages
WHOLE = "a whole number such as 0, 1 or 12, in the digits 0 to 9"


def whole_number(text: object, *, digits: int = 9, negative: bool = False) -> int | None:
    """The number that a text is; None where it is none.

    Args:
        text: such as ``0`` or ``12``, without sign, zeros in front, spaces and other scripts' digits.
        digits: how many there may be.
        negative: whether a ``-`` may stand in front.
    """
    pattern = rf"{'-?' if negative else ''}(0|[1-9][0-9]{{0,{digits - 1}}})"
    return int(text) if isinstance(text, str) and re.fullmatch(pattern, text) else None
