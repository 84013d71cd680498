"""What a channel or modality is by its name: canonical kinds, synonyms, and whether two names can be one thing."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from .name_words import FILLERS, PLAIN, is_contrast, meant_together, plain, told_of, words
from .vocabulary import (
    APART,
    AXES,
    CERTAIN,
    COLOURS,
    CT_WORD,
    GRADIENT,
    IN_PHASE,
    KIND_OF,
    LOW_B,
    MR_WORDS,
    ORDERS,
    OUT_OF_PHASE,
    PART_OF,
    PERFUSION,
    PHOTOS,
    SEQUENCES,
    TENSOR,
    USUAL_CT,
    VARIANTS,
    WEIGHTINGS,
    is_sequence,
    split_words,
)

__all__ = ["Modality", "alternatives", "details", "has_unit", "images", "is_cone_beam", "is_ct", "kind_of", "meanings",
           "quantities", "same", "tracers"]  # fmt: skip

_CONE_BEAM = {"cbct", "kvcbct", "dvt", "dynact", "xperct", "conebeam"}  # DVT: the German name


_ALTERNATIVES = re.compile(r"\s+or\s+|\||,|;", re.IGNORECASE)
_PARTS = re.compile(r"\s\+\s(?!\d{2,}\b)")  # several channels in one name; "HU + 1024" is a sum


_IN_UNITS = {"ADC", "eADC", "FA", "MD", "AD", "RD", "T1 map", "T2 map", "Ktrans", "kep", *PERFUSION,
             "iodine", "dose", "Zeff", "electron density"}  # fmt: skip
_TELLING = {"delayed", "lowb", "highb", "ivus", "tee", "tte", "ceus", "doppler", "trus", "fluoroscopy"}


class Modality(NamedTuple):
    """What a name means.

    Args:
        kind: ``CT``, ``MR``, ``PT``, ``NM``, ``US``, ``XR``, ``OCT`` or ``photo``; empty when the name does not tell.
        sequence: of MR, such as ``T1``, ``T1c``, ``FLAIR``; of photographs what they show, or the colour; of PET the
            tracer; of CT, OCT and ultrasound what is not the usual one.
    """

    kind: str
    sequence: str = ""


def alternatives(name: str) -> list[str]:
    """Each of what a name says that an image can be: of ``CT or MR`` both.

    Args:
        name: of a channel or a modality.
    """
    name = re.sub(r"\+\s*(?:c|ce|km|gd|gado?\w*|contrast\w*)\b", " plusc", name, flags=re.IGNORECASE)
    return _ALTERNATIVES.split(name)


def images(name: str) -> tuple[str, ...]:
    """The images that a name joins by `` + ``, as they are meant beside one another.

    Args:
        name: of a modality, or one of its alternatives.
    """
    return meant_together(_PARTS.split(name))


@cache
def meanings(name: str) -> frozenset[Modality]:
    """All that a name can mean; ``CT or MR`` and ``CT | T2 MR`` mean two things, an unknown name none.

    Args:
        name: of a channel or a modality, in any spelling: ``CTA``, ``T2w``, ``ce-T1``.
    """
    found: set[Modality] = set()
    for part in alternatives(name):
        joined = [_meanings_of(p) for p in images(part)]
        if len(joined) > 1:  # several channels in one name
            kinds = {m.kind for one in joined for m in one}
            joined = [{Modality(k) for k in kinds}] if all(joined) and len(kinds) == 1 else [set()]
        if not joined[0]:
            return frozenset()
        found |= joined[0]
    return frozenset(found)


def kind_of(name: str) -> str:
    """The one kind that a name means, empty when it tells none or several."""
    kinds = {m.kind for m in meanings(name)}
    return next(iter(kinds)) if len(kinds) == 1 else ""


def is_ct(name: str) -> bool:
    """Whether a name means CT, with intensities in HU, and nothing else: no map of iodine or perfusion."""
    return meanings(name) == {Modality("CT")}


@cache
def details(name: str) -> frozenset[str]:
    """What a name says beside its kind and sequence: phase, with or without contrast, b-value, anything else.

    Args:
        name: of a channel: ``CT arterial`` and ``ct-art`` say ``arterial``, ``NCCT`` says ``pre``.
    """
    found: set[str] = set()
    for word in split_words(name):
        if re.fullmatch(r"b\d+", word):
            found.add(word)
        elif told_of(word) != word:
            found.add(told_of(word))
        elif CT_WORD.match(word):
            found |= _told_by_ct(word)
        elif word in _TELLING or not (
            word in FILLERS or word in KIND_OF or is_sequence(word) or re.fullmatch(r"\d+(?:mm|d|t)", word)
        ):
            found.add(word)
    if "pre" in found or found & {"arterial", "portal", "delayed"}:  # "no contrast"; a phase says more
        found.discard("post")
    return frozenset(found)


@cache
def quantities(name: str) -> tuple[frozenset[str], ...]:
    """What the numbers of an image are, as far as a name tells: water or fat, magnitude or phase, SUV or counts, a MIP.

    Args:
        name: of a channel.

    Returns:
        One set for each kind of answer; two that are told and have nothing in common are surely two things.
    """
    found = list(split_words(name))
    if {"dixon", "mdixon"} & set(found):
        short = {"w": "water", "f": "fat", "ip": "inphase", "op": "outphase", "oop": "outphase"}
        found = [short.get(w, w) for w in found]
    if {"pet", "15o", "o15", "h2o"} & set(found):
        found = [w for w in found if w != "water"]  # a tracer
    if "gml" in found:  # of a PET it is SUV, which is per gram
        unit = [] if any(w in axis for axis in AXES for w in found if w != "gml") else [
            "density" if kind_of(name) == "CT" else "suv"]  # fmt: skip
        found = [w for w in found if w != "gml"] + unit
    told = [{axis[w] for w in found if w in axis} for axis in AXES]
    if "phase" in found and not details(name) - {"swi"} and kind_of(name) in ("MR", ""):
        told[1].add("phase")
    return tuple(map(frozenset, told))


def has_unit(name: str) -> bool:
    """Whether a name means numbers in a unit, so that a few times more or less is something else: SUV, ADC, a map.

    A map is one whatever it is of; so are fractions, doses and what two energies of CT tell.
    """
    known, found = meanings(name), split_words(name)
    mapped = any(w in ("map", "maps", "mapping") for w in found) or bool({"pdff", "fatfraction"} & set(found))
    return bool(known) and all(m.kind == "PT" or m.sequence in _IN_UNITS or (mapped and m.kind == "MR") for m in known)


def same(one: str, other: str) -> bool | None:
    """Whether two names can be one modality; None when a name does not tell.

    Kinds are compared, and of MR the sequences where both tell one: T1 is not T2, and ``MR`` may be either; FDG is not
    PSMA, and ``PET`` may be of either tracer; a low b-value is no high one.

    Args:
        one: a name.
        other: another.
    """
    spelt = plain(one) == plain(other)
    if one == other or (spelt and meanings(one) == meanings(other) and _b_classes(one) == _b_classes(other)):
        return True
    if all(len(b) == 1 for b in (_b_classes(one), _b_classes(other))) and _b_classes(one) != _b_classes(other):
        return False
    if any(a and b and not a & b for a, b in zip(quantities(one), quantities(other), strict=True)):
        return False
    if _other_part(one, other):
        return False
    answers = {_same(a, b) for a in meanings(one) for b in meanings(other)}
    if not answers:
        return None
    return True if True in answers else None if None in answers else False


def _other_part(one: str, other: str) -> bool:
    """Whether two names of several images surely differ in one of them: ``FDG PET-CT`` is no ``PSMA PET-CT``."""
    pieces = [images(n) for n in (one, other)]
    if len(pieces[0]) == len(pieces[1]) > 1:
        return any(all(same(p, q) is False for q in pieces[1]) for p in pieces[0]) or any(
            all(same(p, q) is False for p in pieces[0]) for q in pieces[1]
        )
    if any(len(p) > 1 or _ALTERNATIVES.search(n) for p, n in zip(pieces, (one, other), strict=True)):
        return False
    hybrid = [{k: {m for m in meanings(n) if m.kind == k} for k in _kinds(n)} for n in (one, other)]
    if min(map(len, hybrid)) < len(("PT", "CT")):
        return False
    return any(
        all(_same(a, b) is False for a in hybrid[0][k] for b in hybrid[1][k])
        for k in hybrid[0].keys() & hybrid[1].keys()
    )


def _kinds(name: str) -> set[str]:
    return {m.kind for m in meanings(name)}


def _same(one: Modality, other: Modality) -> bool | None:
    if one.kind != other.kind:
        return False
    told = {one.sequence, other.sequence}
    if one.kind in ("CT", "OCT") or (one.kind == "PT" and "" not in told):
        return len(told) == 1
    if one.kind == "PT":
        return True
    if told & ORDERS:
        return False if len(told & ORDERS) > 1 else len(told) == 1 or None
    if told & APART and len(told) > 1:
        return False
    if one.sequence == other.sequence:
        return True if one.sequence or one.kind != "MR" else None
    colours = {m.sequence in COLOURS for m in (one, other)}
    if not one.sequence or not other.sequence or len(colours) > 1:
        return None
    return False


def _b_classes(name: str) -> set[bool]:
    """Whether the b-values that a name tells are low; those of one diffusion-weighted image are of one class."""
    found = {int(word[1:]) < LOW_B for word in details(name) if re.fullmatch(r"b\d+", word)}
    return found or {word == "lowb" for word in details(name) & {"lowb", "highb"}}


def tracers(one: str, other: str) -> str:
    """The tracer that only one of two names of a PET tells; empty when both or none do.

    Args:
        one: a name.
        other: another.
    """
    told = [{m.sequence for m in meanings(n) if m.kind == "PT"} for n in (one, other)]
    return next(iter((told[0] | told[1]) - {""}), "") if all(told) and sum(t == {""} for t in told) == 1 else ""


def _told_by_ct(word: str) -> set[str]:
    """What a word that means CT says beside it; of another kind of CT, or a word that may be none, the word itself."""
    bare = word.rstrip("0123456789")
    if re.match(r"n|ue|plain", word):
        return {"pre"}
    if re.match(r"c[ec]ct|contrast|angio|.*cta|ct(?:pa|ca)", word):
        return {"post"} | ({"lung"} if bare == "ctpa" else {"heart"} if bare in ("ccta", "ctca") else set())
    return set() if bare in USUAL_CT or is_cone_beam(word) else {"synthetic"} if bare == "sct" else {bare}


def is_cone_beam(name: str) -> bool:
    """Whether a name tells cone-beam CT, whose HU are not those of a fan-beam CT."""
    found = {word.rstrip("0123456789") for word in words(name)}
    return bool(_CONE_BEAM & found) or {"cone", "beam"} <= found


def _meanings_of(name: str) -> set[Modality]:
    found = list(split_words(name))
    if len(found) == 1 and found[0] in COLOURS:
        return {Modality("photo", found[0])}
    kinds = {KIND_OF[w] for w in found if w in KIND_OF} | ({"CT"} if any(map(CT_WORD.match, found)) else set())
    kinds |= {k for w in found if (m := re.fullmatch(r"(pet|spect|pt)(ct|mr)", w)) for k in (
        {"pet": "PT", "pt": "PT", "spect": "NM"}[m[1]], m[2].upper())}  # fmt: skip
    if set(found) & MR_WORDS and not kinds:
        kinds = {"MR"}
    if "US" in kinds:
        kinds.discard("photo")  # "colour doppler"
    orders = ORDERS & {w.removesuffix("a") for w in found}
    if kinds == {"photo"} and orders:
        return {Modality("photo", o) for o in orders}
    photo = next((kind for kind, known in PHOTOS.items() if set(found) & set(known.split())), "")
    if photo and not kinds - {"photo"}:
        return {Modality("photo", "fluorescein" if photo == "fundus" and "fa" in found else photo)}
    sequences = _sequences(found, certain="MR" in kinds)
    if sequences and not kinds and sequences <= PERFUSION:
        return {Modality(k, s) for k in ("CT", "MR") for s in sequences}
    if sequences and kinds <= {"MR", "US"}:  # an echo's number, a doppler of MR: the sequence decides
        return {Modality("MR", s) for s in sequences}
    weighted = sequences & WEIGHTINGS if "CT" in kinds else set()  # "T2 CT" may be either
    several = {Modality("MR", s) for s in sequences or {""}} if "MR" in kinds else {Modality("MR", s) for s in weighted}
    return several | {Modality(k, _variant(found, k)) for k in kinds - {"MR"}}


def _variant(found: list[str], kind: str) -> str:
    known = VARIANTS.get(kind, {})
    return next((v for v, pattern in known.items() if any(re.fullmatch(pattern, w) for w in found)), "")


def _sequences(found: list[str], *, certain: bool) -> set[str]:
    """The sequences of MR that words can mean: one, or several where none of them is but a part of another."""
    if {"b0", "b1"} & set(found) and {"map", "maps", "field"} & set(found):
        return {f"{'B0' if 'b0' in found else 'B1'} map"}
    if "de" in found and all(w == "de" or KIND_OF.get(w) == "MR" for w in found) and len(found) > 1:
        return {"LGE"}  # "DE-MRI"; in "IRM de prostate" it is a little word
    if {"flair", "t1"} <= {re.sub(r"^t1w?i?$", "t1", w) for w in found}:
        found = [w for w in found if w != "flair"]  # T1 FLAIR is weighted by T1
    certain = certain or bool(TENSOR & set(found))
    hits = {name: [w for w in found if re.fullmatch(pattern, w)] for name, pattern in SEQUENCES}
    names = {n for n, words in hits.items() if words and (certain or any(w.upper() not in CERTAIN for w in words))}
    names -= {b for a in names for b in PART_OF.get(a, ())}
    if {"b0", "DWI"} <= names:
        names -= {"b0"} if any(re.fullmatch(r"b[1-9]\d*", w) for w in found) else {"DWI"}
    if GRADIENT & set(found) and "T2" in names:
        names.add("SWI")  # a T2 gradient echo is T2*, as far as one knows
    if "T1" in names and any(map(is_contrast, found)) and not set(found) & PLAIN:
        names = names - {"T1"} | {"T1c"}
    phased = {n + _phase(found) if n == "T1" else n for n in names}
    mapped = bool({"map", "mapping", "maps"} & set(found))
    phased = {f"{n} map" if mapped and n.split()[0] in ("T1", "T2") else n for n in phased}
    single = {"inphase": "T1 in", "outphase": "T1 out"}
    return phased or {single[w] for w in found if w in single}


def _phase(found: list[str]) -> str:
    return " in" if IN_PHASE & set(found) else " out" if OUT_OF_PHASE & set(found) else ""
