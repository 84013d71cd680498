"""The errors that this package raises on purpose.

Every message says what was got, what was expected, which file, case or expert it concerns and what to do next.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TypeVar

__all__ = [
    "AmalgamationError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "ExpertError",
    "GeometryError",
    "LabelError",
    "PromptError",
    "WeightError",
    "cause_of",
    "few",
    "is_hidden",
    "placed",
    "visible",
]

_Kind = TypeVar("_Kind", bound=BaseException)
_Refusal = TypeVar("_Refusal", bound="AmalgamationError")
_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, direction and invisible characters, lone surrogates, line ends
_BLANK = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffc\ufffe\uffff\U000e0000-\U000e0fff]"
)  # Unicode's Default_Ignorable_Code_Point, the empty Braille cell, and what is no character


def few(names: Sequence[str]) -> str:
    """The first five names, and how many there are when there are more."""
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")


def cause_of(error: BaseException, *kinds: type[_Kind]) -> _Kind | None:
    """The first of some kinds among an error and what it came from: MONAI's Compose raises its own for any other."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, kinds):
        found = found.__cause__
    return found


def is_hidden(character: str) -> bool:
    """Whether a character cannot be seen, or moves what stands around it."""
    return unicodedata.category(character) in _CATEGORIES or _BLANK.match(character) is not None


def visible(message: str) -> str:
    """The message with control, direction and invisible characters, which a terminal would obey or hide, spelt out."""
    return "".join(c if c == "\n" or not is_hidden(c) else ascii(c)[1:-1] for c in message)


def _within(part: object) -> str:
    """A part of a message whose further lines stand below its own, so that no text from data begins another part."""
    return str(part).replace("\n", "\n            ")


class AmalgamationError(Exception):
    """Base of all errors that a user can act on.

    Args:
        problem: one sentence that says what is wrong.
        where: the file, case, expert or config key concerned.
        got: what was found.
        expected: what would have been right.
        hint: what to do next, best a command.
    """

    # it does survive pickle and copy: the message is its argument, the rest lies in its __dict__
    def __init__(  # noqa: B042
        self,
        problem: str,
        *,
        where: object | None = None,
        got: object | None = None,
        expected: object | None = None,
        hint: str | None = None,
    ) -> None:
        self.problem, self.where, self.got, self.expected, self.hint = problem, where, got, expected, hint
        place = "" if where is None else str(where).replace("\n", "\\n") + ": "
        lines = [place + _within(problem)]
        if got is not None:
            lines.append(f"  got:      {_within(got)}")
        if expected is not None:
            lines.append(f"  expected: {_within(expected)}")
        if hint is not None:
            lines.append(f"  next:     {_within(hint)}")
        super().__init__(visible("\n".join(lines)))


def placed(error: _Refusal, where: object | None) -> _Refusal:
    """The same refusal, said of a place where it says none.

    Args:
        error: of a part that does not know which file it comes from; to be raised ``from`` itself.
        where: the file, case or entry.
    """
    if error.where is not None or where is None:
        return error
    return type(error)(error.problem, where=where, got=error.got, expected=error.expected, hint=error.hint)


class DataError(AmalgamationError):
    """An image, a label map or a datalist cannot be used as it is."""


class GeometryError(DataError):
    """A grid (shape, spacing, origin, orientation) is impossible or does not match another one."""


class LabelError(DataError):
    """Label values, names or label spaces do not fit together."""


class PromptError(AmalgamationError):
    """A point, box or class token cannot be used with this image or network."""


class ConfigError(AmalgamationError):
    """A configuration key is unknown, out of range or contradicts another one."""


class WeightError(AmalgamationError):
    """Weights do not fit the network that should receive them."""


class CheckpointError(AmalgamationError):
    """A checkpoint could not be written, read or continued."""


class ExpertError(AmalgamationError):
    """An expert is missing, changed, or does not fit the task."""
