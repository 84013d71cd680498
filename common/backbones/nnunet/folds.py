"""Folds of nnU-Net's results folders: ``fold_0``, ``fold_1``, ... and ``fold_all``, and what only looks like one."""

from __future__ import annotations

from pathlib import Path

from ...errors import AmalgamationError, WeightError, few
from ...literals import check_file_name
from ...whole_numbers import whole_number

__all__ = ["EXPECTED", "folds_there", "is_fold"]

EXPECTED = "0, 1, ... or all"
_START, _MOST = "fold_", 10**9


def is_fold(fold: object) -> bool:
    """Whether a value names a fold: a number from 0 on, as such or in ASCII digits, or ``all``."""
    if isinstance(fold, str):
        return fold == "all" or whole_number(fold) is not None
    return isinstance(fold, int) and not isinstance(fold, bool) and 0 <= fold < _MOST


def folds_there(
    folder: Path, checkpoint: str = "checkpoint_final.pth", *, error: type[AmalgamationError] = WeightError
) -> list[str]:
    """The folds of a results folder that have a file of weights, numbers first.

    Folders that are called otherwise, such as ``fold_0_old``, are none, as for nnU-Net.

    Args:
        folder: with ``plans.json``.
        checkpoint: the file's name; its signs stand for themselves alone.
        error: class of the refusal.

    Raises:
        AmalgamationError: of the class ``error``, for another thing than a file's name, and for folders such as
            ``fold_00``, whose number nnU-Net would not write so: to leave them out would change who answers.
    """
    check_file_name(checkpoint, "checkpoint", where=folder, error=error)
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    names = [p.name.removeprefix(_START) for p in inside if p.name.startswith(_START) and (p / checkpoint).is_file()]
    odd = [n for n in names if not is_fold(n) and not any(map(_is_letter, n))]
    if odd:
        raise error("a folder looks like a fold and is none", where=folder, got=few([f"{_START}{n}" for n in odd]),
                    expected=f"{_START}0, {_START}1, ... or {_START}all",
                    hint="rename it as nnU-Net does, or so that it does not begin with fold_")  # fmt: skip
    numbers = sorted(int(n) for n in names if is_fold(n) and n != "all")
    return [*map(str, numbers), *(["all"] if "all" in names else [])]


def _is_letter(character: str) -> bool:
    return character.isalpha() and not character.isnumeric()
