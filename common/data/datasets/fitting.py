"""The cases of a collection as a trained model reads them, or a refusal: its channels by name, its modality's name."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...contract import OVERRIDE, Contract, Fit
from ...dicom_tags import doubts, doubts_by_channel, is_scan
from ...errors import AmalgamationError, DataError
from ...geometry import Grid
from ...modalities import is_ct, meanings, same
from ...name_words import meant_together
from ...scan_fit import COMPARED, OVERRIDDEN, as_recorded, check_given, mark_of
from ..dicom.contents import modality_tag
from ..dicom.slices import is_dicom
from ..io import read_volume
from ..remarks import remarks
from .datalist import Collection, items, read_collection
from .dataset import Dataset
from .dataset_json import Case
from .known_cases import is_known_data
from .naming import is_general, is_nameless
from .verify_contents import other_dicom

__all__ = ["fitting_items", "odd_scans"]

logger = logging.getLogger(__name__)

_EACH = 5
_LOOKED = 10  # of each modality, as :mod:`..survey` reads them
_SETTLED_NS = 2_000_000_000  # clocks of file systems are coarse: a younger file may change without another time
_said: dict[str, str] = {}  # of scans that this process compared


def fitting_items(
    dataset_dir: str | Path | Sequence[str | Path] | Collection,
    split: str,
    contract: Contract,
    ignore_card: bool = False,
    modality: str | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """What :func:`.datalist.items` lists, after each case was compared with what the model was taught on.

    Channels in another order are put into the model's, and a modality that the model knows by another name (``CTA``,
    ``CT``) gets the model's. Voxels are compared, too: what the model never saw the like of is warned of, and is the
    item's ``doubt``. What cannot be compared is told once per data set. Each item bears the card's mark: nothing
    behind it compares it again.

    Args:
        dataset_dir: anything that ``read_collection`` reads.
        split: ``training``, ``validation``, ``test`` or ``unlabelled``.
        contract: what the model's card says.
        ignore_card: take data of other channels or modalities as they are, and say so.
        modality: what all cases are; it is compared with what they say, and is then what they are.
        options: of :func:`.datalist.items`.

    Raises:
        DataError: for data that are not what the model was taught on.
    """
    collection = read_collection(dataset_dir)
    if count := sum(len(d.cases(split)) for d in collection.datasets) if _comparable(contract) else 0:
        logger.info("comparing %d scans with the model's card", count)
    told: dict[str, None] = {}
    doubts: dict[tuple[str, str], str] = {}
    given = modality or ""
    if given and not ignore_card:  # one that the model does not know is that, whatever the data are
        contract.fit(None, given, where="modality")
    datasets = [_fitted(d, split, contract, ignore_card, told, doubts, given) for d in collection.datasets]
    for line in told:
        logger.warning(line)
    found = items(replace(collection, datasets=tuple(datasets)), split, **options)
    more = {COMPARED: mark_of(contract), **({OVERRIDDEN: as_recorded(contract, told)} if ignore_card else {})}
    found = [{**i, **more} for i in found]
    return [{**i, "doubt": doubts.get((i["task"], i["case"]), "")} for i in found] if doubts else found


def _fitted(
    dataset: Dataset,
    split: str,
    contract: Contract,
    ignore: bool,
    told: dict[str, None],
    doubts: dict[tuple[str, str], str],
    given: str = "",
) -> Dataset:
    cases, odd = [], dict[str, str]()
    if dataset.cases(split):
        contract.check_dim(dataset.dim, where=dataset.name)
        told.update(dict.fromkeys(_meant(dataset, split, contract, ignore)))
    for case in dataset.cases(split):
        own, where = dataset.modality_of(case), f"{dataset.name}, case {case.id}"
        if contract.modalities and not ignore:
            _as_dicom_says(dataset, case)
        called = (case.modality or dataset.modality, *dataset.channels[: len(dataset.channels) == 1])
        against = check_given(given, called, where=where, ignore=ignore)
        modality = own if against else given or own
        fit = contract.fit(dataset.channels, modality, where=where, ignore=ignore)
        fit = _as_they_lie(case, fit, dataset) if ignore else fit
        notes = [*against, *fit.notes, *_as_model_reads(case, contract, fit, dataset, ignore)]
        told.update(dict.fromkeys(n.replace(f", case {case.id}", "", 1) for n in notes))
        told.update(dict.fromkeys(_untaught(dataset, contract, fit)))
        cases.append(_in_order(replace(case, modality=_named(modality, fit)), fit.order, dataset))
        if said := _remarked(cases[-1], dataset, contract, fit):
            doubts[dataset.name, case.id] = odd[case.id] = said
    told.update(dict.fromkeys(_lines(dataset, odd, ": their summary says why")))
    return replace(dataset, splits={**dataset.splits, split: tuple(cases)})


def _lines(dataset: Dataset, odd: Mapping[str, str], where: str = "") -> list[str]:
    more = f", and {len(odd) - _EACH} further cases{where}" if len(odd) > _EACH else ""
    lines = [f"{dataset.name}, case {name}: {said}" for name, said in list(odd.items())[:_EACH]]
    return [*lines[:-1], *(line + more for line in lines[-1:])]


def odd_scans(dataset: Dataset, modality: str, contract: Contract, fit: Fit) -> list[str]:
    """Sentences about scans whose voxels are none that a model learned from, before it trains on them or is asked.

    A few scans are read, evenly spread over those for training.

    Args:
        dataset: its files lie in the data set's order, and so they are compared.
        modality: the data set's name of those that are compared.
        contract: what the model's card says.
        fit: what :meth:`.Contract.fit` found for them.
    """
    known = [(n, tuple(map(str, m.get("channels", ())))) for n, m in contract.modalities.items()]
    names = [n for name, own in (*known, ("", contract.channels)) for n in (name, *own)]
    if not any(m.get("intensities") for m in contract.modalities.values()) and not any(map(is_ct, names)):
        return []
    cases = [*dataset.cases("training"), *dataset.cases("unlabelled")] or list(dataset.cases())
    cases = [c for c in cases if dataset.modality_of(c) == modality]
    step = max(1, -(-len(cases) // _LOOKED))
    straight = fit._replace(order=tuple(range(len(dataset.channels))))
    found = {c.id: _remarked(c, dataset, contract, straight) for c in cases[::step]}
    lines = _lines(dataset, {name: said for name, said in found.items() if said})
    return [*lines[:-1], *(f"{line} ({len(found)} of {len(cases)} scans were compared)" for line in lines[-1:])]


def _remarked(case: Case, dataset: Dataset, contract: Contract, fit: Fit) -> str:
    """Why the voxels are none that the model learned from; a scan that cannot be read is left to who needs it.

    It is read once while neither its files nor the card change: some evaluations list their cases twice.
    """
    if not _comparable(contract):
        return ""
    channels = [dataset.channels[i] for i in fit.order]
    try:
        states = [_state(f) for p in case.images for f in (sorted(p.iterdir()) if p.is_dir() else [p])]
        key = repr((states, dataset.dim, channels, fit.modalities, contract.channels, contract.modalities))
        if key in _said:
            return _said[key]
        image = read_volume(case.images, dim=dataset.dim, channels=channels)
    except (AmalgamationError, OSError):
        return ""
    flat = dataset.dim == len((0, 0))
    spacing = () if flat else Grid.of(image).spacing
    said = "; ".join(remarks(image.numpy(), contract, fit.modalities, flat=flat, spacing=spacing))
    if time.time_ns() - max(t for _, _, *times in states for t in times) > _SETTLED_NS:
        _said[key] = said
    return said


def _comparable(contract: Contract) -> bool:
    """Whether the card says anything that voxels can be compared with."""
    return bool(contract.modalities or contract.channels)


def _state(path: Path) -> tuple[str, int, int, int]:
    status = path.stat()
    return str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _meant(dataset: Dataset, split: str, contract: Contract, ignore: bool) -> list[str]:
    """Refuse names that nobody gave and another data set has too; say which are of anything in any organ."""
    taught = {s for names in contract.taught.values() for s in names}
    known = {str(d.get("name")) for d in contract.data}
    shared = [n for n in dataset.labels.names if n in taught]
    nameless = list(filter(is_nameless, shared))
    doubtful = [*nameless, *filter(is_general, shared)]
    if not doubtful or all(c.label is None for c in dataset.cases(split)):
        return []
    own = is_known_data(dataset, contract.data)
    if own:
        return []
    whose = f" ({', '.join(sorted(known))})" if known else ""
    entry = json.dumps({dataset.name: {"labels": {doubtful[0]: "<organ> " + doubtful[0]}}}, ensure_ascii=False)
    if nameless and known and own is False and not ignore:
        problem = "the model learned from another data set, and nobody gave these structures names"
        expected = f"structures of one of{whose}"
        hint = f'if they differ: "tasks": {entry} in collection.json; or add {OVERRIDE}'
        raise DataError(problem, where=dataset.name, got=", ".join(nameless), expected=expected, hint=hint)
    return [f"{dataset.name}: {', '.join(doubtful)}: nobody says whether these are the same as in the data that the "
            f"model learned from{whose}; if they differ: \"tasks\": {entry} in collection.json"]  # fmt: skip


def _as_dicom_says(dataset: Dataset, case: Case) -> None:
    """Refuse a case whose data set says something else than its DICOM files: the model may know both."""
    found = other_dicom(dataset, case)
    if found is not None:
        raise DataError("DICOM says that the scan is something else", where=f"{dataset.name}, case {case.id}",
                        got=found.got, expected=found.expected, hint=f"{found.hint}; or add {OVERRIDE}")  # fmt: skip


def _as_model_reads(case: Case, contract: Contract, fit: Fit, dataset: Dataset, ignore: bool) -> list[str]:
    """Refuse a case of which DICOM says that it, or a channel of it, is none of what the model reads; else its notes.

    What the data set says of a scan tells more than DICOM's tag, which knows no phase: notes about both are told.
    """
    where, names = f"{dataset.name}, case {case.id}", meant_together(dataset.channels)
    tags = [modality_tag(p) if is_dicom(p) else "" for p in case.images]
    said: list[str] = []
    if len(tags) == 1 and tags[0]:
        names = (dataset.modality_of(case), *(names if len(names) == 1 else ()))
        notes = contract.fit(None, tag=tags[0], where=where, ignore=ignore).notes
        said += [] if any(meanings(n) for n in names) and is_scan(tags[0]) else notes
        said += [f"{where}: {line}" for line in doubts(tags[0], names)]
    elif any(tags):
        if not ignore:
            contract.check_tags(tags, fit, where=where)
        said += [f"{where}: {line}" for line in doubts_by_channel(zip(tags, names, strict=False))]
    return said


def _named(modality: str, fit: Fit) -> str:
    """The model's name of a case's modality, where both mean the same for sure."""
    known = [n for n in fit.modalities if same(n, modality) and (len(meanings(modality)) <= 1 or n == modality)]
    return known[0] if len(known) == 1 else modality


def _as_they_lie(case: Case, fit: Fit, dataset: Dataset) -> Fit:
    """Channels in one file keep their order where the card is not to be obeyed: no command can turn them."""
    straight = tuple(range(len(fit.order)))
    if fit.order == straight or len(case.images) == len(fit.order):
        return fit
    names = ", ".join(dataset.channels)
    expected = ", ".join(dataset.channels[i] for i in fit.order)
    note = f"{dataset.name}: channels {names} lie in one file and are read in the place of {expected}, as asked"
    return fit._replace(order=straight, notes=(note,))


def _in_order(case: Case, order: tuple[int, ...], dataset: Dataset) -> Case:
    if order == tuple(range(len(order))):
        return case
    if len(case.images) != len(order):
        raise DataError(
            "the channels lie in another order than the model reads, and in one file",
            where=f"{dataset.name}, case {case.id}",
            got=", ".join(dataset.channels),
            expected=", ".join(dataset.channels[i] for i in order),
            hint=f"write them in this order, or one file per channel; {OVERRIDE} takes them as they are",
        )
    return replace(case, images=tuple(case.images[i] for i in order))


def _untaught(dataset: Dataset, contract: Contract, fit: Fit) -> list[str]:
    taught = contract.taught_on(fit.modalities)
    names = [] if taught is None else [n for n in dataset.labels.names if n not in taught]
    where = " or ".join(fit.modalities)
    return [f"{dataset.name}: not taught on {where}, and so not scored: {', '.join(names)}"] if names else []
