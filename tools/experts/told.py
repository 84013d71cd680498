"""What a user tells of an nnU-Net besides what its folder does: folds, orientation, home, other names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.command_words import shown_option
from common.errors import ConfigError, ExpertError
from common.experts.training_files import orientation_of

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
        result["profile"] = found.ask.to_dict()
        names = {**{old: new for old, new in home.items() if old != new}, **names}
    return {**result, "renamed": names or None}


def read_folds(folds: int | str | Sequence[int | str] | None) -> tuple[int | str, ...]:
    """Folds of an option such as ``0,1,2``; numbers as such, the rest is refused by who reads them."""
    listed = folds.split(",") if isinstance(folds, str) else folds if isinstance(folds, list | tuple) else [folds]
    each = [str(f).strip() for f in listed if f is not None]
    return tuple(int(f) if f.isascii() and f.isdigit() else f for f in each)


def _folds(path: Path, fold: Any, folds: Any, checkpoint: str | None) -> Any:
    if folds is None:
        return fold
    if fold is not None:
        raise ConfigError("one fold or several?", where="--folds", got=shown_option("fold", fold),
                          hint="leave one of them out")  # fmt: skip
    if folds != "all":
        return read_folds(folds)
    name = checkpoint or "checkpoint_final.pth"
    there = sorted(p.parent.name.removeprefix("fold_") for p in path.glob(f"fold_*/{Path(name).name}"))
    numbers = sorted(int(f) for f in there if f.isascii() and f.isdigit())
    if numbers and "all" in there:
        raise ExpertError("there are single folds and one of all cases", where=path, got=", ".join(there),
                          expected="those that shall answer together",
                          hint=f"{shown_option('folds', ','.join(map(str, numbers)))}, or --fold all")  # fmt: skip
    if not numbers and "all" not in there:
        raise ExpertError("there are no folds", where=path, got=f"no fold_*/{name}", expected="fold_0/" + name)
    return tuple(numbers) or "all"
