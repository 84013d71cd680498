"""What a folder of scans shows: what a user says, DICOM's tag, a ``dataset.json`` beside it; nothing is guessed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ...command_words import shown_option
from ...dicom_tags import DICOM_KINDS, doubts, is_scan, of_dicom, unnamed
from ...errors import DataError, few
from ...modalities import meanings, same
from ...name_words import meant_together
from ..dicom.contents import modality_tag, no_image, series_description
from ..dicom.slices import is_dicom
from ..pictures import is_picture
from .dataset_json import Case, channel_number
from .described import told_and_described

__all__ = ["check_single", "dicom_differs", "scans_of", "told_channels"]

logger = logging.getLogger(__name__)


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


def scans_of(cases: Sequence[Case], given: Sequence[str] | None, where: str | Path) -> list[Case]:
    """The cases that are scans; reports, plans and pictures of a screen are left out with a word.

    What DICOM calls no modality (``OT``, ``SC``) is a scan only where the user says of what.

    Args:
        cases: what lies in a folder.
        given: the channels that the user says; None when nothing.
        where: the folder.

    Raises:
        DataError: when no scan is left.
    """
    kept: list[Case] = []
    left: dict[str, list[str]] = {}
    for case in cases:
        kind = next(filter(None, (_no_scan(p, given) for p in case.images if is_dicom(p))), "")
        if kind:
            left.setdefault(kind, []).append(case.id)
        else:
            kept.append(case)
    told = [f"{few(names)}: {kind}" for kind, names in left.items()]
    if cases and not kept:
        raise DataError("none of these is a scan by what DICOM says", where=where, got="; ".join(told),
                        expected=f"a modality such as {', '.join(list(DICOM_KINDS)[:3])}",
                        hint="where they are scans all the same, say of what: --channels CT")  # fmt: skip
    for line in told:
        logger.warning("%s: left out %s", where, line)
    return kept


def _no_scan(image: Path, given: Sequence[str] | None) -> str:
    """What a file or folder is that is no scan, in words; empty of scans."""
    tag = modality_tag(image)
    other = no_image(image) if not tag or not is_scan(tag) else None
    if other is not None and (not tag or other[0] == tag):
        return f"{other[1].partition(';')[0]} ({other[0]})"
    return f"no modality ({tag})" if tag and not is_scan(tag) and given is None else ""


def told_channels(
    given: Sequence[str] | None,
    cases: Sequence[Case],
    where: str | Path,
    *,
    option: str = "channels",
    written: Path | None = None,
) -> tuple[str, ...]:
    """The names of the channels of a new data set; what DICOM leaves open of them is told.

    A ``dataset.json`` that the scans belong to is read: of its names and the user's the more telling ones are taken.

    Args:
        given: what the user says; None when nothing.
        cases: the scans, as :func:`scans_of` finds them.
        where: their folder.
        option: by which the user says it.
        written: the description that is about to be written anew, of which nothing is taken.

    Raises:
        DataError: when nobody says it, or the user, DICOM and a ``dataset.json`` say different things.
    """
    check_single(given or (), "--channels", "channels")
    files = {c.id: c.images for c in cases}
    said = told_and_described(given or (), files, where=where, option=option, written=written)
    for line in said.notes:
        logger.warning("%s: %s", where, line)
    tells = bool(said.names) and all(map(meanings, said.names))
    if given is not None or (tells and all(is_dicom(p) for c in cases for p in c.images)):
        given = said.names
    tags = {c.id: modality_tag(c.images[0]) for c in cases if len(c.images) == 1 and is_dicom(c.images[0])}
    if given is not None:
        for case in cases:
            _check_tags(case, given, where)
        _tell(cases, given, where)
        return check_single(given, "--channels", "channels")
    kinds = sorted({t for t in tags.values() if t})
    names = {_as_channel(t) for t in kinds}
    if len(names) == 1 and len(tags) == len(cases) and all(tags.values()) and is_scan(kinds[0]):
        found = (names.pop(),)
        _tell(cases, found, where)
        return found
    raise DataError(
        "nobody says what the scans are, and CT and MR must not be taken for one",
        where=where,
        got=f"DICOM's tags {', '.join(kinds)}" if kinds else f"scans {few([c.id for c in cases])}",
        expected="one name for each channel",
        hint="give each kind its own data set" if len(names) > 1 else f"add {_example(cases, said.names)}",
    )


def _tell(cases: Sequence[Case], channels: Sequence[str], where: str | Path) -> None:
    """Say what DICOM leaves open of each channel, once, and how the series are called that it leaves open."""
    said: dict[str, list[str]] = {}
    for case in cases:
        for image, name in zip(case.images, meant_together(channels), strict=False):
            tag = modality_tag(image) if is_dicom(image) else ""
            for line in [*doubts(tag, (name,)), *unnamed(tag, (name,))]:
                called = said.setdefault(line, [])
                called += [c for c in (ascii(series_description(image)),) if c not in ("''", *called)]
    for line, called in said.items():
        logger.warning("%s: %s%s", where, line, f"; SeriesDescription {few(called)}" if called else "")


def _check_tags(case: Case, given: Sequence[str], where: str | Path) -> None:
    """Refuse a case with a channel that DICOM calls something else."""
    tags = [modality_tag(p) if is_dicom(p) else "" for p in case.images]
    if len(tags) == len(given) and any(
        dicom_differs(t, (c,)) for t, c in zip(tags, meant_together(given), strict=True)
    ):
        told = ",".join(_as_channel(t) or c for t, c in zip(tags, given, strict=True))
        problem = "DICOM says that the scan is something else"
        hint = shown_option("channels", told)
        raise DataError(problem, where=f"{where}, case {case.id}", got=told, expected=", ".join(given), hint=hint)


def _as_channel(tag: str) -> str:
    return of_dicom(tag) if " " in tag else tag


def dicom_differs(tag: str, channels: Sequence[str]) -> bool:
    """Whether DICOM's tag is none of what a data set with one channel can be.

    Args:
        tag: ``Modality``.
        channels: the data set's names.
    """
    kind = of_dicom(tag, channels)
    return bool(kind) and len(channels) == 1 and same(kind, channels[0]) is False


def _example(cases: Sequence[Case], said: Sequence[str]) -> str:
    if said:
        return f"{shown_option('channels', ','.join(said))}, as the dataset.json beside them says"
    files = [c.images[0] for c in cases]
    if any((channel_number(f) or 0) > 0 for f in files):
        return "--channels T1,FLAIR, a name for each of _0000, _0001, ... in this order"
    if all(map(is_picture, files)):
        return "--channels red,green,blue for colour pictures, --channels US or what else for grey ones"
    return '--channels CT, --channels "T2 MR" or what else they are'
