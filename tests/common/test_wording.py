"""Words in another order and other signs are no other writing of one name, where they tell something."""

import pytest

from common.channel_doubt import remark
from common.contract import Contract
from common.errors import DataError
from common.modalities import same
from common.synonyms import says_same
from common.wording import contrary_signs, is_ordered, joins, listed, marks, several

ORDER = """CT registered to PET # PET registered to CT
T1 registered to T2 # T2 registered to T1
T2 in ADC space # ADC in T2 space
synthetic CT from MR # synthetic MR from CT
ADC on T2 # T2 on ADC
T1 over T2 # T2 over T1
CBV/CBF # CBF/CBV
T1:T2 # T2:T1
T1/T2 # T1 T2
CTA minus NCCT # NCCT minus CTA
b0 minus b1000 # b1000 minus b0
CT arterial - portal # CT portal - arterial
T1 post-pre # T1 pre-post
CT before RT after surgery # CT after RT before surgery
MR pre RT post op # MR post RT pre op
CT vor RT nach OP # CT nach RT vor OP
lowdose PET + fulldose CT # fulldose PET + lowdose CT
low-dose PET, full-dose CT # full-dose PET, low-dose CT
T1c before, T1 after # T1 before, T1c after
baseline CT followup MR # followup CT baseline MR
left T1 right T2 # right T1 left T2
CT 80 kV 140 mAs # CT 140 kV 80 mAs
T2 3D TR 5000 TE 100 # T2 3D TR 100 TE 5000
US left right # US right left
PET\u2192CT # CT\u2192PET
PET>CT # CT>PET
T1, T2 # T1 or T2"""
SIGNS = """T1 (-C) # T1 (+C)
CT (-Gd) # CT (+Gd)
T1-C # T1+C
CT-KM # CT+KM
CTA-NCCT # CTA+NCCT
T1ce - T1 # T1ce + T1
T1ce-T1 # T1ce + T1
DWI b>800 # DWI b<800
DWI b>800 # DWI b800
CT HU -500 # CT HU 500
CT HU<-500 # CT HU>-500
CT W400 L-40 # CT W400 L40
CT window \u2212600 # CT window 600
CT +24h # CT -24h
CT # CT?
CT # ~CT
CT # \u00ac CT"""
JOINED = """CT P # CTP
CT-A # CTA
MR A # MRA
T2 F # T2f
T1 N # T1n
DCE 1_2 # DCE 12
b50 0 # b500
CT 2_5 mm # CT 25 mm
CT 1.5 # CT 15
s-CT # sCT"""


def pairs(table: str) -> list[tuple[str, str]]:
    return [(one, other) for one, _, other in (line.partition(" # ") for line in table.splitlines())]


def told(own: str, given: str) -> bool:
    """Whether data are refused, or somebody is told, and that by their channel and by their modality alone."""
    answers = []
    for channels, modality in (((given,), "brain"), (None, given)):
        name = "brain" if channels else own
        try:
            answers.append(bool(Contract((own,), {name: {"channels": [own]}}).fit(channels, modality).notes))
        except DataError:
            answers.append(True)
    return all(answers)


@pytest.mark.parametrize(("one", "other"), [*pairs(ORDER), *pairs(SIGNS), *pairs(JOINED)])
def test_another_order_another_sign_and_a_joined_spelling_are_told(one: str, other: str) -> None:
    for own, given in ((one, other), (other, one)):
        assert not says_same(own, given) and (same(own, given) is False or remark(own, given).strip())
        assert told(own, given)


@pytest.mark.parametrize(("one", "other"), [*pairs(ORDER), *pairs(SIGNS), *pairs(JOINED)])
def test_what_was_taught_on_one_is_not_taught_on_the_other(one: str, other: str) -> None:
    entries = {n: {"channels": [n]} for n in (one, other)}
    made = Contract((one,), entries, {one: ("liver",), other: ("spleen",)})
    for name, structures in ((one, {"liver"}), (other, {"spleen"})):
        assert made.fit((name,), name).modalities == (name,) and set(made.taught_on([name]) or ()) == structures


@pytest.mark.parametrize(("one", "other"), pairs("""CT + PET # PET + CT
T1c + T1 # T1 + T1c
T1c, T1 # T1, T1c
PET-CT # CT-PET
FDG PET/CT # FDG PET-CT
CT, arterial # arterial CT
CT - arterial # CT arterial
arterial phase CT # CT arterial phase
T2w TSE fs tra # T2w tra TSE fs
CT head neck # CT neck head
CT 3 mm axial # axial CT 3 mm
T1-Gd # T1Gd
T1 C+ # T1 +C
T1 (+C) # T1 +C
b-1000 # b1000
DWI b=800 s/mm^2 # b800
T1 in # T1 in-phase
T2 3D SPACE # 3D T2 SPACE
18F-FDG PET # PET (18F-FDG)
A or B # B or A"""))  # fmt: skip
def test_one_name_in_another_writing_is_silent(one: str, other: str) -> None:
    assert says_same(one, other) and says_same(other, one)


def test_what_order_and_signs_are() -> None:
    assert marks("b>800 s/mm^2") == (">",) and marks("HU -5") == ("-",) and marks("T1-3D b-800") == ()
    assert joins("T1 - T2/PD") == ("-", "/") and joins("T1-w") == ()
    assert (
        contrary_signs("T1+C", "T1-C") and not contrary_signs("T1+C", "T1c") and not contrary_signs("PET-CT", "PET+CT")
    )
    assert is_ordered("CT to PET", ("ct", "to", "pet")) and not is_ordered("CT-PET", ("ct", "pet"))
    assert not is_ordered("arterial CT", ("arterial", "ct")) and is_ordered("CT foo bar", ("ct", "foo", "bar"))
    assert several("CT arterial portal 80 kV 5 mm", ("ct", "arterial", "portal")) == {"phases", "numbers"}
    assert listed(("T1", "T2")) and not listed(("CT", "arterial"))


@pytest.mark.parametrize(
    ("name", "words", "classes"),
    [
        ("CT arterial venous", ("arterial", "venous"), {"phases"}),
        ("CT preop postop", ("preop", "postop"), {"phases"}),
        ("T1 in phase out phase", ("inphase", "outphase", "t1"), {"phases"}),
        ("T1 T2", ("t1", "t2"), {"sequences"}),
        ("DWI b0 b1000", ("b0", "b1000", "dwi"), {"b-values"}),
        ("DWI b800", ("b800", "dwi"), set()),
        ("CT PET", ("ct", "pet"), {"kinds"}),
        ("US left right", ("left", "right", "us"), {"sides"}),
        ("US left", ("left", "us"), set()),
        ("CT 80 kV 140 mAs", ("ct",), {"numbers"}),
        ("CT foo bar", ("bar", "ct", "foo"), {"unknown"}),
        ("T1 liver", ("liver", "t1"), set()),
    ],
)
def test_of_which_classes_a_name_has_two_words(name: str, words: tuple[str, ...], classes: set[str]) -> None:
    assert several(name, words) == classes
