"""A model's card as a contract: what it was taught on, and whether other data are that."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from .card import ModelCard
from .channel_doubt import remarks, taught_elsewhere
from .contract_form import checked_contract, checked_names
from .contract_names import is_surely_other, label_of, named, names_of, order_among, told_in_words
from .dicom_tags import leaves_open, of_dicom
from .errors import AmalgamationError, DataError
from .intensity_range import Range, odd_ct_for, odd_for
from .modalities import has_unit, is_ct, meanings, same
from .name_words import meant_together
from .synonyms import says_same
from .weights import read_card

__all__ = ["AS_ASKED", "OVERRIDE", "Contract", "Fit", "contract_of"]

logger = logging.getLogger(__name__)

OVERRIDE = "--ignore_card True"
# What every command takes to go on with data that are not what the card says; it is recorded in the result.
AS_ASKED = ", as asked"  # how a sentence ends that says what was gone on with
_KEY = "contract"


class Fit(NamedTuple):
    """How data fit a model.

    Args:
        order: which of the data's channels the model reads, in its order.
        modalities: the model's names of what the data can be; empty when nobody knows.
        notes: what a user should be told.
    """

    order: tuple[int, ...]
    modalities: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contract:
    """What a card says of the data that a model learned from.

    Args:
        channels: the card's channel names, in order; of several data sets joined by `` | ``.
        modalities: by name: ``kind``, ``channels``, ``dim``, ``scans``, ``intensities`` (one entry per channel),
            ``spacing``, ``orientation`` and, of several kinds of channels, ``taught``; earlier cards have names alone.
        taught: the structures that were annotated, by modality; empty when the card does not say.
        data: the data sets: name, licence, description, number and hashes of their cases by split.
        origin: the weights file, for messages.
    """

    channels: tuple[str, ...] = ()
    modalities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    taught: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    data: tuple[Mapping[str, Any], ...] = ()
    origin: str = "the model"

    @classmethod
    def of_card(cls, card: ModelCard | None, origin: object = "the model") -> Contract:
        """Read a card of any version; what it does not hold is not known.

        Raises:
            WeightError: when what it holds has another form.
        """
        if card is None:
            return cls(origin=str(origin))
        said = card.extra.get(_KEY)
        if said is None or (isinstance(said, Mapping) and said.get("modalities") is None):
            settings = card.extra.get("settings")
            names = _earlier(settings, origin) if isinstance(settings, Mapping) else []
            return cls(card.channels, {n: {} for n in names}, origin=str(origin))
        return cls(card.channels, *checked_contract(said, origin), origin=str(origin))

    @property
    def complete(self) -> bool:
        """Whether the card is of a version that holds a contract."""
        return bool(self.modalities) and all("channels" in m for m in self.modalities.values())

    def fit(
        self,
        channels: Sequence[str] | None,
        modality: str = "",
        *,
        tag: str = "",
        where: object = None,
        ignore: bool = False,
    ) -> Fit:
        """Compare data with what the model was taught on, channel by channel and by name.

        Channels in another order are taken in the model's; names that tell nothing are not compared.

        Args:
            channels: the data's names, in order; None when nobody knows them.
            modality: the data's name of it; empty when nobody knows it.
            tag: DICOM's Modality, where the data are DICOM and no name is known.
            where: data set or case, for messages.
            ignore: go on with data that do not fit, as long as their number of channels does.

        Raises:
            DataError: for other channels or another modality.
        """
        candidates = self._candidates()
        tag = "" if modality else tag
        modality = modality or of_dicom(tag, names_of(candidates)) or tag
        same_count = [c for c in candidates if channels is None or len(c[1]) == len(channels)]
        if not any(c[1] for c in candidates):
            return Fit(tuple(range(len(channels or ()))))
        if channels is not None and not same_count:
            raise self._refusal(channels, modality, where, counted=True)
        orders = {name: order_among(own, channels) for name, own in same_count}
        own_of = dict(candidates)
        fitting = {n: o for n, o in orders.items() if o is not None and not is_surely_other(
            n, own_of[n], None if channels is None else [channels[i] for i in o], modality)}  # fmt: skip
        sure = named(fitting, label_of(channels, modality), own_of) if fitting else []
        if not fitting:
            if not ignore:
                raise self._refusal(channels, modality, where)
            given = told_in_words(channels, modality)
            told = f"{where or 'the data'}: {given} in the place of {self.told()}{AS_ASKED}"
            return Fit(tuple(range(len(channels or self.channels))), (), (told,))
        order = fitting[sure[0]] or ()
        notes = []
        if channels is not None and order != tuple(range(len(channels))):
            notes.append(f"{where or 'the data'}: channels {', '.join(channels)} are read in the model's order, "
                         + ", ".join(channels[i] for i in order))  # fmt: skip
        said = remarks(sure[0], own_of[sure[0]], None if channels is None else [channels[i] for i in order], modality)
        said += self._taught_elsewhere(sure[0], None if channels is None else [channels[i] for i in order], modality)
        said += [leaves_open(tag)] if tag and not said and leaves_open(tag) else []
        if channels is not None or meanings(modality):
            said += self.unsettled(sure)
        notes += [f"{where or 'the data'}: {line}" for line in dict.fromkeys(said)]
        return Fit(order, tuple(sure) if self.modalities else (), tuple(notes))

    def _taught_elsewhere(self, name: str, channels: Sequence[str] | None, modality: str) -> list[str]:
        entry = self.modalities.get(name, {})
        if not self.taught or (channels is None and not meanings(modality)):
            return []
        told = taught_elsewhere(tuple(entry.get("channels", ())), tuple(entry.get("taught", ())), channels, modality)
        return [told] if told else []

    def check_dim(self, dim: int, *, where: object = None) -> None:
        """Refuse pictures for a model of volumes, and volumes for one of pictures.

        Args:
            dim: of the data, 2 or 3.
            where: data set or scan, for messages.

        Raises:
            DataError: when the card says that the model learned from the other.
        """
        known: set[Any] = {m.get("dim") for m in self.modalities.values()}
        if known and not known & {None, dim}:
            kinds = {2: "pictures", 3: "volumes"}
            raise DataError(f"the model learned from {' and '.join(kinds[d] for d in known)}", where=where,
                            got=kinds.get(dim, dim), expected=f"{self.told()} ({self.origin})",
                            hint="python -m tools bundle list shows what there is")  # fmt: skip

    def check_tags(self, tags: Sequence[str], fit: Fit, *, where: object = None) -> None:
        """Compare DICOM's tag of each channel with the channel that the model reads there.

        Args:
            tags: ``Modality`` by channel of the data; empty where a channel is no DICOM.
            fit: what :meth:`fit` found for the data.
            where: data set and case, for messages.

        Raises:
            DataError: for a channel that DICOM calls something else.
        """
        known = [own for name, own in self._candidates() if name in (fit.modalities or (name,))]
        for number, place in enumerate(fit.order):
            names = [meant_together(own)[number] for own in known if number < len(own)]
            kind = of_dicom(tags[place], names) if place < len(tags) else ""
            if kind and names and all(same(kind, name) is False for name in names):
                raise DataError("DICOM says that a channel is something else", where=where,
                                got=f"channel {place + 1}: {tags[place]}",
                                expected=f"{' or '.join(dict.fromkeys(names))} ({self.origin})",
                                hint=f"put the files in the order of the channels; or add {OVERRIDE}")  # fmt: skip

    def taught_on(self, modalities: Iterable[str]) -> frozenset[str] | None:
        """The structures that were annotated on any of some modalities; None when nobody knows.

        Args:
            modalities: names as the card has them, or others of the same meaning.
        """
        names = list(modalities)
        if not self.taught or not names:
            return None
        known = dict.fromkeys([*(self.modalities if self.complete else ()), *self.taught])
        found: set[str] = set()
        for name in names:
            own = named(list(known), name, {}, certain=True) or [n for n in known if same(n, name) is None]
            if not own:
                return None
            own += [n for n in known if n not in own and any(says_same(n, o) for o in own)]
            found |= {s for n in own for s in self.taught.get(n, ())}
        return frozenset(found)

    def unsettled(self, modalities: Sequence[str]) -> list[str]:
        """What to say where data can be of several modalities on which different structures were taught.

        Args:
            modalities: the model's names of what the data can be.
        """
        taught = {n: self.taught_on([n]) or frozenset() for n in modalities} if self.taught else {}
        if len(set(taught.values())) < len((0, 1)):
            return []
        part = frozenset[str]().union(*taught.values()) - frozenset.intersection(*taught.values())
        owners: dict[str, list[str]] = {}
        for name in sorted(part):
            owners.setdefault(" and ".join(n for n in modalities if name in taught[n]), []).append(name)
        told = "; ".join(f"on {own} only: {', '.join(names)}" for own, names in owners.items())
        return [f"it can be {' or '.join(modalities)}, and nobody says which; taught {told}"]

    def odd(self, ranges: Sequence[Range], modalities: Sequence[str] = ()) -> str | None:
        """Why a scan's intensities are none that the model learned from; None when they are, or nobody knows.

        Args:
            ranges: of each channel, in the model's order.
            modalities: the model's names of what the scan can be; all when empty.
        """
        reasons = []
        for name in modalities or tuple(self.modalities) or ("",):
            entry = self.modalities.get(name, {})
            own = tuple(map(str, entry.get("channels") or self.channels))
            stored = entry.get("intensities") or ()
            if len(own) != len(ranges):
                return None
            if len(stored) != len(own):  # the card does not say; a CT is in HU all the same
                stored = [None] * len(own)
            named = meant_together(own)
            found = [_odd(r, s, c, name) for r, s, c in zip(ranges, stored, named, strict=True)]
            if not any(found):
                return None
            reasons.append(f"{name or ', '.join(own)}: " + "; ".join(f for f in found if f))
        return " / ".join(dict.fromkeys(reasons)) or None

    def told(self) -> str:
        """What the model was taught on, in words."""
        if self.complete:
            known = dict.fromkeys(told_in_words(tuple(m["channels"]), n) for n, m in self.modalities.items())
            return " or ".join(known)
        return told_in_words(self.channels, " or ".join(self.modalities))

    def _candidates(self) -> list[tuple[str, tuple[str, ...]]]:
        if self.complete:
            return [(n, tuple(map(str, m["channels"]))) for n, m in self.modalities.items()]
        return [(n, self.channels) for n in self.modalities] or [(" + ".join(self.channels), self.channels)]

    def _refusal(
        self, channels: Sequence[str] | None, modality: str, where: object, *, counted: bool = False
    ) -> DataError:
        wanted = self._candidates()[0][1]
        given = meant_together(channels or ())
        missing = [c for c, m in zip(wanted, meant_together(wanted), strict=True) if not any(same(m, g) for g in given)]
        if counted and len(channels or ()) < len(wanted):
            problem = f"missing channel {', '.join(missing or wanted[len(channels or ()) :])}"
        else:
            problem = "too many channels" if counted else "the data are not what the model was trained on"
        renamed = 'if it is the same thing, name it so in dataset.json ("channel_names")'
        hint = "give one image per channel that the model reads" if counted else f"{renamed}; or add {OVERRIDE}"
        return DataError(problem, where=where, got=told_in_words(channels, modality),
                         expected=f"{self.told()} ({self.origin})", hint=hint)  # fmt: skip


def contract_of(path: str | Path) -> Contract:
    """The contract of a weights file; of one that is not there, or says nothing, nothing is known.

    Raises:
        WeightError: when its card is damaged.
    """
    file = Path(path)
    try:
        state = file.stat()
    except (OSError, ValueError):  # ValueError: a character that no name has
        return Contract(origin=str(file))
    return _read(file, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=8)
def _read(file: Path, _size: int, _time: int) -> Contract:
    """Each file is read, and what it lacks told, once in a process."""
    try:
        card = read_card(file)
    except AmalgamationError:  # whoever opens the weights says what is wrong with them
        return Contract(origin=str(file))
    found = Contract.of_card(card, file)
    if not found.complete:
        logger.warning("%s: written before cards held what a model was trained on: only names are compared", file)
    return found


def _earlier(settings: Mapping[str, Any], origin: object) -> list[str]:
    """Names of modalities in the settings of earlier cards."""
    key = "modalities" if settings.get("modalities") else "intensities"
    return checked_names(settings.get(key) or (), f"settings.{key}", origin)


def _odd(found: Range, stored: Any, channel: str, modality: str) -> str | None:
    learned = stored if isinstance(stored, Mapping) else {}
    ct = is_ct(channel) or is_ct(modality)
    unit = has_unit(channel) or (not meanings(channel) and has_unit(modality))
    return (odd_ct_for(found, learned) if ct else None) or odd_for(found, learned, ct=ct, unit=unit)
