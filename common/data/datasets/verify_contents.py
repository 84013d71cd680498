"""What of a collection is doubtful although every file can be read: intensities, channel names, names of structures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from monai.data import MetaTensor

from ...dicom_tags import doubts
from ...errors import few
from ...intensity_range import Range, odd_beside, odd_ct, range_of
from ...modalities import is_ct, meanings
from ...name_words import meant_together
from ...paths import is_there
from ..dicom.contents import modality_tag
from ..dicom.slices import is_dicom
from .convert_channels import dicom_differs
from .dataset import Dataset
from .dataset_json import Case

__all__ = [
    "Doubtful",
    "doubtful_channels",
    "doubtful_dicom",
    "doubtful_intensities",
    "other_dicom",
    "other_than_called",
]

_EACH = 5


class Doubtful(NamedTuple):
    """A finding about a data set, or about a case of it.

    Args:
        case: id; empty for the data set.
        got: what was found.
        expected: what would have been right.
        hint: what to do next.
    """

    case: str
    got: str
    expected: str
    hint: str


def doubtful_channels(dataset: Dataset) -> Iterator[Doubtful]:
    """Channels whose name tells no modality, so that nothing can compare them with a model."""
    told = all(meanings(dataset.modality_of(c)) for c in dataset.cases())
    unknown = [
        c for c, read in zip(dataset.channels, meant_together(dataset.channels), strict=True) if not meanings(read)
    ]
    if unknown and not (told and len(dataset.channels) == 1):
        got = f"channel {', '.join(unknown)} tells no modality, and is compared with no model"
        hint = 'name it in dataset.json ("channel_names"), or the task\'s "modality" in collection.json'
        yield Doubtful("", got, "CT, T2 MR, ...", hint)


def other_dicom(dataset: Dataset, case: Case) -> Doubtful | None:
    """A case whose DICOM files say that it is something else than the data set does."""
    whole = (case.modality or dataset.modality or dataset.channels[0],)
    single, several = len(case.images) == 1, len(dataset.channels) > 1
    if single and several:
        return None  # one file of several channels is no DICOM series
    read = meant_together(whole if single else dataset.channels)
    for image, channel, meant in zip(case.images, whole if single else dataset.channels, read, strict=False):
        tag = modality_tag(image) if is_there(image) and is_dicom(image) else ""
        if dicom_differs(tag, (meant,)):
            told = "" if single else f" of channel {channel}"
            hint = 'move it to a data set of its own, or name its "modality"' if single else \
                   "put the case's files in the order of the channels, or name these as they are"  # fmt: skip
            return Doubtful(case.id, f"DICOM says {tag}{told}", channel, hint)
    return None


def doubtful_dicom(dataset: Dataset, case: Case) -> Iterator[Doubtful]:
    """What DICOM leaves open of a case, or says of its numbers, and the data set does not tell: contrast, unit."""
    if len(case.images) == 1 < len(dataset.channels):
        return
    alone = len(case.images) == 1
    for image, channel in zip(case.images, meant_together(dataset.channels), strict=False):
        tag = modality_tag(image) if is_there(image) and is_dicom(image) else ""
        for line in doubts(tag, (channel, *((dataset.modality_of(case),) if alone else ()))):
            hint = 'say what it is: "channel_names" in dataset.json, or the case\'s "modality"'
            yield Doubtful(case.id, line, "", hint)


def doubtful_intensities(dataset: Dataset, ranges: Mapping[str, Sequence[Range]]) -> Iterator[Doubtful]:
    """Scans that are brighter or darker than their modality, or the other scans, let expect; many at once in one line.

    Args:
        dataset: the data set.
        ranges: of each channel, by case.
    """
    reasons: dict[str, list[tuple[str, Range]]] = {}
    modality = {c.id: dataset.modality_of(c) for c in dataset.cases() if c.id in ranges}
    for name in dict.fromkeys(modality.values()):
        own = [i for i, m in modality.items() if m == name and len(ranges[i]) == len(dataset.channels)]
        for number, (channel, read) in enumerate(zip(dataset.channels, meant_together(dataset.channels), strict=True)):
            ct = dataset.dim == len((0, 0, 0)) and (is_ct(read) or (is_ct(name) and len(dataset.channels) == 1))
            found = {i: ranges[i][number] for i in own if ranges[i][number].smallest < ranges[i][number].largest}
            for case, reason in _reasons(found, name, ct=ct).items():
                reasons.setdefault(f"{channel}: {reason}", []).append((case, found[case]))
    hint = "look at the scans; correct the stored values, or rescale slope and intercept, where they are wrong"
    for reason, cases in reasons.items():
        if len(cases) > _EACH:
            yield Doubtful("", f"{len(cases)} scans ({few([c for c, _ in cases])}): {reason}", "", hint)
            continue
        for case, one in cases:
            yield Doubtful(case, f"{one}; {reason}", "", hint)


def other_than_called(
    modality: str, read: Sequence[tuple[str, Sequence[str], Sequence[Path], MetaTensor]]
) -> list[str]:
    """Sentences about scans that are not what they are called: DICOM says something else, or a CT is not in HU.

    Args:
        modality: the data set's name of them.
        read: of each scan its data set, that one's channels, its files, and what they hold in native intensities.
    """
    told: dict[str, list[str]] = {}
    for task, channels, images, image in read:
        for reason in _not_as_called(modality, channels, images, image):
            told.setdefault(reason, []).append(f"{task}: {', '.join(p.name for p in images)}")
    return [f"{modality}: {len(places)} of {len(read)} scans that were looked at ({few(places)}): {reason}"
            for reason, places in told.items()]  # fmt: skip


def _not_as_called(modality: str, channels: Sequence[str], images: Sequence[Path], image: MetaTensor) -> Iterator[str]:
    names = (modality,) if len(channels) == 1 else tuple(meant_together(channels))
    for path, name in zip(images, names, strict=False) if len(images) == len(names) else ():
        tag = modality_tag(path) if is_dicom(path) else ""
        if dicom_differs(tag, (name,)):
            yield f"DICOM says {tag}"
    for voxels, channel, name in zip(image.numpy(), meant_together(channels), names, strict=False):
        found = range_of(voxels) if voxels.ndim == len("xyz") and (is_ct(channel) or is_ct(name)) else None
        reason = odd_ct(found) if found is not None and found.smallest < found.largest else None
        if reason:
            yield reason


def _reasons(found: Mapping[str, Range], modality: str, *, ct: bool) -> dict[str, str]:
    """Why scans of one modality are odd: by themselves, or beside the others where these are alike."""
    alone = {case: reason for case, one in found.items() if ct and (reason := odd_ct(one))}
    if len({m.kind for m in meanings(modality)}) > 1:
        return alone
    others = list(found.values())
    beside = {case: reason for case, one in found.items() if (reason := odd_beside(one, others, ct=ct))}
    return {**(beside if 2 * len(beside) <= len(found) else {}), **alone}
