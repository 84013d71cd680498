"""The gate for names, and values that a configuration reads as themselves."""

import json

import fire
import pytest
from monai.bundle import ConfigParser

from common.errors import ConfigError, DataError, LabelError
from common.labels import LabelSpace
from common.literals import (
    check_channel,
    check_file_name,
    check_name,
    disk_name,
    file_name,
    file_names,
    folder_names,
    inert,
    is_device,
    is_plain,
    literal,
    odd_in,
    same_on_disk,
    spreadsheet_cell,
    write_literals,
)

HOSTILE = (
    "$__import__('os').system('touch PWN')", "@network", "%train.json", "a$b", "50%", "me@home", "a#b", "a::b", "../x",
    "a/b", "a\\b", "..", ".", "", "  ", " liver", "liver ", "a\nb", "a\tb", "a\x00b", "a\x1b[31mb", "a\u202eb",
    "a\u200bb", "a\u2028b", "x" * 129, "a\x85b", "-", "-x", "--seed", "--", "\ud800",
    *(f"a{chr(c)}b" for c in (0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x180B, 0x200D, 0x2065, 0x2800, 0x3164,
                              0xFDD0, 0xFE0F, 0xFFA0, 0xFFF0, 0xFFFC, 0xFFFF, 0xE0100, 0xE0FFF)), "\u3164", "\u2800",
)  # fmt: skip
FRIENDLY = (
    "liver", "liver (whole)", "GTV+", "left kidney", "T1w", "T2-FLAIR", "12345", "2024_01", "a,b", "[x]", "{'a': 1}",
    "True", "None", "1e5", "x-", "x --seed", "Größe", "肝臓", "it's", 'say "x"', "a;b", "a|b", "a&b", "`id`", "x" * 128,
    "=1+2", "a.b", "C:", "~", "*", "?", "<b>x", "[red]x",
)  # fmt: skip
TEXTS = (*HOSTILE, *FRIENDLY, "$import os", "$@x", "@", "@a::b", "%", "%::x", "a@::b", "a%::b", "a @#b", "##",
         "%25", "/data/50% of me@home/x#1/$HOME")  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_configuration_or_a_path_could_obey_is_no_name(name):
    assert odd_in(name) is not None
    with pytest.raises(LabelError, match="cannot be the name of a structure") as caught:
        check_name(name, "structure", where="dataset.json")
    shown = str(caught.value)
    assert "dataset.json" in shown and shown.isprintable() is False and "\x1b" not in shown and "\u202e" not in shown
    with pytest.raises(LabelError):
        LabelSpace(("spleen", name))
    with pytest.raises(LabelError):
        LabelSpace.from_json({"background": 0, name: 1})


@pytest.mark.parametrize("name", FRIENDLY)
def test_ordinary_names_pass_unchanged(name):
    assert check_name(name, "structure") == name == check_file_name(name, "case")
    assert LabelSpace((name,)).names == (name,)


@pytest.mark.parametrize("name", ["CT|MR", "|", "CT | ", " | CT", "CT | a|b", "CT | $x", *HOSTILE])
def test_a_channel_of_data_is_one_name(name):
    with pytest.raises(DataError, match="cannot be the name of a channel"):
        check_channel(name, where="dataset.json", error=DataError)
    for good in ("T1 (post)", "CT | T2 MR", " | ".join(["x" * 128] * 2)):
        assert check_channel(good) == good


@pytest.mark.parametrize("given", [None, 3, ["a"], {"_target_": "os.system"}])
def test_what_is_no_text_is_no_name(given):
    with pytest.raises(DataError, match="not text"):
        check_name(given, "task", error=DataError)


@pytest.mark.parametrize("name", ["$x", "@x", "%x", "a#b", "a::b", "50% of me@home"])
def test_files_may_be_called_as_they_like_within_a_folder(name):
    assert check_file_name(name, "case") == name
    joined = f"\u0645\u06cc\u200c\u062e {name} \U0001f468\u200d\u2695\ufe0f"
    assert check_file_name(joined, "case") == joined
    for wrong in ("\u200d\ufe0f", f"{name}\u3164", f"{name}\u200b", f"../{name}", f"{name}\\x", f"{name}\n", ".."):
        with pytest.raises(LabelError):
            check_file_name(wrong, "case")


