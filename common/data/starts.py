"""Whether weights that a training begins with, or asks as experts, were taught on what it learns from."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..card import ModelCard
from ..contract import AS_ASKED, OVERRIDE, Contract, Fit
from ..errors import AmalgamationError, DataError
from ..labels import LabelSpace
from ..overridden import override
from .datasets.datalist import Collection, read_collection
from .datasets.dataset import Dataset
from .datasets.dataset_json import SPLITS, Case
from .datasets.fitting import odd_scans
from .datasets.known_cases import is_known_data
from .datasets.naming import is_general, is_nameless
from .slices.unlabelled import is_collection, unlabelled_images

__all__ = ["check_start"]

logger = logging.getLogger(__name__)

_ANY = (-1000.0, 1000.0)  # only what lies there is asked for


def check_start(
    card: ModelCard | None,
    where: str | Path,
    dataset_dir: str | Path | Sequence[str | Path] | Collection | None,
    *,
    structures: Sequence[str] = (),
    modalities: Sequence[str] | None = None,
    ignore_card: bool = False,
) -> None:
    """Refuse weights whose card says that they were taught on something else than the data; public ones say nothing.

    Scans whose intensities are none that the weights learned from are warned of, as ``predict`` warns.

    Args:
        card: of the weights; None compares nothing.
        where: their file, for messages.
        dataset_dir: anything that ``read_collection`` reads, or a plain folder of images; None compares nothing.
        structures: what they are asked about, which they must have been taught.
        modalities: the data's names of those that they are asked about; all when None.
        ignore_card: warn of what would be refused, which the trained model's card keeps; the number of channels is
            compared all the same.

    Raises:
        DataError: for other channels, another order of them, another modality, pictures in the place of volumes, or
            structures that were not taught.
        WeightError: when the card is damaged.
    """
    if card is None or dataset_dir is None:
        return
    contract = Contract.of_card(card, where)
    if not isinstance(dataset_dir, Collection) and not is_collection(dataset_dir):
        for name in modalities or ():
            fit = contract.fit(None, name, where=f"{dataset_dir}, for {where}", ignore=ignore_card)
            _tell([*fit.notes, *_odd_pictures(Path(str(dataset_dir)), name, contract, fit)])
        return
    collection = read_collection(dataset_dir)
    told: dict[str, None] = {}
    for dataset in collection.datasets:
        names = [n for n in _modalities(dataset) if modalities is None or n in modalities]
        for name in names:
            _compare(contract, dataset, name, ignore_card, told, structures)
    problem = _untaught(contract, structures)
    if problem is not None and not ignore_card:
        raise problem
    told.update({} if problem is None else {f"{where}: {problem.problem}: {problem.got}{AS_ASKED}": None})
    told.update(dict.fromkeys(_doubtful(contract, structures, collection)))
    _tell(told)


def _tell(lines: Iterable[str]) -> None:
    """Warn of each; what would be refused without ``ignore_card`` is remembered for the card, too."""
    for line in lines:
        if line.endswith(AS_ASKED):
            override(line)
        else:
            logger.warning(line)


def _modalities(dataset: Dataset) -> list[str]:
    cases = [*dataset.cases("training"), *dataset.cases("unlabelled")] or dataset.cases()
    return list(dict.fromkeys(map(dataset.modality_of, cases)))


def _compare(
    contract: Contract, dataset: Dataset, name: str, ignore: bool, told: dict[str, None], structures: Sequence[str] = ()
) -> None:
    where = f"{dataset.name}, for {contract.origin}"
    contract.check_dim(dataset.dim, where=where)
    fit = contract.fit(dataset.channels, name, where=where, ignore=ignore)
    straight = tuple(range(len(dataset.channels)))
    expected = ", ".join(dataset.channels[i] for i in fit.order)
    if fit.order not in (straight, ()) and ignore:
        told[f"{where}: {', '.join(dataset.channels)} in the place of {expected}{AS_ASKED}"] = None
    elif fit.order not in (straight, ()):
        problem = "the weights were taught the channels in another order"
        hint = f"list the channels, and each case's files, in this order; or add {OVERRIDE}"
        raise DataError(problem, where=where, got=", ".join(dataset.channels), expected=expected, hint=hint)
    told.update(dict.fromkeys(n for n in fit.notes if fit.order in (straight, ()) or not n.endswith(expected)))
    told.update(dict.fromkeys(f"for {contract.origin}: {line}" for line in odd_scans(dataset, name, contract, fit)))
    taught = contract.taught_on(fit.modalities)
    left = [s for s in structures if s in dataset.labels.names and taught is not None and s not in taught]
    if left:
        told[f"{where}: never taught on {' or '.join(fit.modalities)}: {', '.join(left)}"] = None


def _odd_pictures(folder: Path, modality: str, contract: Contract, fit: Fit) -> list[str]:
    """The same of a plain folder of images; one that holds none is refused by who reads it."""
    try:
        images = unlabelled_images(folder, modality=modality, ct_window=_ANY)
    except AmalgamationError:
        return []
    cases = [Case(str(i["case"]), (Path(i["image"]),), None, str(i["case"]), modality) for i in images.items]
    splits = {**dict.fromkeys(SPLITS, ()), "unlabelled": tuple(cases)}
    dataset = Dataset(folder.name, folder, tuple(images.channels), LabelSpace(("any",)), splits, images.dim, modality)
    return [f"for {contract.origin}: {line}" for line in odd_scans(dataset, modality, contract, fit)]


def _untaught(contract: Contract, structures: Sequence[str]) -> DataError | None:
    """What is asked and was not taught, where the card says what was."""
    taught = list(dict.fromkeys(s for names in contract.taught.values() for s in names))
    left = [s for s in structures if s not in taught]
    if not taught or not left:
        return None
    hint = f"give them for what they were taught, name it so in collection.json, or add {OVERRIDE}"
    return DataError("the weights were not taught the structure that they are given for", where=contract.origin,
                     got=", ".join(left), expected=f"some of {', '.join(taught)}", hint=hint)  # fmt: skip


def _doubtful(contract: Contract, structures: Sequence[str], collection: Collection) -> list[str]:
    """Names that mean nothing, or anything, and come from another data set than those that have them here."""
    doubtful = [s for s in structures if is_nameless(s) or is_general(s)]
    others = [d for d in collection.datasets if set(doubtful) & set(d.labels.names)
              and not is_known_data(d, contract.data)]  # fmt: skip
    said = []
    for name in doubtful:
        owners = [d.name for d in others if name in d.labels.names]
        if owners:
            entry = json.dumps({owners[0]: {"labels": {name: f"<organ> {name}"}}}, ensure_ascii=False)
            said.append(f"{contract.origin}: nobody says whether its {name!r} is that of {', '.join(owners)}; "
                        f'if they differ: "tasks": {entry} in collection.json')  # fmt: skip
    return said
