"""Words of a name: spellings made alike, without accents and signs."""

from common.name_words import coloured, is_contrast, plain, told_of, words


def test_spellings_are_made_alike() -> None:
    assert words("T1 w/o contrast") == ["t1", "without", "contrast"] and words("X-Ray (é)") == ["xray", "e"]
    assert words("out-of phase") == ["outphase"] == words("OutPhase") and words("In phase") == ["inphase"]
    assert plain("T2 MR") == plain("t2-mr") and plain("Apical 4-chamber") == "4ch" and words("Bq/ml") == ["bqml"]


def test_contrast_is_known_by_its_agents() -> None:
    assert all(map(is_contrast, ("gd", "gadovist", "postgado", "primovist", "km"))) and not is_contrast("gland")
    assert told_of("gadobutrol") == "post" and told_of("hap") == "arterial" and told_of("knie") == "knie"


def test_three_letters_are_colours_and_one_is_none() -> None:
    assert coloured(["B", "g", "R"]) == ("blue", "green", "red") and coloured(["B"]) == ("B",)
    assert coloured(["R", "G", "B", "NIR"]) == ("red", "green", "blue", "NIR") and coloured(["R", "B"]) == ("R", "B")