def read_back(value):
    """What a configuration makes of a value that an override brings, also behind a reference and in an expression."""
    parser = ConfigParser({"x": "", "behind": "@x", "more": {"deep": ["@x"]}, "joined": "$@x + '!'"})
    parser.update({"x": value})
    return [parser.get_parsed_content(key) for key in ("x", "behind", "more::deep::0", "joined")]


@pytest.mark.parametrize("text", TEXTS)
def test_text_reaches_a_configuration_as_itself(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_back(inert(text)) == [text, text, text, text + "!"]
    folder = tmp_path / "a #b @c %d 'e"
    held = write_literals(folder / "literals.json", {"x": text, "many": [{"image": text, "_target_": "os.system"}]})
    assert read_back(held["x"]) == [text, text, text, text + "!"]
    parser = ConfigParser({"data": held["many"]})
    assert parser.get_parsed_content("data") == [{"image": text, "_target_": "os.system"}]
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("text", [t for t in TEXTS if not is_plain(t) and t != "%::x"])
def test_what_is_not_plain_is_something_else_to_a_configuration(text, tmp_path, monkeypatch):
    """Otherwise the test above would prove nothing."""
    monkeypatch.chdir(tmp_path)
    try:
        found = read_back(text)[0]
    except Exception:
        return
    assert found != text


def test_only_what_would_be_misread_is_wrapped():
    assert inert("runs/a b/ct") == "runs/a b/ct"
    assert inert("$x") == {"_target_": "common.literals.value", "text": '"\\u0024x"'}
    assert inert("50% of me@home") == "50% of me@home"
    assert fire.Fire(lambda value: value, command=["--value", repr(inert("$x's"))]) == inert("$x's")


def test_a_missing_literal_says_what_to_do(tmp_path):
    write_literals(tmp_path / "l.json", {"a": 1})
    assert literal(str(tmp_path / "l.json"), "a") == 1
    for file, key in (("l.json", "b"), ("no.json", "a")):
        with pytest.raises(ConfigError, match="type the command"):
            literal(str(tmp_path / file), key)
    (tmp_path / "l.json").write_text("[]")
    with pytest.raises(ConfigError):
        literal(str(tmp_path / "l.json"), "a")
    assert json.loads((tmp_path / "l.json").read_text()) == []


def test_every_name_has_a_safe_folder_of_its_own():
    names = [
        "liver",
        "liver+",
        "Liver",
        "liver tumour",
        "liver_tumour",
        "+++",
        "---",
        "NUL",
        "a" * 300,
        "a" * 301,
        "../x",
        "x",
    ]
    found = folder_names(names, taken=["general"])
    assert list(found) == names
    folded = [f.casefold() for f in found.values()]
    assert len(set(folded)) == len(names)
    assert all(f.replace("_", "").isalnum() and len(f) < 140 for f in found.values())
    assert (found["liver"], found["liver_tumour"], found["x"]) == ("liver", "liver_tumour", "x")
    assert found["NUL"].casefold() != "nul"
    assert folder_names(["general"], taken=["general"])["general"] != "general"
    assert folder_names(["liver+"]) == {"liver+": "liver"}


def test_pictures_of_similar_names_are_different_files():
    texts = [
        "ct",
        "left kidney",
        "a/b",
        "a\\b",
        "a:b",
        "a?b",
        "..",
        "../x",
        "",
        "é",
        "x" * 300,
        "x" * 301,
        "-rf",
        "a\nb",
        "a b",
        "a_b",
    ]
    names = [file_name(text) for text in texts]
    assert len(set(names)) == len(texts) and names[0] == "ct" and names[1].startswith("left_kidney_")
    assert file_name("ä-1.5_b") == "ä-1.5_b" and file_name("CT / T2 MR").startswith("CT_T2_MR_")
    assert all(n and n[0] not in ".-" and "/" not in n and "\\" not in n and len(n) < 150 for n in names)


@pytest.mark.parametrize("cell", ["=1+2", "+1+2", "-2+3", "@SUM(A1)", "\tx", "\r=1", "=cmd|'/c calc'!A0"])
def test_no_spreadsheet_takes_text_for_a_formula(cell):
    assert spreadsheet_cell(cell) == "'" + cell


@pytest.mark.parametrize("cell", ["liver", "", "-1.5", "+3", "1e-3", "a=b", 0.25, None, -4])
def test_numbers_and_ordinary_cells_stay(cell):
    assert spreadsheet_cell(cell) == cell


def test_names_that_a_disk_may_take_for_one():
    composed, apart = "caf\u00e9", "cafe\u0301"
    for one, other in (("Case", "case"), (composed, apart), ("x", "x."), ("a ", "a"), ("\uff21", "a"),
                       ("\ufb01x", "fix"), ("\u212b", "\u00e5"), ("STRASSE", "stra\u00dfe"),
                       ("\u2460", "1")):  # fmt: skip
        assert disk_name(one) == disk_name(other), (one, other)
        assert same_on_disk([one, "else", other, one]) == [(one, other)]
        assert len({disk_name(f) for f in file_names([one, other]).values()}) == 2
        assert len({disk_name(f) for f in folder_names([one, other]).values()}) == 2
    assert same_on_disk(["a", "a", "b", "a_b", "a.b"]) == []
    assert file_names(["CT", "MR"]) == {"CT": "CT", "MR": "MR"}


def test_several_texts_make_one_name_of_their_own():
    pairs = [("a", "b_c"), ("a_b", "c"), ("a b", "c"), ("a", "b c"), ("a/b", "c"), ("", "a"), ("a", ""), ("a", "b")]
    assert len({file_name(*pair) for pair in pairs}) == len(pairs)
    assert file_name("ct", "case_7") == "ct_case_7"


@pytest.mark.parametrize("text", ["con", "NUL", "aux.x", "COM1", "lpt9.nii", "cafe\u0301", "\u212b"])
def test_a_file_is_no_device_and_no_spelling(text):
    assert file_name(text) != text and file_name(text) == file_name(text)


@pytest.mark.parametrize(
    "text", ["con", "NUL.txt", "COM\u00b9", "LPT\u00b3.json", "\uff23ON", "aux .tar.gz", "CONIN$", "con."]
)
def test_devices_of_windows_however_they_are_spelt(text):
    assert is_device(text) and not is_device(text[:2]) and not is_device(f"x{text}")
    assert not is_device(file_name(text)) and not is_device(folder_names([text])[text])


@pytest.mark.parametrize("text", ["\u809d" * 128, "\U0001f9e0" * 128, "\u00e4" * 128])
def test_a_long_name_leaves_room_for_an_ending(text, tmp_path):
    for name in (file_name(text), file_name(text + "x"), *folder_names([text, text + "x"]).values()):
        (tmp_path / f".{name}.some.hosts.name.123456.tmp").write_text("fits")
    assert file_name(text) != file_name(text + "x") and len(set(folder_names([text, text + "x"]).values())) == 2


@pytest.mark.parametrize("capitals", [str, str.upper])
def test_a_made_name_is_nobodys_real_one(capitals):
    """Whoever knows how names are made may be called so."""
    made = folder_names(["a_b", "a b"])["a b"]
    names = ["a_b", "a b", capitals(made)]
    while len(names) < 6:
        found = folder_names(names)
        assert found[names[2]] == names[2] and len({disk_name(f) for f in found.values()}) == len(names)
        names.append(found["a b"])
    assert disk_name(folder_names(["a b", "c"], taken=["a_b", made])["a b"]) not in ("a_b", disk_name(made))
    for text in ("a b", "a/b", "x" * 300, "con"):
        real = capitals(file_name(text))
        assert disk_name(file_name(real)) != disk_name(real) and file_name(real) == file_name(real)
    twins = ["Case", "case"]
    names = [*twins, *(capitals(f) for f in file_names(twins).values())]
    assert len({disk_name(f) for f in file_names(names).values()}) == 4
    assert file_name("case_1234567") == "case_1234567"


def test_equal_hashes_make_no_equal_names(monkeypatch):
    monkeypatch.setattr("common.literals._digest", lambda text: f"{len(text):08x}")
    for names in (["a b", "a?b", "a*b"], ["A b", "a b", "a?b"]):
        assert len({disk_name(f) for f in file_names(names).values()}) == 3
        assert len({disk_name(f) for f in folder_names(names).values()}) == 3
