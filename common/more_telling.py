"""Two descriptions of the same channels: contradictions are refused, of two that fit the more telling one is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .channel_order import contradict, order_of, other_phase
from .errors import DataError
from .literals import check_channel, odd_in
from .modalities import meanings, same
from .name_words import meant_together, plain
from .synonyms import KINDS, said, says_same

__all__ = ["Agreed", "agreed", "more_telling"]


class Agreed(NamedTuple):
    """What two descriptions say together.

    Args:
        names: of the channels, in order.
        notes: what a user should know.
    """

    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def agreed(told: Sequence[str], written: Sequence[str], file: Path, *, where: object, typed: str) -> Agreed:
    """The channels by what a user tells and a file says of them.

    Args:
        told: the names that the user gives, in order; none where nobody gives any.
        written: the names in the file, in order.
        file: that says them.
        where: the scans, for messages.
        typed: how the user would say the file's names, such as ``--channels FLAIR,T1``.

    Raises:
        DataError: when both cannot be true, or name the channels in two orders; for what cannot be a name.
    """
    told = tuple(check_channel(name, where=where, error=DataError) for name in told)
    written = tuple(check_channel(name, where=file, error=DataError) for name in written)
    if not told:
        return Agreed(written)
    hint = f"say what they are: {typed}; or correct {file}"
    problem = DataError("the data set says to be of something else", where=where, got=f"{', '.join(written)} ({file})",
                        expected=", ".join(told), hint=hint)  # fmt: skip
    if len(told) != len(written):
        one, others = sorted((told, written), key=len)
        if len(one) > 1 or contradict(one, others) or all(same(one[0], o) is False for o in others):
            raise problem
        return Agreed(written if one == told else told)  # "MR" of T1 and FLAIR
    straight = tuple(range(len(told)))
    if order_of(told, written) not in (straight, None):
        raise DataError("the data set names the channels in another order", where=where, expected=", ".join(told),
                        got=f"{', '.join(written)} ({file})", hint=hint)  # fmt: skip
    names, notes = [], []
    mine, theirs = meant_together(told), meant_together(written)
    for own, other, name, there in zip(told, written, mine, theirs, strict=True):
        kept = more_telling(name, there)
        if kept is None:
            raise problem
        names.append(other if kept == there else own if kept == name else kept)
        if names[-1] != own and meanings(name):
            notes.append(f"{file} says {other}, which tells more than {own}")
        elif not meanings(name) and not meanings(there) and plain(name) != plain(there):
            notes.append(f"{file} says {other}, and neither that nor {own} tells what it is: compare them yourself")
        elif meanings(name) and meanings(there) and not says_same(name, there):
            notes.append(f"{file} says {other}, which tells less: nobody but you says {own}")
    return Agreed(tuple(names), tuple(notes))


def more_telling(told: str, written: str) -> str | None:
    """Of two names of one thing the one that says all that the other says, or one of both; None where they contradict.

    Args:
        told: a name.
        written: another.
    """
    if plain(told) == plain(written) and says_same(told, written):
        return told
    if not meanings(told) or not meanings(written):
        return told if meanings(told) or not meanings(written) else written
    if same(told, written) is False:
        return None
    count = {name: len(meanings(name)) for name in (told, written)}
    if min(count.values()) == 1 < max(count.values()):  # "CT or MR" of CT
        return min(count, key=lambda n: count[n])
    mine, theirs = _words(told), _words(written)
    if mine <= theirs or theirs <= mine:
        return told if theirs <= mine else written
    if other_phase(told, written):
        return None
    new = [w for w in written.split() if plain(w) not in {plain(t) for t in told.split()}]
    both = " ".join([told, *new])
    if any(same(both, n) is False for n in (told, written)):
        return None
    return told if odd_in(both) else both


def _words(name: str) -> frozenset[str]:
    """The words of a name in one spelling, without those for its kind."""
    return frozenset[str]().union(*said(name)) - KINDS
