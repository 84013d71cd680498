"""Words of a name: spellings made alike, without accents and signs."""

import pytest

from common.name_words import is_contrast, is_placeholder, meant_together, plain, told_of, words


def test_spellings_are_made_alike() -> None:
    assert words("T1 w/o contrast") == ["t1", "without", "contrast"] and words("X-Ray (é)") == ["xray", "e"]
    assert words("out-of phase") == ["outphase"] == words("OutPhase") and words("In phase") == ["inphase"]
    assert (
        plain("T2 MR") == plain("t2-mr")
        and plain("Apical 4-chamber") == "a4c" != plain("4 chamber")
        and words("Bq/ml") == ["bqml"]
    )


def test_contrast_is_known_by_its_agents() -> None:
    assert all(map(is_contrast, ("gd", "gadovist", "postgado", "primovist", "km"))) and not is_contrast("gland")
    assert told_of("gadobutrol") == "post" and told_of("hap") == "arterial" and told_of("knie") == "knie"


def test_three_letters_are_colours_and_one_is_none() -> None:
    assert meant_together(["B", "g", "R"]) == ("blue", "green", "red") and meant_together(["B"]) == ("B",)
    assert meant_together(["R", "G", "B", "NIR"]) == ("red", "green", "blue", "NIR") and meant_together(["R", "B"]) == (
        "R",
        "B",
    )


@pytest.mark.parametrize(("name", "found"), [
    ("b 50", "b50"), ("b=0", "b0"), ("DWI_b-800", "dwi b800"), ("b-values 1000 s/mm\u00b2", "b1000"), ("b0050", "b50"),
    ("b=50.0", "b50"), ("DWI 800", "dwi b800"), ("dwi1000", "dwi b1000"), ("DWI_0001", "dwi 0001"),
    ("b0.5", "bfraction0x5"),
    ("n/a", "none"),
    ("B30f", "b30f"), ("b0 map", "b0 map"), ("DWI 15 mm", "dwi 15 mm"), ("DTI 64", "dti 64"), ("T2* 3T", "t2star 3t"),
    ("HU+1024", "hu plus 1024"), ("HU*10", "hu times 10"), ("HU / 10", "hu times 10"), ("g/ml", "gml"),
    ("5 %", "5 percent"),
    ("kBq/mL", "kbqml"), ("Bq/cc", "bqml"), ("T1 pre-op", "t1 preop"), ("T1 intraoperative", "t1 intraop"),
    ("T1 in vivo", "t1 invivo"), ("CT late arterial", "ct latearterial"), ("portal venous CT", "portalvenous ct"),
    ("CT with", "ct contrast"), ("CT w/", "ct contrast"), ("CT abdomen W", "ct abdomen contrast"), ("T1 W", "t1 w"),
    ("MR T2 W", "mr t2 w"), ("with", "with"), ("CT with FS", "ct with fs"), ("full-dose CT", "fulldose ct"),
    ("CT 0-1", "ct span0to1"), ("4D flow", "4dflow"), ("phase-contrast microscopy", "phase contrast microscopy"),
])  # fmt: skip
def test_b_values_units_and_sums(name: str, found: str) -> None:
    assert " ".join(words(name)) == found


def test_ct1_beside_a_weighting_is_t1_with_contrast() -> None:
    assert meant_together(["T1", "CT1", "FLAIR"]) == ("T1", "T1c", "FLAIR") and meant_together(["CT1"]) == ("CT1",)
    assert meant_together(["CT1", "PET"]) == ("CT1", "PET") and meant_together(["CT1", "CT2"]) == ("CT1", "CT2")


def test_placeholders_name_nothing() -> None:
    assert all(map(is_placeholder, ("image", "Channel_1", "0000", "input data", "abdomen", "c1", "n/a", "?", "")))
    assert not any(map(is_placeholder, ("CT", "my scanner", "A", "CT image")))
