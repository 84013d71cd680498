"""Whether an expert fits the data that it is asked about: their image channels and their structures."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from ..channel_doubt import remark, remarks
from ..channel_order import order_of
from ..command_words import shown_option
from ..contract import AS_ASKED, OVERRIDE, Contract
from ..data.datasets.dataset import Dataset
from ..data.datasets.fitting import odd_scans
from ..data.datasets.known_cases import is_known_data
from ..data.datasets.naming import is_general, is_nameless
from ..errors import AmalgamationError, DataError, ExpertError
from ..labels import LabelSpace, sides
from ..modalities import meanings, same
from ..name_words import meant_together
from ..overridden import override
from ..weights import read_card
from .spec import ExpertSpec
from .trust import WEIGHTS

__all__ = ["check_expert", "check_reads_any", "check_voxels", "doubts", "reads", "tell_doubts"]

logger = logging.getLogger(__name__)

_EXTERNAL = "describe it as a task-agnostic expert: python -m tools experts describe ... --external True"


def check_expert(
    spec: ExpertSpec,
    channels: Sequence[str] | None,
    labels: LabelSpace | None,
    *,
    modalities: Sequence[str] = (),
    dataset: Dataset | None = None,
    ignore_card: bool = False,
) -> None:
    """Refuse an expert that does not read the data's channels, or predicts structures that the data do not have.

    Channels are compared by name and order: a synonym (``CTA`` for ``CT``, ``T1`` for ``MR``) is no other name. What
    the data call their modality is compared with them, too, and with the card that the expert's training left. Of a
    task-agnostic expert only the channels' number is; structures are compared by name, those of task experts only.

    Args:
        spec: the expert's description.
        channels: names of the data's image channels, in order; None is not compared.
        labels: the structures that the student learns, those of all tasks; None is not compared.
        modalities: what the data call the modalities of their cases; none is not compared.
        dataset: the task's, whose files tell whether the expert learned from it, and whose voxels are compared with its
            card; None goes by its name.
        ignore_card: compare the channels' number only; what would be refused is kept by the student's card.

    Raises:
        ExpertError: for the first thing that does not fit, with what to rename where a name is all that differs.
    """
    if channels is not None:
        _check_channels(spec, channels, ignore_card)
    if dataset is not None:
        check_voxels(spec, [dataset], ignore_card=ignore_card)
    if spec.role != "task":
        for modality in modalities or ("",) if channels is not None else ():
            if reads(spec, channels or (), modality, ignore_card=ignore_card):
                tell_doubts(spec, channels or (), modality, "" if dataset is None else dataset.name)
        return
    card = _own_card(spec)
    for modality in modalities:
        _check_modality(spec, card, channels, modality, ignore_card)
    if labels is not None:
        _check_labels(spec, labels)
        _check_meant(spec, card, dataset, ignore_card)


def check_voxels(spec: ExpertSpec, datasets: Iterable[Dataset], *, ignore_card: bool = False) -> None:
    """Warn of scans whose intensities are none that an expert learned from, as ``predict`` warns.

    They are compared with the card beside it; of an expert without one, only a CT is, which has to be in HU.

    Args:
        spec: the expert's description.
        datasets: whose scans it is asked about; what it cannot read is left out.
        ignore_card: compare what is of another modality by its name, too.
    """
    card = _own_card(spec)
    card = card if card.modalities or card.channels else Contract(spec.channels, origin=str(spec.path))
    for dataset in datasets:
        for name in dict.fromkeys(map(dataset.modality_of, dataset.cases())):
            try:
                found = card.fit(dataset.channels, name, ignore=ignore_card)
            except DataError:
                continue
            for line in odd_scans(dataset, name, card, found):
                logger.warning("expert %r: %s", spec.name, line)


def check_reads_any(
    spec: ExpertSpec, data: Sequence[Sequence[str]], modalities: Sequence[Sequence[str]] | None = None
) -> None:
    """Refuse a task-agnostic expert whose channels are surely none of any task's, by name and order.

    Args:
        spec: the expert's description.
        data: the channels of each task.
        modalities: of each task what it calls the modalities of its cases; None is not compared.

    Raises:
        ExpertError: when no task has what it reads.
    """
    orders = [order_of(spec.channels, c) if len(c) == len(spec.channels) else None for c in data]
    card, names = _own_card(spec), modalities or [()] * len(data)
    fits = [not n or not all(_other_modality(spec, card, c, m) for m in n) for c, n in zip(data, names, strict=True)]
    straight = tuple(range(len(spec.channels)))
    read = [i for i, (f, order) in enumerate(zip(fits, orders, strict=True)) if f and order == straight]
    for i in read:
        for modality in names[i] or ("",):
            tell_doubts(spec, data[i], modality)
    if read:
        return
    orders = [order if f else None for f, order in zip(fits, orders, strict=True)]
    told = [f"{', '.join(c)} of {' or '.join(m)}" if m else ", ".join(c) for c, m in zip(data, names, strict=True)]
    own, given = ", ".join(spec.channels), "; ".join(told)
    swapped = any(order is not None for order in orders)
    hint = f"list the channels, and each case's files, in the expert's order: {own}" if swapped else (
        "leave this expert out")  # fmt: skip
    raise ExpertError("the expert reads the tasks' channels in another order" if swapped else
                      "the expert reads none of the tasks' modalities", where=f"expert {spec.name!r}",
                      got=own, expected=given, hint=f"{hint}, or add {OVERRIDE}")  # fmt: skip


def reads(spec: ExpertSpec, channels: Sequence[str], modality: str = "", *, ignore_card: bool = False) -> bool:
    """Whether an expert can be asked about scans that are none of its own task's: channels and modality are its own.

    Args:
        spec: the expert's description.
        channels: names of the scans' channels, in order.
        modality: what the data call their modality; empty is not compared.
        ignore_card: compare the channels' number only.
    """
    if len(channels) != len(spec.channels):
        return False
    if ignore_card:
        return True
    straight = order_of(spec.channels, channels) == tuple(range(len(channels)))
    alike = spec.role != "task" or all(map(_is_known_as, meant_together(channels), meant_together(spec.channels)))
    return straight and alike and not (modality and _other_modality(spec, _own_card(spec), channels, modality))


def doubts(spec: ExpertSpec, channels: Sequence[str], modality: str = "") -> list[str]:
    """What a user should know before an expert is asked about scans that it reads: names that may mean something else.

    Args:
        spec: the expert's description.
        channels: names of the scans' channels, in order, as many as the expert reads.
        modality: what the data call their modality; it speaks for a channel whose name tells nothing.
    """
    known, given = meant_together(spec.channels), meant_together(channels)
    called = modality if meanings(modality) or not any(map(meanings, given)) else ""  # "BraTS" says nothing of it
    told = remarks(" + ".join(known), known, given, called)
    told += [line.removeprefix("the data: ") for line in _of_card(spec, _own_card(spec), channels, modality)]
    return list(dict.fromkeys(filter(None, told)))


def tell_doubts(spec: ExpertSpec, channels: Sequence[str], modality: str = "", task: str = "") -> None:
    """Warn, once in a process, of the doubts about an expert that is asked about scans of no task of its own.

    Scans that it is asked about though it does not read them (``ignore_card``) are kept by the student's card.

    Args:
        spec: the expert's description.
        channels: as of :func:`doubts`.
        modality: likewise.
        task: whose scans they are; empty when it does not matter.
    """
    if not reads(spec, channels, modality):
        own, given = ", ".join(spec.channels), " of ".join(filter(None, [", ".join(channels), modality]))
        override(f"expert {spec.name!r}: {given} in the place of {own}{AS_ASKED}")
        return
    for line in doubts(spec, channels, modality):
        _tell_once(spec.name, str(spec.path), f" about {task}" if task else "", line)


@lru_cache(maxsize=1000)
def _tell_once(name: str, _path: str, about: str, line: str) -> None:
    logger.warning("expert %r, asked%s: %s", name, about or " about other scans", line)


def _check_modality(
    spec: ExpertSpec, card: Contract, channels: Sequence[str] | None, modality: str, ignore_card: bool
) -> None:
    for line in [] if ignore_card else _of_card(spec, card, channels, modality):
        logger.warning("expert %r: %s", spec.name, line)
    reason = _other_modality(spec, card, channels, modality)
    if reason and ignore_card:
        override(f"expert {spec.name!r}: {modality} in the place of {reason}{AS_ASKED}")
    elif reason:
        problem = "the expert was taught on another modality"
        expected = f"{modality}, the modality of {spec.task}"
        hint = f"correct the task's modality, leave the expert out, or add {OVERRIDE}"
        raise ExpertError(problem, where=f"expert {spec.name!r}", got=reason, expected=expected, hint=hint)


def _check_channels(spec: ExpertSpec, channels: Sequence[str], ignore_card: bool) -> None:
    given, known = meant_together(channels), meant_together(spec.channels)
    order = order_of(known, given) if len(given) == len(known) else None
    straight = order == tuple(range(len(given)))
    alike = straight and all(_is_known_as(g, k) for g, k in zip(given, known, strict=True))
    if len(given) == len(known) and (alike or ignore_card or spec.role != "task"):
        if spec.role == "task" and not alike:
            override(
                f"expert {spec.name!r}: {', '.join(channels)} in the place of {', '.join(spec.channels)}{AS_ASKED}"
            )
        for said in filter(None, map(remark, known, given)) if spec.role == "task" else ():
            logger.warning("expert %r: %s", spec.name, said)
        return
    named = json.dumps({str(i): c for i, c in enumerate(spec.channels)}, ensure_ascii=False)
    place = f'"channel_names": {named} in the dataset.json of {spec.task!r}'
    if len(given) != len(known):
        hint = "leave this expert out, or give it data with the channels that it reads"
    elif order is not None and not straight:
        hint = f"list the channels, and each case's files, in the expert's order: {place}"
    else:
        hint = (f"if these are the same, give the data the expert's names: python -m tools data convert ... "
                f'{shown_option("channels", ",".join(spec.channels))}, or {place}; if not, leave this expert out, or '
                f"add {OVERRIDE}")  # fmt: skip
    raise ExpertError(
        "the expert does not read the channels of this data",
        where=f"expert {spec.name!r}",
        got=", ".join(spec.channels),
        expected=", ".join(channels),
        hint=hint,
    )


def _is_known_as(given: str, known: str) -> bool:
    """Whether two names can be one thing and both tell something: an expert of ``MR`` reads ``T1``."""
    found = same(given, known)
    return found is True or (found is None and bool(meanings(given) and meanings(known)))


def _own_card(spec: ExpertSpec) -> Contract:
    """What the card beside the expert says, of one that a run of this collection left; nothing of others."""
    place, file = Path(spec.path), None
    if spec.kind == "bundle":
        file = place / (spec.checkpoint or WEIGHTS)
    elif spec.kind == "nnunet":  # <run>/nnunet/<data set>/<trainer>
        file = next((p.parent / "model.pt" for p in place.parents if p.name == "nnunet"), None)
    try:
        card = None if file is None or not file.is_file() else read_card(file)
    except AmalgamationError:  # whoever opens the expert says what is wrong with it
        card = None
    return Contract.of_card(card, file)


def _of_card(spec: ExpertSpec, card: Contract, channels: Sequence[str] | None, modality: str) -> list[str]:
    """What the card that its training left says of data: notes, and what it was never taught on them."""
    try:
        found = card.fit(channels, modality)
    except DataError:
        return []
    taught = card.taught_on(found.modalities)
    left = [n for n in spec.labels.names if taught is not None and n not in taught]
    names = " or ".join(found.modalities)
    return [*found.notes, *([f"its card says that it was never taught on {names}: {', '.join(left)}"] if left else [])]


def _other_modality(spec: ExpertSpec, card: Contract, channels: Sequence[str] | None, modality: str) -> str:
    """What the expert was taught on, where that is surely none of what the data call their modality."""
    try:
        card.fit(channels, modality)
    except DataError:
        return card.told()
    told = [{m.kind for m in meanings(c)} for c in meant_together(spec.channels)]
    if not all(told) or any("photo" in kinds for kinds in told):  # pictures in colours may show anything
        return ""
    kinds = {m.kind for m in meanings(modality)}
    single = len(told) == 1 and same(spec.channels[0], modality) is False
    return ", ".join(spec.channels) if single or (kinds and not kinds & set[str]().union(*told)) else ""


def _check_meant(spec: ExpertSpec, card: Contract, dataset: Dataset | None, ignore_card: bool) -> None:
    """Refuse names that nobody gave and that another data set has too; warn of names of anything."""
    known = {str(d.get("name")) for d in card.data}
    nameless = [n for n in spec.labels.names if is_nameless(n)]
    doubtful = [*nameless, *filter(is_general, spec.labels.names)]
    if not doubtful:
        return
    own = spec.task in known if dataset is None else is_known_data(dataset, card.data)
    if own:
        return
    if nameless and known and own is False and ignore_card:
        names = f"{', '.join(nameless)} of {', '.join(sorted(known))}"
        override(f"expert {spec.name!r}: {names} taken for those of {spec.task}{AS_ASKED}")
    elif nameless and known and own is False:
        raise ExpertError("the expert learned from another data set, and nobody gave its structures names",
                          where=f"expert {spec.name!r}", got=f"{', '.join(nameless)} of {', '.join(sorted(known))}",
                          expected=f"structures of {spec.task}",
                          hint=f"name them in both, leave this expert out, or add {OVERRIDE}")  # fmt: skip
    whose = f" ({', '.join(sorted(known))})" if known else ""
    said = "expert %r: %s: nobody says whether these are the same in %s as in the data that it learned from%s"
    logger.warning(said, spec.name, ", ".join(doubtful), spec.task, whose)


def _check_labels(spec: ExpertSpec, labels: LabelSpace) -> None:
    unknown = [n for n in spec.labels.names if n not in labels.names]
    if unknown:
        raise ExpertError(
            "the expert predicts structures that the student does not know",
            where=f"expert {spec.name!r}",
            got=", ".join(unknown),
            expected=", ".join(labels.names),
            hint=_names_hint(spec, unknown, [n for n in labels.names if n not in spec.labels.names]),
        )
    if spec.labels.exclusive != labels.exclusive:
        kinds = {True: "exclude each other", False: "overlap"}
        raise ExpertError(
            "the expert's structures are not of the data's kind",
            where=f"expert {spec.name!r}",
            got=f"structures that {kinds[spec.labels.exclusive]}",
            expected=f"structures that {kinds[labels.exclusive]}",
            hint=_EXTERNAL,
        )


def _names_hint(spec: ExpertSpec, unknown: Sequence[str], free: list[str]) -> str:
    """What to rename in the data, for those that have a near name there that the expert does not use otherwise."""
    renamed: dict[str, str] = {}
    for name in unknown:
        folded = {n.casefold(): n for n in free if n not in renamed}
        close = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.8)
        near = [n for n in close if sides(folded[n]) == sides(name)]
        if near:
            renamed[folded[near[0]]] = name
    if not renamed:
        return _EXTERNAL
    old, new = next(iter(renamed.items()))
    entry = json.dumps({spec.task: {"labels": renamed}}, ensure_ascii=False)
    return (
        f"did you mean the data's {old!r}? Name it as the expert does: python -m tools data convert ... "
        f"{shown_option('structures', f'{new}=<value>')}, "
        f'or "tasks": {entry} in collection.json, in every task that has it'
    )
