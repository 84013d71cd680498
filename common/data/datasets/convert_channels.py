"""What a folder of scans shows: what a user says, or DICOM's tag; nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...command_words import shown_option
from ...dicom_tags import DICOM_KINDS, of_dicom
from ...errors import DataError, few
from ...modalities import same
from ...name_words import meant_together
from ..dicom.slices import is_dicom, modality_tag
from ..pictures import is_picture
from .dataset_json import Case, channel_number

__all__ = ["check_single", "dicom_differs", "told_channels"]


def check_single(channels: Sequence[str], where: object, option: str) -> tuple[str, ...]:
    """Refuse channels of several names: of a data set from elsewhere nobody says which case is which.

    Args:
        channels: names as of :func:`~common.literals.check_channel`.
        where: who declares them.
        option: of the command, by which they get another name.

    Raises:
        DataError: naming the channel, with what to type.
    """
    joined = next((c for c in channels if "|" in c), None)
    if joined is not None:
        raise DataError("a channel has one name: '|' joins several where cases differ, and nobody says which is which",
                        where=where, got=ascii(joined), expected="one name for each channel",
                        hint="give each kind its own data set and merge them with python -m tools data merge; or, "
                             "where all are of one kind, add "
                             + shown_option(option, f"{joined}=<name>" if option == "rename" else "<name>"),
                        )  # fmt: skip
    return tuple(channels)


def told_channels(given: Sequence[str] | None, cases: Sequence[Case], where: str | Path) -> tuple[str, ...]:
    """The names of the channels of a new data set.

    Args:
        given: what the user says; None when nothing.
        cases: the scans.
        where: their folder.

    Raises:
        DataError: when nobody says it, or the user and DICOM say different things.
    """
    tags = {c.id: modality_tag(c.images[0]) for c in cases if len(c.images) == 1 and is_dicom(c.images[0])}
    if given is not None:
        for case in cases:
            _check_tags(case, given, where)
        return check_single(given, "--channels", "channels")
    kinds = sorted({t for t in tags.values() if t in DICOM_KINDS})
    if len(kinds) == 1 and len(tags) == len(cases) and all(tags.values()):
        return (kinds[0],)
    raise DataError(
        "nobody says what the scans are, and CT and MR must not be taken for one",
        where=where,
        got=f"DICOM's tags {', '.join(kinds)}" if len(kinds) > 1 else f"scans {few([c.id for c in cases])}",
        expected="one name for each channel",
        hint="give each kind its own data set" if len(kinds) > 1 else f"add {_example(cases)}",
    )


def _check_tags(case: Case, given: Sequence[str], where: str | Path) -> None:
    """Refuse a case with a channel that DICOM calls something else."""
    tags = [modality_tag(p) if is_dicom(p) else "" for p in case.images]
    if len(tags) == len(given) and any(
        dicom_differs(t, (c,)) for t, c in zip(tags, meant_together(given), strict=True)
    ):
        told = ",".join(t or c for t, c in zip(tags, given, strict=True))
        problem = "DICOM says that the scan is something else"
        hint = shown_option("channels", told)
        raise DataError(problem, where=f"{where}, case {case.id}", got=told, expected=", ".join(given), hint=hint)


def dicom_differs(tag: str, channels: Sequence[str]) -> bool:
    """Whether DICOM's tag is none of what a data set with one channel can be.

    Args:
        tag: ``Modality``.
        channels: the data set's names.
    """
    kind = of_dicom(tag, channels)
    return bool(kind) and len(channels) == 1 and same(kind, channels[0]) is False


def _example(cases: Sequence[Case]) -> str:
    files = [c.images[0] for c in cases]
    if any((channel_number(f) or 0) > 0 for f in files):
        return "--channels T1,FLAIR, a name for each of _0000, _0001, ... in this order"
    if all(map(is_picture, files)):
        return "--channels red,green,blue for colour pictures, --channels US or what else for grey ones"
    return '--channels CT, --channels "T2 MR" or what else they are'
