"""Whether an expert fits the data that it is asked about: their image channels and their structures."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Sequence

from ..channel_order import order_of
from ..command_words import shown_option
from ..contract import OVERRIDE, doubt
from ..errors import ExpertError
from ..labels import LabelSpace
from ..modalities import meanings, same
from .spec import ExpertSpec

__all__ = ["check_expert", "check_reads_any"]

logger = logging.getLogger(__name__)

_EXTERNAL = "describe it as a task-agnostic expert: python -m tools experts describe ... --external True"


def check_expert(
    spec: ExpertSpec, channels: Sequence[str] | None, labels: LabelSpace | None, *, ignore_card: bool = False
) -> None:
    """Refuse an expert that does not read the data's channels, or predicts structures that the data do not have.

    Channels are compared by name and order: a synonym (``CTA`` for ``CT``, ``T1`` for ``MR``) is no other name. Of a
    task-agnostic expert only their number is; structures are compared by name, those of task experts only.

    Args:
        spec: the expert's description.
        channels: names of the data's image channels, in order; None is not compared.
        labels: the structures that the student learns, those of all tasks; None is not compared.
        ignore_card: compare the channels' number only.

    Raises:
        ExpertError: for the first thing that does not fit, with what to rename where a name is all that differs.
    """
    if channels is not None:
        _check_channels(spec, channels, ignore_card)
    if labels is not None and spec.role == "task":
        _check_labels(spec, labels)


def check_reads_any(spec: ExpertSpec, data: Sequence[Sequence[str]]) -> None:
    """Refuse a task-agnostic expert whose channels are surely none of any task's, by name and order.

    Args:
        spec: the expert's description.
        data: the channels of each task.

    Raises:
        ExpertError: when no task has what it reads.
    """
    orders = [order_of(spec.channels, c) if len(c) == len(spec.channels) else None for c in data]
    if any(order == tuple(range(len(spec.channels))) for order in orders):
        return
    own, given = ", ".join(spec.channels), "; ".join(", ".join(c) for c in data)
    swapped = any(order is not None for order in orders)
    hint = f"list the channels, and each case's files, in the expert's order: {own}" if swapped else (
        "leave this expert out")  # fmt: skip
    raise ExpertError("the expert reads the tasks' channels in another order" if swapped else
                      "the expert reads none of the tasks' modalities", where=f"expert {spec.name!r}",
                      got=own, expected=given, hint=f"{hint}, or add {OVERRIDE}")  # fmt: skip


def _check_channels(spec: ExpertSpec, channels: Sequence[str], ignore_card: bool) -> None:
    given, known = channels, spec.channels
    order = order_of(known, given) if len(given) == len(known) else None
    straight = order == tuple(range(len(given)))
    alike = straight and all(_is_known_as(g, k) for g, k in zip(given, known, strict=True))
    if len(given) == len(known) and (alike or ignore_card or spec.role != "task"):
        for said in filter(None, map(doubt, known, given)) if spec.role == "task" else ():
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
        near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.8)  # left and right are no near names
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
