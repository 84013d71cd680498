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
