"""A negation goes with what it denies, before it or behind it, in several languages."""

import pytest

from common.contract import Contract
from common.errors import DataError
from common.negations import without_denied


@pytest.mark.parametrize(("words", "left"), [
    ("t1 non fs", "t1"), ("t1 no fatsat gd", "t1 gd"), ("ct without iv contrast", "ct without"),
    ("t1 wo", "t1 without"),
    ("t1 wo gd", "t1 without"), ("wo ct", "wo ct"), ("non contrast enhanced ct", "without ct"), ("t1 nonfs", "t1"),
    ("ct ohnekm", "ct without"), ("ct contrast none", "ct without"), ("t2 fs off", "t2"),
    ("t1 fs minusc", "t1"), ("t1 minusc", "t1 minusc"), ("ct contrast 0", "ct contrast zero"), ("t1 0", "t1 0"),
    ("t2 not flair", "t2 nonflair"), ("t1 without fs with gd", "t1 with gd"),
    ("ct ohne km mit kontrast", "ct without mit kontrast"),
    ("non ct", "nonct"), ("ct sans", "ct without"), ("free breathing ct", "free breathing ct"), ("none", "none"),
    ("ct ohne", "ct without"), ("pet non ac", "pet nonac"), ("ct sans injection de produit de contraste", "ct without"),
    ("noncontrast ct", "noncontrast ct"), ("t1 no fs no gd", "t1 without"), ("t1", "t1"), ("", ""),
])  # fmt: skip
def test_what_is_denied(words: str, left: str) -> None:
    assert without_denied(words.split()) == tuple(left.split())


def answer(own: str, given: str) -> str:
    try:
        return "told" if Contract((own,), {own: {"channels": [own]}}).fit((given,), given).notes else "silent"
    except DataError:
        return "refused"


@pytest.mark.parametrize(("expected", "table"), [
    ("silent", "NCCT;NECT|NCCT;CT-|T1 pre;T1 sans gado|T1 native;T1 no contrast|T1 FS no contrast;T1 sans KM FS|"
               "NCCT;CT without iv contrast|NCCT;non-contrast-enhanced CT|NCCT;CT ohne KM|"
               "NCCT;CT contrast: none|NCCT;CT w/o|NCCT;CT kein Kontrastmittel|T1 pre;T1 ohne Kontrastmittel"),
    ("told", "T1;T1 non FS|T1c;T1 no FS gd|T1c;T1 post contrast non FS|T1;T1 sans gado|T1;T1 no contrast|"
             "T1 FS;T1 non FS|T2 FS;T2 no fat sat|T2 FS;T2 FS off|T2;T2 not FLAIR|CT;non-CT|CT;not CT|PET;PET non AC|"
             "NCCT;CT w and w/o contrast|NCCT;CT mit und ohne KM|NCCT;CT pre/post contrast|NCCT;CT +/- contrast|"
             "CECT;CT ohne KM|CECT;CT sin contraste|CECT;CT contrast-free|CECT;CT without intravenous contrast|"
             "CECT;CT w&wo contrast|CECT;CT zonder contrast|CECT;CT contrast 0|CECT;CT -C|T1 FS;T1 FS-|"
             "CT;CT iodine-free"),
    ("refused", "T1;T1 no FS post contrast|T1c;T1 ohne Kontrast|T1c;T1 w/o Gd|T1c;T1 wo contrast|T1c;T1 w/o"),
])  # fmt: skip
def test_a_name_is_not_what_it_denies(expected: str, table: str) -> None:
    pairs = [row.split(";") for row in table.split("|")]
    assert not [(own, given, said) for own, given in pairs if (said := answer(own, given)) != expected]
