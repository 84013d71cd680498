"""Names of channels and modalities: synonyms are one kind, sequences of MR are not one another."""

import pytest

from common.modalities import (
    Modality,
    alternatives,
    details,
    has_unit,
    images,
    is_cone_beam,
    is_ct,
    kind_of,
    meanings,
    same,
    tracers,
)
from common.name_words import plain


@pytest.mark.parametrize("name", ["CT", "ct", "CTA", "NCCT", "CECT", "CBCT", "HRCT", "LDCT", "CCTA", "CTPA", "CT 0",
                                  "abdominal CT", "ct_portal", "enhanced CT", "non-contrast CT", "CT1",
                                  "computed tomography", "4DCT", "sCT", "MVCT"])  # fmt: skip
def test_synonyms_of_ct(name: str) -> None:
    assert is_ct(name) and kind_of(name) == "CT"


@pytest.mark.parametrize(("name", "sequence"), [
    ("T1", "T1"), ("T1w", "T1"), ("t1-weighted", "T1"), ("T1 MR", "T1"), ("T1ce", "T1c"), ("T1Gd", "T1c"),
    ("ce-T1", "T1c"), ("T1 + C", "T1c"),
    ("T1+", "T1c"), ("T1w (+)", "T1c"), ("T1-", "T1"), ("T1 -", "T1"), ("T1 post contrast", "T1c"),
    ("T1 pre-contrast", "T1"),
    ("t1n", "T1"), ("t1c", "T1c"), ("T2", "T2"),
    ("T2w", "T2"), ("T2-TSE", "T2"), ("t2f", "FLAIR"), ("T2 FLAIR", "FLAIR"), ("FLAIR", "FLAIR"), ("DWI", "DWI"),
    ("b1000", "DWI"), ("ADC", "ADC"), ("LGE", "LGE"), ("LGE MR", "LGE"), ("cine MRI", "cine"), ("bSSFP", "cine"),
    ("T2*", "SWI"), ("MR", ""), ("MRI", ""), ("CMR", ""), ("T1 in phase", "T1 in"), ("T1 opposed phase", "T1 out"),
])  # fmt: skip
def test_sequences_of_mr(name: str, sequence: str) -> None:
    assert meanings(name) == {Modality("MR", sequence)}


