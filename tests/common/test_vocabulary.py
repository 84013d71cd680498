"""Known heads are split from what nobody knows; whole words that are known stay whole."""

import pytest

from common.vocabulary import is_sequence, split_words


@pytest.mark.parametrize(("name", "parts"), [
    ("T2SPIR", ("t2", "spir")), ("CTres", ("ct", "res")), ("gadT1", ("gad", "t1")), ("PDFS", ("pd", "fs")),
    ("MRCP", ("mrcp",)), ("CTPA", ("ctpa",)), ("t1ce", ("t1ce",)), ("post1", ("post1",)), ("PDAC", ("pdac",)),
    ("T1-weighted", ("t1", "weighted")), ("T10", ("t10",)),
])  # fmt: skip
def test_glued_names(name: str, parts: tuple[str, ...]) -> None:
    assert split_words(name) == parts


def test_sequences() -> None:
    assert is_sequence("flair") and is_sequence("b800") and not is_sequence("spir")
