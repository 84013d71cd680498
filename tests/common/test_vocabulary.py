"""Known heads are split from what nobody knows; whole words that are known stay whole."""

import pytest

from common.vocabulary import PART_OF, SEQUENCES, is_sequence, split_words


@pytest.mark.parametrize(("name", "parts"), [
    ("T2SPIR", ("t2", "spir")), ("CTres", ("ct", "res")), ("gadT1", ("gad", "t1")), ("PDFS", ("pd", "fs")),
    ("MRCP", ("mrcp",)), ("CTPA", ("ctpa",)), ("t1ce", ("t1ce",)), ("post1", ("post1",)), ("PDAC", ("pdac",)),
    ("T1-weighted", ("t1", "weighted")), ("T10", ("t10",)), ("T1rho", ("t1rho",)), ("SUVbw", ("suvbw",)),
    ("MRSI", ("mrsi",)), ("t1gado", ("t1gado",)),
])  # fmt: skip
def test_glued_names(name: str, parts: tuple[str, ...]) -> None:
    assert split_words(name) == parts


def test_sequences() -> None:
    assert is_sequence("flair") and is_sequence("b800") and not is_sequence("spir")


def test_parts_are_sequences_and_none_is_part_of_its_own_part() -> None:
    known = {name for name, _ in SEQUENCES}
    assert set(PART_OF) <= known and all(set(parts) <= known for parts in PART_OF.values())
    assert not [(a, b) for a, parts in PART_OF.items() for b in parts if a in PART_OF.get(b, ())]
