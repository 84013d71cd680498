"""What a user tells of an nnU-Net besides what its folder does: folds, orientation, home, other names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.backbones.nnunet.folds import EXPECTED, folds_there, is_fold
from common.command_words import shown_option
from common.errors import ConfigError, ExpertError
from common.experts.training_files import orientation_of
from common.whole_numbers import whole_number

from ..data import read_renames
from .profile import read_profile

__all__ = ["read_folds", "told"]


def told(
    path: Path,
    *,
    orientation: str | None = None,
    training_files: str | None = None,
    fold: int | str | None = None,
    folds: int | str | Sequence[int | str] | None = None,
    checkpoint: str | None = None,
    profile: str | None = None,
    renamed: str | Mapping[str, str] | Sequence[str] | None = None,
) -> dict[str, Any]:
    """The fields of an :class:`~common.experts.spec.ExpertSpec` that these options decide; None for what none tells.

    Args:
        path: of the expert.
        orientation: axis codes.
        training_files: folder of the scans that it learned from, whose headers tell them.
        fold: one.
        folds: several, or ``all`` that there are.
        checkpoint: file name of its weights.
        profile: name or file of a home profile.
        renamed: ``old=new,...`` of its structures, by the profile's names where it has one.

    Raises:
        ConfigError: for options that contradict each other or cannot be read.
        ExpertError: for files of several orientations, and a profile or folds that there are not.
    """
    if training_files is not None:
        if orientation is not None:
            raise ConfigError("the orientation is told twice", where="--training_files",
                              got=shown_option("orientation", orientation), hint="leave one of them out")  # fmt: skip
        orientation = orientation_of(str(training_files))
    result: dict[str, Any] = {"orientation": orientation, "fold": _folds(path, fold, folds, checkpoint)}
    names = read_renames(renamed, "--map")
    if profile is not None:
        found = read_profile(str(profile))
        own = found.names(path)
        home = {old: names.pop(new, new) for old, new in own.items()}
        twice = [old for old in own if old in names and home[old] != own[old]]
        if twice:
            got = f"{shown_option('map', f'{own[twice[0]]}={home[twice[0]]}')} and {twice[0]}={names[twice[0]]}"
            raise ConfigError("a structure's name is changed twice", where="--map", got=got, expected="one new name",
                              hint=f"the profile calls {twice[0]} {own[twice[0]]}: leave one of them out")  # fmt: skip
        result["profile"] = found.ask.to_dict()
        names = {**{old: new for old, new in home.items() if old != new}, **names}
    return {**result, "renamed": names or None}


def read_folds(folds: int | str | Sequence[int | str] | None) -> tuple[int | str, ...]:
    """Folds of an option such as ``0,1,2``; ``all`` stays a word.

    Raises:
        ConfigError: for what is no fold, and for one that is given twice.
    """
    several = isinstance(folds, list | tuple)
    listed: Any = folds.split(",") if isinstance(folds, str) else folds if several else [folds]
    each = [f.strip() if isinstance(f, str) else f for f in listed if f is not None]
    found = [f if (number := whole_number(f)) is None else number for f in each]
    wrong = [f for f in found if not is_fold(f)]
    if wrong or len(set(found)) < len(found):
        raise ConfigError("these are no folds of nnU-Net" if wrong else "a fold is given twice", where="--folds",
                          got=f"{(wrong or found)[0]!a:.100}" if wrong else f"{folds!a:.100}",
                          expected=f"{EXPECTED}, each once, with commas between them")  # fmt: skip
    return tuple(found)


def _folds(path: Path, fold: Any, folds: Any, checkpoint: str | None) -> Any:
    if folds is None:
        return None if fold is None else _one_fold(fold)
    if fold is not None:
        raise ConfigError("one fold or several?", where="--folds", got=shown_option("fold", fold),
                          hint="leave one of them out")  # fmt: skip
    if folds != "all":
        return read_folds(folds)
    name = checkpoint or "checkpoint_final.pth"
    there = folds_there(path, name, error=ExpertError)
    numbers = [int(f) for f in there if f != "all"]
    if numbers and "all" in there:
        raise ExpertError("there are single folds and one of all cases", where=path, got=", ".join(there),
                          expected="those that shall answer together",
                          hint=f"{shown_option('folds', ','.join(map(str, numbers)))}, or --fold all")  # fmt: skip
    if not there:
        raise ExpertError("there are no folds", where=path, got=f"no fold_*/{name}", expected="fold_0/" + name)
    return tuple(numbers) or "all"


def _one_fold(fold: Any) -> int | str:
    found = whole_number(fold)
    if not is_fold(fold):
        raise ConfigError("this is no fold of nnU-Net", where="--fold", got=f"{fold!a:.100}", expected=EXPECTED)
    return str(fold) if fold == "all" else int(fold) if found is None else found
