"""Silence is for equal names and for pairs of the one table of synonyms; being of one class is worth a note."""

import re
from itertools import combinations

import pytest

from common.channel_doubt import remark
from common.modalities import same
from common.name_words import FILLERS, PLACES, PLAIN, TIMES, plain, told_of, words
from common.negations import NEGATORS
from common.synonyms import SYNONYMS, said, says_same
from common.vocabulary import (
    AXES,
    IN_PHASE,
    KIND_OF,
    MR_WORDS,
    OUT_OF_PHASE,
    PERFUSION,
    PHOTOS,
    SEQUENCES,
    USUAL_CT,
    VARIANTS,
)

# Rows as a reader sees them: whatever stands in one is one thing.
ROWS = {spelt: own for own, row in SYNONYMS.items() for spelt in (own, *row)}
IMAGES = {"image", "images", "scan", "scans", "imaging"}


def expanded(pattern: str) -> set[str]:
    """The words that a pattern of the vocabulary spells out, where it has but letters, marks of choice and groups."""
    found = {""}
    rest = re.sub(r"\\d\?|\\[dw]\*|\\[dw]\{0,\d\}", "", pattern)
    rest = re.sub(r"\\d(?:\+|\{\d,\d\})?", "50", re.sub(r"\\w\+", "y", rest))
    while rest:
        atom = re.match(r"\(\?:([^()]*)\)(\?)?|([a-z0-9])(\?)?", rest)
        if atom is None:
            return set()
        choices = set((atom[1] if atom[1] is not None else atom[3]).split("|"))
        if any(not re.fullmatch(r"[a-z0-9]*", c) for c in choices):
            return set()
        found = {f + c for f in found for c in choices | ({""} if atom[2] or atom[4] else set())}
        rest = rest[atom.end() :]
    return found


def top_level(pattern: str) -> list[str]:
    parts, depth = [""], 0
    for sign in pattern:
        depth += (sign == "(") - (sign == ")")
        if sign == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def of(pattern: str) -> set[str]:
    return {w for part in top_level(pattern) for w in expanded(part)}


def classes() -> dict[str, tuple[str, list[str]]]:
    """Words by class, with the name in which each stands for itself."""
    found: dict[str, tuple[str, set[str]]] = {}
    for kind in set(KIND_OF.values()):
        found[f"kind {kind}"] = ("{}", {w for w, k in KIND_OF.items() if k == kind})
    for name, pattern in SEQUENCES:
        found[f"sequence {name}"] = ("MR {}", of(pattern))
    found["sequences"] = ("MR {}", {name.casefold() for name, _ in SEQUENCES} | PERFUSION | MR_WORDS)
    for kind, known in VARIANTS.items():
        for name, pattern in known.items():
            found[f"variant {kind} {name}"] = ({"PT": "PET", "photo": "photo"}.get(kind, kind) + " {}", of(pattern))
    for name, known_words in PHOTOS.items():
        found[f"photo {name}"] = ("{}", set(known_words.split()))
    heads, tails = ("nc", "ne", "ue", "ce", "cb", "s", "hr", "4d"), ("a", "p", "v", "pa", "ca")
    found["CT"] = ("{}", {*USUAL_CT, *(f"{h}ct" for h in heads), *(f"ct{t}" for t in tails)})
    found["fillers"] = ("CT {}", set(FILLERS))
    found["places"] = ("CT {}", set(PLACES))
    for kind, group in (("times", TIMES | {"venous", "late", "early", "vein", "pv", "pvp", "hap", "excretory"}),
                        ("without", PLAIN),
                        ("with", {"contrast", "gd", "km", "gadovist", "primovist", "eob", "enhanced"}),
                        ("fat", {"fs", "fatsat", "spair", "spir", "sat", "suppressed"}),
                        ("phase", IN_PHASE | OUT_OF_PHASE)):  # fmt: skip
        found[kind] = ("T1 {}" if kind in ("phase", "fat") else "CT {}", set(group))
    for axis in AXES:
        found[f"numbers {min(axis)}"] = ("{} PET" if "suv" in axis else "MR {}", set(axis))
    return {name: (frame, sorted(group - {""})) for name, (frame, group) in found.items()}


def row(word: str) -> str:
    """The row in which a word stands, in one step or two; without one the word itself."""
    first = ROWS.get(word, word)
    return ROWS.get(first, first)


def silent(frame: str, one: str, other: str) -> bool:
    own, given = frame.format(one), frame.format(other)
    return same(own, given) is not False and not remark(own, given)


@pytest.mark.parametrize("name", sorted(classes()))
def test_two_words_of_a_class_are_silent_only_where_the_table_says_so(name: str) -> None:
    frame, known = classes()[name]
    wrong = []
    for one, other in combinations(known, 2):
        own, given = frame.format(one), frame.format(other)
        alike = row(one) == row(other) or plain(own) == plain(given) or row(own.lower()) == row(given.lower())
        alike = alike or {one, other} <= IMAGES or _spelt(own) == _spelt(given)
        if silent(frame, one, other) and not alike:
            wrong.append((own, given))
    assert not wrong and len(known) > 0


def _spelt(name: str) -> frozenset[str]:
    """The words of a name, each exchanged for its row's."""
    denied = ("without" if w in NEGATORS else w for w in words(name))
    return frozenset({part for w in denied for part in row(w).split()} - IMAGES)


@pytest.mark.parametrize("frame", ["CT {}", "T2 {}", "MR {}", "US {}", "PET {}", "X-ray {}", "fundus {}"])
def test_one_more_word_is_told_unless_it_is_one_for_an_image(frame: str) -> None:
    bare = frame.replace(" {}", "")
    found = set()
    for word in sorted(FILLERS | PLACES | TIMES | set(map(told_of, PLACES))):
        name = frame.format(word)
        if same(bare, name) is not False and (not remark(bare, name) or not remark(name, bare)):
            found.add(word)
    assert found <= IMAGES | ({"w", "weighted", "gewichtet", "pondere"} if bare == "T2" else set())


def test_rows_are_spelt_as_names_are_read_and_none_stands_in_two() -> None:
    every = [v for row_ in SYNONYMS.values() for v in row_]
    assert len(every) == len(set(every)) and not [v for v in every if v in SYNONYMS]
    assert not [(own, v) for own, row_ in SYNONYMS.items() for v in row_ if not says_same(own, v)]


def test_what_a_name_says() -> None:
    assert said("T1-weighted + C") == {frozenset({"t1", "contrast"})} and said("MRI") == {frozenset({"mr"})}
    assert said("CT or MR") == {frozenset({"ct"}), frozenset({"mr"})} and said("CT scan") == {frozenset({"ct"})}
    assert says_same("MR brain W + MR brain WO", "MR brain WO + MR brain W")  # the end of each image's name
    assert says_same("CCTA", "coronary CT angiography") and not says_same("T1 non FS", "T1")
