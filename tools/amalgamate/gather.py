"""The scans that a user points at become a collection: files stay where they are, a share is held back for scoring."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from common.command_words import shown_option, shown_place
from common.data.datasets.convert import convert_nnunet, convert_pairs, write_collection, write_dataset
from common.data.datasets.convert_channels import scans_of, told_channels
from common.data.datasets.datalist import Collection, read_collection
from common.data.datasets.dataset import Dataset, read_dataset
from common.data.datasets.dataset_json import SPLITS, Case, read_case, read_json
from common.data.datasets.pairs import paired
from common.data.datasets.splits import hashed_split
from common.errors import ConfigError, DataError, few
from common.experts.regions import taught_space
from common.experts.spec import ExpertSpec
from common.labels import LabelSpace, union
from common.literals import folder_names
from common.modalities import kind_of, meanings
from common.more_telling import agreed

from .given import Folder
from .lessons import unread

__all__ = ["gather", "held_back"]

logger = logging.getLogger(__name__)

_PARTS = re.compile(r"\s*\+\s*")


def gather(
    scans: Sequence[Folder],
    labels: Sequence[Folder],
    specs: Sequence[ExpertSpec],
    out: Path,
    *,
    structures: Mapping[str, int] | None = None,
    share: float = 0.2,
) -> Collection:
    """Write a data set for each folder of scans and the collection of them all.

    Args:
        scans: folders of NIfTI and the like (nnU-Net's ``_0000`` for several channels), of DICOM series, raw folders of
            nnU-Net, or data sets.
        labels: folders of label maps, by the name of the scans' folder.
        specs: the experts, whose structures are those of scans without label maps.
        out: folder of the collection.
        structures: names and values of the label maps; a DICOM SEG has its own.
        share: of each task's scans that is held back for scoring, in (0, 1), where there is no test split already.

    Raises:
        ConfigError: for labels of no scans, or a share that is none.
        DataError: for folders that cannot be read, or scans that nobody says what they are.
    """
    if not 0 < share < 1:
        raise ConfigError("the share of scans held back lies between 0 and 1", where="--held_back", got=share)
    scans = [one for folder in scans for one in _tasks(folder)]
    maps = {folder.name: folder.path for folder in labels}
    left = sorted(set(maps) - {folder.name for folder in scans})
    if left or len(maps) < len(labels):
        raise ConfigError("label maps are given for scans that are not", where="--labels",
                          got=", ".join(f"{n}={maps[n]}" for n in left) or "a name twice",
                          expected=", ".join(folder.name for folder in scans))  # fmt: skip
    names = _names(scans)
    places = folder_names(names)
    read = [_read(folder, maps.get(folder.name), name, specs, out / places[name], structures)
            for folder, name in zip(scans, names, strict=True)]  # fmt: skip
    _check_own_maps(scans, read, maps)
    made = [write_dataset(held_back(one, share), out / places[name]) for one, name in zip(read, names, strict=True)]
    annotated = {n for dataset in made for n in dataset.labels.names}
    known = [n for s in specs if any(not unread(s, d) for d in made) for n in s.labels.names if s.labels.exclusive]
    further = [n for n in dict.fromkeys(known) if n not in annotated]
    write_collection(out, [dataset.root for dataset in made], name="scans", structures=further)
    return read_collection(out)


def _tasks(folder: Folder) -> list[Folder]:
    """The tasks of a collection as folders of their own; any other folder is itself."""
    listed = (folder.path / "collection.json").is_file() or any(folder.path.glob("*/dataset.json"))
    if folder.name or not listed or (folder.path / "dataset.json").is_file():
        return [folder]
    found = read_collection(folder.path).datasets
    for dataset in found:
        own = read_dataset(dataset.root)
        if (own.labels.names, own.modality) != (dataset.labels.names, dataset.modality):
            renamed = sorted(set(dataset.labels.names) - set(own.labels.names))
            problem = "a collection that renames what its data sets say is not taken over"
            hint = "rename it there: data convert has --rename; or give the folders of its data sets"
            raise ConfigError(problem, where=folder.path, got=", ".join(renamed) or f"modality {dataset.modality}",
                              expected=f"{dataset.root}: {', '.join(own.labels.names)}", hint=hint)  # fmt: skip
    return [Folder("", dataset.root) for dataset in found]


def _names(scans: Sequence[Folder]) -> list[str]:
    """A task's name for each folder: what it is called, with a number where two are called alike."""
    called = [folder.name or folder.path.resolve().name for folder in scans]
    found: list[str] = []
    for name in called:
        own, number = name, 1
        while own in found or (number > 1 and own in called):
            number += 1
            own = f"{name} {number}"
        found.append(own)
    return found


def _check_own_maps(scans: Sequence[Folder], read: Sequence[Dataset], maps: Mapping[str, Path]) -> None:
    """Refuse scans of two folders with one name that share a label map: it is of one of them at most."""
    owners: dict[tuple[str, Path], Path] = {}
    for folder, dataset in zip(scans, read, strict=True):
        for case in dataset.cases() if folder.name in maps else ():
            if case.label is None:
                continue
            label, scan = case.label.resolve(), case.images[0].resolve()
            first = owners.setdefault((folder.name, label), scan)
            if first != scan:
                hint = (
                    f"python -m tools data convert {shown_place(folder.path)} NEW "
                    f"{shown_option('labels', 'ITS_LABELS')} makes a data set of one folder: give that with --scans"
                )
                raise DataError("two scans would share one label map, as both folders are called alike and so are the "
                                "files", where=label, got=f"{first} and {scan}",
                                expected="a label map for each scan", hint=hint)  # fmt: skip


def held_back(dataset: Dataset, share: float) -> Dataset:
    """The same cases with a share of them in the split ``test``, by hash of the subject, unless it has one already.

    With label maps it is labelled cases that are held back, as they tell more.

    Args:
        dataset: what is split.
        share: in (0, 1).
    """
    if dataset.cases("test"):
        return dataset
    labelled = [c for c in dataset.cases() if c.label is not None]
    bare = [c for c in dataset.cases() if c.label is None]
    first, pool = ("training", labelled) if labelled else ("unlabelled", bare)
    fractions = {first: 0.0, "test": share}
    if labelled:
        fractions = {first: 0.0, "validation": min(0.2, (1 - share) / 2), "test": share}
    place = hashed_split(dataset.name, (c.subject for c in pool), fractions)
    splits: dict[str, tuple[Case, ...]] = dict.fromkeys(SPLITS, ())
    splits |= {s: tuple(c for c in pool if place[c.subject] == s) for s in fractions}
    tested = {c.subject for c in splits["test"]}
    if labelled:
        splits["unlabelled"] = tuple(c for c in bare if c.subject not in tested)
    return replace(dataset, splits=splits)


def _read(
    folder: Folder,
    maps: Path | None,
    name: str,
    specs: Sequence[ExpertSpec],
    out: Path,
    structures: Mapping[str, int] | None,
) -> Dataset:
    """The data set of one folder; the name of a data set that is ready is its own."""
    listing = folder.path / "dataset.json"
    if listing.is_file():
        if maps is not None:
            raise ConfigError("a data set names its label maps itself", where="--labels", got=f"{folder.name}={maps}",
                              hint="leave --labels out for it")  # fmt: skip
        raw = "numTraining" in (content := read_json(listing)) and not any(s in content for s in SPLITS)
        ready = convert_nnunet(folder.path, out, name=name) if raw else read_dataset(folder.path)
        return replace(_as_called(ready, folder), name=name, root=out)
    given = _channels(folder)
    if maps is not None:
        return _labelled(folder, maps, name, given, out, structures)
    listed = scans_of(paired(folder.path, {}, given or ("image",)), given, folder.path)
    cases = [_with_subject(c) for c in listed]
    channels = told_channels(given, cases, folder.path, option="scans", written=out / "dataset.json")
    splits = {**dict.fromkeys(SPLITS, ()), "unlabelled": tuple(cases)}
    found = Dataset(name, out, channels, LabelSpace(("any",)), splits)
    own = [taught_space(s) for s in specs if not unread(s, found)]
    if not own:
        reads = "; ".join(f"{s.name}: {', '.join(s.channels)}" for s in specs)
        raise DataError("nobody teaches about these scans: no expert reads them, and they have no labels",
                        where=folder.path, got=", ".join(channels), expected=reads,
                        hint="say what they are, such as --scans ct=FOLDER, or give an expert for them")  # fmt: skip
    silent = [f"{s.name}: {', '.join(s.labels.names)}" for s in specs
              if not unread(s, found) and not taught_space(s).exclusive]  # fmt: skip
    if silent:
        raise DataError("nobody says of which structures these regions consist", where=folder.path, got=few(silent),
                        expected="the expert's own dataset.json, with the values of each region, or label maps",
                        hint=shown_option("labels", f"{name}=FOLDER") + " and --train \"--regions "
                        "{'EXPERT': {'REGION': ['STRUCTURE']}}\"")  # fmt: skip
    return replace(found, labels=union(*own))


def _labelled(
    folder: Folder,
    maps: Path,
    name: str,
    given: tuple[str, ...] | None,
    out: Path,
    structures: Mapping[str, int] | None,
) -> Dataset:
    found = convert_pairs(folder.path, maps, out, name=name, structures=structures, channels=given,
                          option="scans")  # fmt: skip
    nameless = [n for n in found.labels.names if n.startswith(f"{name} structure ")]
    if structures is None and nameless:
        values = ", ".join(n.rsplit(" ", 1)[1] for n in nameless)
        raise DataError("nobody says which structure is which value", where=maps, got=f"values {values}",
                        expected="names", hint="add --structures liver=1,spleen=2, for example")  # fmt: skip
    return found


def _channels(folder: Folder) -> tuple[str, ...] | None:
    """What the scans are: ``ct`` is CT, ``t1+flair`` are two channels; None where DICOM's tag says it."""
    if not folder.name:
        return None
    parts = [part for part in _PARTS.split(folder.name) if part]
    return tuple(kind_of(p) if p.casefold() in ("ct", "mr", "mri") else p for p in parts)


def _as_called(dataset: Dataset, folder: Folder) -> Dataset:
    """A data set that names itself, by that and what it is called together; a contradiction is refused."""
    called = _channels(folder) or ()
    if not any(map(meanings, called)):
        return dataset
    typed = shown_option("scans", f"{'+'.join(dataset.channels)}=FOLDER")
    both = agreed(called, dataset.channels, folder.path / "dataset.json", where=folder.path, typed=typed)
    for line in both.notes:
        logger.warning("%s: %s", folder.path, line)
    joined = any(" | " in name for name in dataset.channels)  # each case says what it is
    return dataset if joined else replace(dataset, channels=both.names)


def _with_subject(case: Case) -> Case:
    """The person that a case shows, where BIDS's names of files tell it."""
    entry = {"id": case.id, "image": [str(p) for p in case.images]}
    return replace(case, subject=read_case(entry, Path(), tuple(map(str, range(len(case.images)))), case.id).subject)
