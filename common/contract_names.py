"""Which of a model's modalities a name means, and whether data are surely none of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .channel_order import closest, order_of
from .modalities import meanings, same
from .name_words import meant_together, plain
from .synonyms import says_same

__all__ = ["is_surely_other", "label_of", "named", "names_of", "order_among", "told_in_words"]


def names_of(candidates: Iterable[tuple[str, tuple[str, ...]]]) -> list[str]:
    """The names of modalities and of their channels.

    Args:
        candidates: each modality with its channels.
    """
    return [name for modality, channels in candidates for name in (modality, *meant_together(channels))]


def order_among(own: Sequence[str], given: Sequence[str] | None) -> tuple[int, ...] | None:
    """For each of the model's channels its place among the data's; None when they are others.

    Args:
        own: the model's.
        given: the data's, as many; None when nobody knows them.
    """
    return tuple(range(len(own))) if given is None else order_of(own, given)


def is_surely_other(name: str, own: Sequence[str], given: Sequence[str] | None, modality: str) -> bool:
    """Whether data are surely none of a modality: by its name, and where that says nothing by what its channels say.

    Args:
        name: the model's modality.
        own: its channels, those of several tasks joined by `` | ``.
        given: the data's channels in the model's order; None when nobody knows them.
        modality: what the data call themselves; empty when nobody knows it.
    """
    if modality and same(name, modality) is False:
        return True
    mine, read = meant_together(own), meant_together(given or ())
    if any(map(meanings, read)):
        return any(not meanings(c) and same(name, r) is False for c, r in zip(mine, read, strict=True))
    parts = [part for c in mine for part in (c.split(" | ") if meanings(c) else ())]
    return (
        bool(modality and parts)
        and not says_same(name, modality)
        and all(same(part, modality) is False for part in parts)
    )


def label_of(channels: Sequence[str] | None, modality: str) -> str:
    """What tells best what data are: their modality's name, or that of their only channel.

    Args:
        channels: the data's; None when nobody knows them.
        modality: the data's name of it.
    """
    alone = channels[0] if channels is not None and len(channels) == 1 else ""
    return alone if meanings(alone) and not meanings(modality) else modality


def named(
    names: Iterable[str], label: str, channels: Mapping[str, tuple[str, ...]], *, certain: bool = False
) -> list[str]:
    """Those of a model's modalities that a name means; all that fit where nothing tells, none when ``certain``.

    Args:
        names: of the modalities.
        label: what the data are called.
        channels: by modality; the only channel of one whose own name tells nothing speaks for it.
        certain: give no name that the label does not tell.
    """
    known = list(names)
    alone = {n: own[0] if len(own := channels.get(n, ())) == 1 and not meanings(n) else n for n in known}
    exact = [n for n in known if label and any(_equal(label, spelt) for spelt in (n, alone[n]))]
    if exact:
        return exact
    sure = [n for n in known if label and _surely(alone[n], label)]
    near = closest(label, [alone[n] for n in sure]) if sure else []
    rest = [n for n in known if label and same(n, label)] if certain else known
    return [n for n in sure if alone[n] in near] or rest


def told_in_words(channels: Sequence[str] | None, modality: str) -> str:
    """Channels and a modality, as a message says them.

    Args:
        channels: None when nobody knows them.
        modality: empty when nobody knows it.
    """
    found = "" if channels is None else f"channel{'s' * (len(channels) > 1)} {', '.join(channels)}"
    if not modality or (channels is not None and plain(modality) == plain("".join(channels))):
        return found or "nothing known"
    return f"{found} of {modality}" if found else modality


def _equal(one: str, other: str) -> bool:
    """Whether two names are spelt alike and say the same: ``T1 (+C)`` is not ``T1 (-C)``."""
    return plain(one) == plain(other) and says_same(one, other)


def _surely(one: str, other: str) -> bool:
    """Whether two names mean the same and neither may mean something else: ``PET-CT`` is no sure CT."""
    return bool(same(one, other)) and len(meanings(one)) <= 1 and len(meanings(other)) <= 1
