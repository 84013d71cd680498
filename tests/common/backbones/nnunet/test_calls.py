"""Calls into nnU-Net: quiet, and every exception of its own is a refusal that says where."""

import re
import warnings

import pytest

from common.backbones.nnunet.calls import asked, check_size, quiet
from common.errors import DataError, ExpertError, WeightError
from common.geometry import most_voxels


def test_quiet_keeps_nnunets_words_back_and_no_others(capsys, recwarn):
    with quiet():
        print("nnU-Net's")
        warnings.warn("nnU-Net's", stacklevel=1)
    print("ours")
    warnings.warn("ours", stacklevel=1)
    assert capsys.readouterr().out == "ours\n" and [str(w.message) for w in recwarn] == ["ours"]


@pytest.mark.parametrize(
    "wrong",
    [
        KeyError("spacing"),
        ZeroDivisionError(),
        MemoryError("12 PiB"),
        OSError("x"),
        RecursionError(),
        AssertionError(),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"),
    ],
)
def test_what_nnunet_raises_is_a_refusal(wrong):
    with pytest.raises(ExpertError, match="nnU-Net cannot work") as caught, asked("folder, scan", error=ExpertError):
        raise wrong
    assert caught.value.where == "folder, scan" and caught.value.__cause__ is wrong
    assert type(wrong).__name__ in str(caught.value)


def test_a_refusal_and_an_interrupt_pass_as_they_are():
    for kind in (DataError("zero everywhere"), KeyboardInterrupt()):
        with pytest.raises(type(kind)) as caught, asked("folder"):
            raise kind
        assert caught.value is kind


@pytest.mark.parametrize("target", [[1e-4] * 3, [1e5] * 3, [1e-300] * 3, [1.0, 1.0, 100.0], [1e-6, 1e-6]])
def test_a_scan_is_not_resampled_to_nothing_nor_without_end(target):
    with pytest.raises(WeightError, match="cannot be resampled") as caught:
        check_size([20, 20, 20], [1.0, 1.0, 1.0], target, channels=1, where="folder, case a")
    assert caught.value.where == "folder, case a" and f"{most_voxels(24):,}" in str(caught.value.expected)
    check_size([20, 20, 20], [1.0, 1.0, 1.0], [0.5, 2.0], channels=4, where="folder")


def test_what_a_machine_holds_is_shared_by_the_channels():
    assert re.fullmatch("[0-9]+", str(most_voxels(24))) and 1 <= most_voxels(2400) <= most_voxels(24) <= 2**31
