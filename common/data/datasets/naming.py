"""Whether names of structures mean what uniting tasks by name takes them to mean."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from ...channel_order import order_of, other_phase
from ...contract import OVERRIDE
from ...errors import DataError, LabelError, few
from ...labels import LabelSpace
from ...modalities import meanings, same
from ...more_telling import more_telling
from ...name_words import meant_together, plain
from ...synonyms import says_same
from .datalist import Collection
from .dataset import Dataset
from .organs import names_an_organ
from .spelling import alike, groups, nearly, word_key

__all__ = ["Doubt", "check_names", "is_general", "is_nameless", "known_part", "name_doubts"]

logger = logging.getLogger(__name__)

_WORDS = (
    "structure|label|class|segment|segmentation|seg|region|object|mask|roi|part|category|value|organ|target|annotation|"
    "gt|ground[\\W_]*truth|positive|negative|material|foreground|fg|lbl|unknown|untitled|unnamed|noname"
)
_BARE = re.compile(
    rf"[\W_]*(?:(?:new[\W_]*)?(?:{_WORDS})s?(?:[\W_]*\d+)*(?:[\W_]+[a-z])?|\d+(?:[\W_]+\d+)*)[\W_]*", re.IGNORECASE
)
_PREFIXED = re.compile(r".*[\W_](?:structure|label|class)[\W_]*\d+", re.IGNORECASE)  # "liver segment 4" is a name
_OF_ANYTHING = (
    "tumor cancer lesion cyst mass nodule edema vessel metastasis pathology gtv gtvp gtvn gtvt gtvnd ctv ptv itv lymph "
    "node artery vein neoplasm carcinoma adenoma sarcoma lymphoma necrosis hemorrhage hematoma calcification polyp "
    "thrombus clot plaque lumen wall ventricle infection abscess core aneurysm stenosis infarct ischemia scar fibrosis "
    "inflammation effusion fluid abnormality finding anomaly defect benign malignant duct nerve implant"
)
_PARTS = (
    "head neck body tail cortex cortical medulla lobe lobule pole horn apex base capsule septum valve root arch trunk "
    "stem isthmus crus shaft tip fundus antrum hilum cavity chamber atrium appendage parenchyma stroma pulp vestibule "
    "ligament tendon muscle cartilage meniscus marrow endocardium myocyte endo epi epicardium zone sinus canal "
    "tract nucleus ganglion peduncle genu splenium matter commissure segment subsegment quadrant compartment territory "
    "margin rim border shell surface interior exterior half third process condyle epiphysis diaphysis metaphysis"
)
_GENERAL = set(_OF_ANYTHING.split()) | set(_PARTS.split())
_WHERE = (
    "anterior posterior left right upper lower inner outer superior inferior medial lateral proximal distal central "
    "peripheral dorsal ventral cranial caudal middle mid top bottom front back other rest remainder large small"
)
_PLACES = set(_WHERE.split())
_NARROW = (
    "whole enhancing nonenhancing non enhanced necrotic cystic solid active primary secondary recurrent residual gross "
    "clinical planning target volume small large inner outer upper lower anterior posterior left right new old other "
    "all any main total high low grade risk dose lymph and or of the p n t l r superior inferior medial lateral free "
    "proximal distal central dorsal ventral cranial caudal middle mid top bottom front back rest remaining remainder"
)
_NARROWING = set(_NARROW.split())  # words that say of no organ which it is
_ORGANS = {"eye", "rib", "ear", "lip", "jaw", "hip", "arm", "leg", "toe", "gut", "fat", "air", "csf", "ivc", "svc"}
_SHORT = re.compile(r"[a-z]{2,3}|[bcdfghjklmnpqrstvwxz]{4,6}")  # LV, Myo, CRBL: read otherwise by each who reads it


class Doubt(NamedTuple):
    """Names that may not mean what they seem to.

    Args:
        severity: ``error`` where different things would surely be taken for one, ``warning`` where names may be wrong.
        tasks: whose names these are.
        got: what is doubted.
        hint: what to write where.
        problem: what is wrong, of an error.
    """

    severity: str
    tasks: tuple[str, ...]
    got: str
    hint: str
    problem: str = "tasks are united by names, and nobody gave these structures any"


def is_nameless(name: str) -> bool:
    """Whether a name is but a number, such as ``structure 1``, ``Segment_2`` or ``mask``: nobody gave it."""
    return any(p.fullmatch(name) for p in (_BARE, _PREFIXED))


def is_general(name: str) -> bool:
    """Whether a name is of anything in any organ: ``tumor``, ``enhancing tumor``, ``left lobe``, ``anterior``, ``LV``.

    So are findings, parts of organs, places alone, abbreviations, and whatever has no word of an organ (``stone``). One
    data set's is no other's, unless a word says of which organ it is: ``kidney tumor``, ``head of the pancreas``.
    """
    found = {re.sub(r"\d+$", "", w) for w in word_key(name).split()} - {""}
    told = {w for w in found if w in _GENERAL or (_SHORT.fullmatch(w) and w not in _ORGANS | _NARROWING)}
    alone = bool(told or found & _PLACES) and found <= told | _NARROWING | _PLACES
    return (alone or not names_an_organ(name)) and not is_nameless(name)


def name_doubts(datasets: Sequence[Dataset]) -> list[Doubt]:
    """Names that nobody gave and several tasks have, names that differ in spelling alone, and names of anything.

    Args:
        datasets: the tasks of a collection, with the names that it gives them.
    """
    owners: dict[str, list[str]] = {}
    for dataset in datasets:
        for name in dataset.labels.names:
            owners.setdefault(name, []).append(dataset.name)
    found = []
    shared = {n: t for n, t in owners.items() if len(t) > 1}
    for name in filter(is_nameless, shared):
        hint = f"say what it is in each: {_renaming(shared[name][0], name, '<its name>')} in collection.json; or " \
               "convert again with --structures \"<its name>=<value>\""  # fmt: skip
        found.append(
            Doubt("error", tuple(shared[name]), f"{name!r} would be one structure in all of these tasks", hint)
        )
    for name in filter(is_general, shared):
        hint = f"if they differ: {_renaming(shared[name][-1], name, '<organ> ' + name)} in collection.json"
        found.append(Doubt("warning", tuple(shared[name]), f"{name!r} is taken for one structure in these tasks", hint))
    found += [*_unknown_modalities(datasets), *_swapped_channels(datasets), *_other_kinds(datasets)]
    found += _other_channels(datasets)
    one = [(first, other, "") for first, *others in groups(owners) for other in others]
    slips = [(a, b, ", and differ in a letter") for a, b in combinations(owners, 2)
             if not set(owners[a]) & set(owners[b]) and nearly(a, b)]  # fmt: skip
    for first, other, why in [*one, *slips]:
        hint = f"if they are one: {_renaming(owners[other][0], other, first)} in collection.json"
        tasks = tuple(dict.fromkeys([*owners[first], *owners[other]]))
        found.append(Doubt("warning", tasks, f"{first!r} and {other!r} are taken for two structures{why}", hint))
    return found


def _unknown_modalities(datasets: Sequence[Dataset]) -> list[Doubt]:
    """Modalities of one name that tells nothing: a network takes them for one."""
    owners: dict[str, list[str]] = {}
    for dataset in datasets:
        for name in dict.fromkeys(map(dataset.modality_of, dataset.cases())):
            owners.setdefault(name, []).append(dataset.name)
    shared = {n: t for n, t in owners.items() if len(t) > 1 and not meanings(n)}
    found = []
    for name, tasks in shared.items():
        entry = json.dumps({tasks[0]: {"modality": "CT"}})
        hint = f'say what they are: "tasks": {entry} in collection.json, likewise for the others'
        found.append(Doubt("warning", tuple(tasks), f"{name!r} tells no modality: these tasks are taken for one", hint))
    return found


def _other_channels(datasets: Sequence[Dataset]) -> Iterator[Doubt]:
    """Tasks of one modality whose channels say something else: a network takes them for one."""
    first: dict[str, Dataset] = {}
    for dataset in datasets:
        for name in dict.fromkeys(map(dataset.modality_of, dataset.cases())):
            one = first.setdefault(name, dataset)
            pairs = zip(meant_together(one.channels), meant_together(dataset.channels), strict=False)
            if len(one.channels) != len(dataset.channels) or not all(says_same(*pair) for pair in pairs):
                got = f"{name!r} is {', '.join(one.channels)} in one task, {', '.join(dataset.channels)} in the other"
                entry = json.dumps({dataset.name: {"modality": " + ".join(dataset.channels)}}, ensure_ascii=False)
                hint = f'if they differ: "tasks": {entry} in collection.json'
                yield Doubt("warning", (one.name, dataset.name), got, hint)


def _swapped_channels(datasets: Sequence[Dataset]) -> Iterator[Doubt]:
    """Tasks that have channels of an earlier one at other places: a network would take one for the other."""
    for number, dataset in enumerate(datasets):
        for first in (d for d in datasets[:number] if len(d.channels) == len(dataset.channels)):
            order = order_of(first.channels, dataset.channels)
            whole = order is not None and order != tuple(range(len(order)))
            moved = _moved(first.channels, dataset.channels)
            if whole or moved:
                listed = ", ".join(first.channels)
                hint = f"list the channels, and each case's files, in one order: {listed}" if whole else (
                    f"give {moved} one place in all tasks, or train these tasks apart")  # fmt: skip
                got = f"channels {listed} in one task, {', '.join(dataset.channels)} in the other"
                yield Doubt("error", (first.name, dataset.name), got, hint, "the channels lie in different orders")
                break


def _moved(first: Sequence[str], other: Sequence[str]) -> str:
    """A channel of one task that another has at another place, where the first surely has something else."""
    first, read = meant_together(first), meant_together(other)
    for place, name in enumerate(read):
        elsewhere = any(_is_surely(o, name) for i, o in enumerate(first) if i != place)
        if elsewhere and (same(first[place], name) is False or other_phase(first[place], name)):
            return other[place]
    return ""


def _is_surely(one: str, other: str) -> bool:
    return plain(one) == plain(other) or (same(one, other) is True and not other_phase(one, other))


def _other_kinds(datasets: Sequence[Dataset]) -> Iterator[Doubt]:
    """Tasks whose modality is surely none of what their channels are; pictures in colours may show anything."""
    for dataset in datasets:
        told = [{m.kind for m in meanings(c)} for c in meant_together(dataset.channels)]
        known = set[str]().union(*told)
        if not all(told) or "photo" in known:
            continue
        for name in dict.fromkeys(map(dataset.modality_of, dataset.cases())):
            kinds = {m.kind for m in meanings(name)}
            if (kinds and not kinds & known) or _contradicts(name, dataset.channels):
                entry = json.dumps({dataset.name: {"modality": " + ".join(dataset.channels)}}, ensure_ascii=False)
                hint = f'"tasks": {entry} in collection.json; or correct "channel_names" in dataset.json'
                got = f"channel {', '.join(dataset.channels)} in a task of {name}"
                yield Doubt("error", (dataset.name,), got, hint, "the modality is none of what the channels are")


def _contradicts(name: str, channels: Sequence[str]) -> bool:
    """Whether a modality and the only channel are surely two things: ``T1 MR`` of T2, ``CT arterial`` of CT portal."""
    return len(channels) == 1 and all(more_telling(name, part) is None for part in channels[0].split(" | "))


def check_names(
    collection: Collection, doubts: Sequence[Doubt] | None = None, *, ignore: bool = False, override: str = OVERRIDE
) -> list[str]:
    """Sentences about doubtful names.

    Args:
        collection: what is about to be trained on.
        doubts: what :func:`name_doubts` found in it; found here when None.
        ignore: go on all the same; what would have been refused is among the sentences.
        override: what is typed for that; empty where nothing is.

    Raises:
        DataError: when tasks share a name that nobody gave, as different structures would become one; when their
            channels lie in different orders; when a modality is none of what the channels are.
    """
    doubts = name_doubts(collection.datasets) if doubts is None else doubts
    errors = [d for d in doubts if d.severity == "error"]
    if errors and not ignore:
        raise DataError(
            errors[0].problem,
            where=collection.root,
            got=few([d.got for d in errors if d.problem == errors[0].problem]) + f": {', '.join(errors[0].tasks)}",
            expected="names that mean the same in every task that has them",
            hint=errors[0].hint + (f"; or add {override}" if override else ""),
        )
    return [f"{', '.join(d.tasks)}: {d.got}; {d.hint}" for d in doubts]


def known_part(labels: LabelSpace, own: LabelSpace, *, where: object) -> LabelSpace:
    """The structures of a data set that a model has, with their values there; it may have others beside them.

    Args:
        labels: the data set's. One that differs in a letter from the model's is warned of.
        own: the model's.
        where: the data set, for messages.

    Raises:
        LabelError: when a structure that the model lacks is one of the model's in another spelling, or it has none.
    """
    shared = [(n, v) for n, v in zip(labels.names, labels.values, strict=True) if n in own.names]
    free = [n for n in own.names if n not in labels.names]
    others = [n for n in labels.names if n not in own.names]
    near = next(((n, o) for n in others for o in free if alike(n, o)), None)
    if near is not None:
        problem = "the model spells a structure in another way"
        hint = f"if they are one: {_renaming(str(where), *near)} in collection.json"
        raise LabelError(problem, where=where, got=near[0], expected=near[1], hint=hint)
    for name, other in ((n, o) for n in others for o in free if nearly(n, o)):
        hint = f"if they are one: {_renaming(str(where), name, other)} in collection.json"
        logger.warning("%s: the model has no %r, and its %r differs in a letter; %s", where, name, other, hint)
    if not shared:
        problem = "the model has no structure of these data"
        raise LabelError(problem, where=where, got=", ".join(labels.names), expected=", ".join(own.names))
    return LabelSpace(tuple(n for n, _ in shared), tuple(v for _, v in shared), labels.exclusive)


def _renaming(task: str, name: str, new: str) -> str:
    return f'"tasks": {json.dumps({task: {"labels": {name: new}}}, ensure_ascii=False)}'