@pytest.mark.parametrize(("name", "kind"), [
    ("US", "US"), ("ultrasound", "US"), ("PET", "PT"), ("PT", "PT"), ("FDG-PET", "PT"), ("SPECT", "NM"),
    ("X-ray", "XR"),
    ("CXR", "XR"), ("mammography", "XR"), ("RGB", "photo"), ("red", "photo"), ("R", ""), ("dermoscopy", "photo"),
    ("OCT", "OCT"),
    ("image", ""), ("delayed", ""), ("positron emission tomography", "PT"), ("optical coherence tomography", "OCT"),
    ("HBV", "MR"), ("channel 0", ""), ("acted", ""), ("CT or MR", ""), ("PET-CT", ""), ("", ""),
])  # fmt: skip
def test_other_kinds(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_what_can_be_one_thing() -> None:
    assert same("CTA", "NCCT") is True and same("CT", "T2 MR") is False and same("T1", "T2") is False
    assert same("T1w", "T1") is True and same("T1", "T1c") is False and same("FLAIR", "T2") is False
    assert same("MR", "T2") is None and same("image", "CT") is None and same("MR", "MRI") is None
    assert same("my scanner", "My_Scanner") is True and plain("T2 MR") == plain("t2-mr")
    assert same("CT or MR", "T1") is None and same("CT | T2 MR", "T2w") is True and same("CT or MR", "US") is False
    assert (
        same("red", "blue") is False and same("red", "photo") is None and same("T1 in phase", "T1 out phase") is False
    )
    assert same("T1 + FLAIR", "CT") is False and same("T1 + FLAIR", "MR") is None


def test_t1_flair_is_weighted_by_t1() -> None:
    for name in ("T1 FLAIR", "T1w-FLAIR", "t1flair"):
        assert meanings(name) == {Modality("MR", "T1")} and same(name, "FLAIR") is False and same(name, "T1") is True
    for name in ("T2 FLAIR", "t2flair", "3D FLAIR"):
        assert same(name, "FLAIR") is True and same(name, "T2") is False


def test_a_pet_of_one_tracer_is_none_of_another() -> None:
    for name in ("FDG", "18F-FDG PET", "FDG SUV"):
        assert same(name, "68Ga-PSMA-11") is False and same(name, "FDG-PET") is True and same(name, "PET") is True
        assert same(name, "amyloid PET") is False and tracers(name, "PET") == "FDG" == tracers("PT", name)
    assert same("DOTATOC PET", "DOTATATE") is True and same("FET PET", "FDG") is False and same("PET", "CT") is False
    assert tracers("FDG", "FDG PET") == "" == tracers("PET", "SUV") == tracers("PET", "CT") == tracers("FDG", "image")


@pytest.mark.parametrize(("one", "other", "answer"), [
    ("DWI b50", "DWI b1000", False), ("b800", "b1000", True), ("DWI", "DWI b50", True), ("b=0", "b 1000", False),
    ("CT", "iodine CT", False), ("DECT iodine", "CT iodine map", True), ("CT CBF", "CTP", False),
    ("OCT", "OCTA", False), ("US", "colour doppler", None), ("B-mode", "ultrasound", True),
    ("elastography US", "doppler", False), ("RGB", "BGR", False), ("RGB", "RGBA", True), ("RGB", "fundus", None),
    ("RGB", "red", None),
    ("B", "cine", None), ("R + G + B", "CT", False),
    ("RGB", "HSV", False), ("CXR", "mammography", False), ("X-ray", "mammography", None),
    ("T1", "T1rho", False), ("MR elastography", "MR", None),
    ("fundus", "autofluorescence", False), ("WLI", "NBI", False), ("CFP", "fundus", True),
    ("Sonographie", "ultrasound", True), ("\u00c9chographie", "US", True), ("R\u00f6ntgen", "X-ray", True),
    ("TEP", "PET", True), ("TDM", "CT", True), ("MRT T2", "T2w", True), ("Szintigraphie", "SPECT", True),
    ("T1-gewichtet", "T1", True), ("TAC", "CT", True), ("tomograf\u00eda computarizada", "CT", True),
    ("IRM T1 inject\u00e9e", "T1c", True), ("T1 mit KM", "T1c", True), ("T1 ohne KM", "T1", True),
])  # fmt: skip
def test_further_kinds_and_languages(one: str, other: str, answer: bool | None) -> None:
    assert same(one, other) is answer and same(other, one) is answer


def test_a_map_of_iodine_is_in_no_hu() -> None:
    assert not is_ct("iodine CT") and not is_ct("CT CBV") and kind_of("iodine CT") == "CT" and is_ct("CT perfusion")


def test_numbers_and_signs_behind_a_word_hide_nothing() -> None:
    assert is_cone_beam("CBCT1") and is_cone_beam("CBCT_02") and not is_cone_beam("CT1")
    assert plain("FLAIR*") != plain("FLAIR") and plain("T1*") != plain("T1") and plain("T2'") != plain("T2")


@pytest.mark.parametrize(("name", "sequences"), [
    ("T2 GRE", {"T2", "SWI"}), ("MR T1 GRE", {"T1"}), ("MR GRE", {""}), ("T1 T2", {"T1", "T2"}),
    ("PD/T2", {"PD", "T2"}),
    ("T2 STIR", {"STIR"}), ("T2 DWI", {"DWI"}), ("DWI ADC", {"ADC"}), ("DTI FA", {"FA"}), ("T1 DCE gd", {"DCE"}),
    ("DWI b0", {"b0"}), ("DWI b0 b800", {"DWI"}), ("T1c FLAIR", {"T1c", "FLAIR"}), ("T2* GRE", {"SWI"}),
    ("T1 no FS gd", {"T1c"}), ("FLAIR SWI", {"FLAIR", "SWI"}),
])  # fmt: skip
def test_a_name_of_two_sequences_is_each_unless_one_is_part_of_the_other(name: str, sequences: set[str]) -> None:
    assert {m.sequence for m in meanings(name)} == sequences and {m.kind for m in meanings(name)} == {"MR"}


def test_each_image_of_a_name_of_several_counts() -> None:
    assert same("FDG PET-CT", "PSMA PET-CT") is False and same("FDG PET/CT", "PET-CT") is True
    assert same("CT + FDG PET", "PSMA PET + CT") is False and same("CT + PET", "FDG PET + CT") is not False
    assert same("T1 + FLAIR", "T1 + T2") is False and same("CT | FDG PET", "CT | PSMA PET") is True  # any of them


@pytest.mark.parametrize("name", [
    "PDFF", "fat fraction", "T2* map", "T1rho map", "PD map", "CT iodine", "CT dose", "ADC", "SUV", "T1 map", "rCBF",
    "Ktrans", "CT electron density", "MR T1 mapping",
])  # fmt: skip
def test_numbers_in_a_unit(name: str) -> None:
    assert has_unit(name)


def test_pictures_in_no_unit() -> None:
    assert not any(map(has_unit, ("T1", "T2*", "MR", "CT", "US", "T1rho", "SWI", "image", "photo map")))


def test_what_a_name_joins_and_leaves_open() -> None:
    assert alternatives("CT or MR") == ["CT", "MR"] and images("R + G + B") == ("red", "green", "blue")
    assert images("T1 + CT1") == ("T1", "T1c") and images("HU + 1024") == ("HU + 1024",)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CT arterial", "arterial"), ("ct-art", "arterial"), ("NCCT", "pre"), ("CT portal venous phase", "portal"),
        ("T1 post", "post"), ("T1 pre", "pre"), ("CTA", "post"), ("CT w/o contrast", "pre"), ("DWI b800", "b800"),
        ("CT lung", "lung"), ("T1 3D 1mm", ""), ("CT arterial post", "arterial"), ("liver CT foo", "foo liver"),
        ("CT", ""), ("CT delayed post", "delayed"), ("T1 pre post", "preandpost"), ("T2 2D 5d 4t", ""),
    ],
)  # fmt: skip
def test_what_a_name_says_beside_its_kind(name: str, said: str) -> None:
    assert details(name) == frozenset(said.split())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PETCT", {("PT", ""), ("CT", "")}), ("PTMR", {("PT", ""), ("MR", "")}), ("SPECTCT", {("NM", ""), ("CT", "")}),
        ("fundus FA", {("photo", "fluorescein")}), ("fundus", {("photo", "fundus")}), ("slit lamp FA", set()),
        ("DE-MRI", {("MR", "LGE")}), ("de MR", {("MR", "LGE")}), ("IRM de prostate", {("MR", "")}), ("de", set()),
        ("DE CT", {("CT", "")}), ("T2 CT", {("CT", ""), ("MR", "T2")}), ("CBF", {("CT", "CBF"), ("MR", "CBF")}),
        ("CT CBF", {("CT", "CBF")}), ("B0 map", {("MR", "B0 map")}), ("B1 field map", {("MR", "B1 map")}),
        ("T1 FLAIR", {("MR", "T1")}), ("red", {("photo", "red")}), ("DTI FA", {("MR", "FA")}), ("FA", set()),
        ("colour doppler ultrasound", {("US", "doppler")}), ("18F-FDG PET", {("PT", "FDG")}),
        ("68Ga-DOTATATE PET", {("PT", "SSTR")}), ("11C PET", {("PT", "")}), ("99mTc SPECT", {("NM", "")}),
    ],
)  # fmt: skip
def test_what_a_name_can_mean(name: str, meant: set[tuple[str, str]]) -> None:
    assert {(m.kind, m.sequence) for m in meanings(name)} == meant
