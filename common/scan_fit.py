"""How a scan that was read fits a trained model: what the user, the data and DICOM say of it, and its voxels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .command_words import shown_option
from .contract import AS_ASKED, OVERRIDE, Contract
from .dicom_tags import doubts, doubts_by_channel, of_dicom
from .errors import DataError
from .intensity_range import Range
from .modalities import meanings, same

__all__ = ["COMPARED", "OVERRIDDEN", "Said", "Verdict", "as_recorded", "check_given", "judged", "mark_of"]

COMPARED = "compared"  # an item's entry: with which card it was compared already, as of mark_of
OVERRIDDEN = "overridden"  # an item's entry: what its result's record says, as of as_recorded


class Said(NamedTuple):
    """What is said of a scan.

    Args:
        given: its modality, by who gives the command; it comes before what the data say.
        modality: by the data; empty when they do not.
        channels: by the data, in the order of its files; empty when they do not.
        tags: DICOM's Modality by channel; empty of what is no DICOM.
        source: what it is that the data say, for messages.
    """

    given: str = ""
    modality: str = ""
    channels: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    source: object = None


class Verdict(NamedTuple):
    """How a scan fits.

    Args:
        names: the model's modalities that it can be; empty when nobody knows.
        sure: whether somebody says which, or its intensities tell.
        notes: what a user should be told.
        odd: why its intensities are none that the model learned from; empty when they are.
    """

    names: tuple[str, ...]
    sure: bool
    notes: tuple[str, ...]
    odd: str

    def modality(self, contract: Contract) -> str:
        """The model's name of what the scan is; empty where it can be several things.

        Args:
            contract: that it was compared with.
        """
        return self.names[0] if len(self.names) == 1 and (self.sure or len(contract.modalities) == 1) else ""


def judged(
    contract: Contract, said: Said, ranges: Sequence[Range] = (), *, where: object, ignore: bool = False
) -> Verdict:
    """Compare a scan with what a model was taught on.

    Args:
        contract: what the model's card says.
        said: of the scan.
        ranges: of its channels; empty when nobody looked.
        where: the scan, for messages.
        ignore: go on with what does not fit, and say so.

    Raises:
        DataError: for a scan of another modality or other channels, and where who speaks of it contradicts another.
    """
    modality, tag = said.given or said.modality, said.tags[0] if len(said.tags) == 1 else ""
    called = [n for n in (modality, *said.channels[: len(said.channels) == 1]) if n]
    kind = of_dicom(tag, called)
    other = [n for n in called if kind and same(kind, n) is False]
    if other and not ignore:
        by = shown_option("modality", said.given) if said.given else f"{other[0]} ({said.source})"
        hint = f"choose another, or add {OVERRIDE}" if said.given else f"correct {said.source}, or add {OVERRIDE}"
        raise DataError("DICOM says that the scan is something else", where=where, got=tag, expected=by, hint=hint)
    own = (said.modality, *said.channels[: len(said.channels) == 1])
    told = check_given(said.given, own, where=where, ignore=ignore)
    fit = contract.fit(said.channels or None, modality, tag=tag, where=where, ignore=ignore)
    told += [*fit.notes, *(f"{where}: {line}" for line in doubts(tag, (*called, *fit.modalities)))]
    if len(said.tags) > 1:
        order = fit.order if len(fit.order) == len(said.tags) else tuple(range(len(said.tags)))
        if not ignore:
            contract.check_tags(said.tags, fit._replace(order=order), where=where)
        named = zip([said.tags[place] for place in order], contract.channels, strict=False)
        told += [f"{where}: {line}" for line in doubts_by_channel(named)]
    names, sure = fit.modalities, bool(modality or kind or any(map(meanings, said.channels)))
    if len(names) > 1 and not sure:
        names, more = _by_intensities(contract, names, ranges)
        told += [f"{where}: {line}" for line in more]
    sure = sure or len(names) < len(fit.modalities)
    return Verdict(names, sure, tuple(told), contract.odd(ranges, names) or "")


def check_given(given: str, own: Iterable[str | None], *, where: object, ignore: bool = False) -> list[str]:
    """Refuse a modality that a user gives to data that say to be something else.

    Args:
        given: by the user; empty when nothing is.
        own: what the data call themselves; empty names tell nothing.
        where: data set or scan, for messages.
        ignore: go on.

    Returns:
        what to tell where it is gone on with.

    Raises:
        DataError: when both are surely not the same.
    """
    other = list(dict.fromkeys(n for n in own if given and n and same(given, n) is False))
    if not other:
        return []
    if ignore:
        return [f"{where or 'the data'}: {', '.join(other)} is read as {given}{AS_ASKED}"]
    option = shown_option("modality", given)
    hint = f"leave {option} out: it says what all scans are, and selects none; or add {OVERRIDE}"
    raise DataError("the data say that they are something else", where=where, got=option, expected=", ".join(other),
                    hint=hint)  # fmt: skip


def mark_of(contract: Contract) -> str:
    """A short name of what a card says: an item that bears it was compared with that card.

    Args:
        contract: what the card says.
    """
    text = repr((contract.channels, sorted(contract.modalities.items()), sorted(contract.taught.items())))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def as_recorded(contract: Contract, notes: Iterable[str]) -> str:
    """What the record beside a result says where the card was not to be obeyed, as JSON.

    Args:
        contract: what the card says.
        notes: what was told of the scan.
    """
    return json.dumps({"ignore_card": True, "expected": contract.told(), "notes": list(notes)}, indent=2)


def _by_intensities(
    contract: Contract, names: Sequence[str], ranges: Sequence[Range]
) -> tuple[tuple[str, ...], list[str]]:
    """What a scan of which nobody says what it is can be by its intensities, and what to say of it."""
    kept = tuple(n for n in names if contract.odd(ranges, [n]) is None) or tuple(names)
    told = contract.unsettled(kept)
    if len(kept) < len(names):
        left = ", ".join(n for n in names if n not in kept)
        told.append(f"taken for {' or '.join(kept)}: its intensities are none of {left}; nobody says what it is")
    return kept, told
