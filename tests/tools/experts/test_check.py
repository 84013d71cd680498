"""``experts check`` passes an expert that is heard as at home, and says what differs otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.errors import ConfigError, DataError, ExpertError
from common.experts.answers.at_home import HomeNNUNet
from tests.common.experts.answers.nnunets import decided, scan, spec_of
from tests.nnunet_folders import write_folder
from tools.__main__ import main
from tools.experts.check import check
from tools.experts.command import Experts


@pytest.fixture
def described(tmp_path: Path) -> tuple[Path, Path]:
    """A description, and a scan that the expert can read."""
    given = scan("LPS")
    spec = spec_of(decided(write_folder(tmp_path, transpose=(2, 0, 1)), given, "RAS"))
    (tmp_path / "expert.json").write_text(json.dumps(spec.to_dict()))
    nib.save(nib.Nifti1Image(given[0].numpy(), np.asarray(given.affine)), tmp_path / "scan.nii.gz")
    return tmp_path / "expert.json", tmp_path / "scan.nii.gz"


def test_passes(described: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    expert, file = described
    Experts().check(str(expert), str(file))
    told = capsys.readouterr().out
    assert "liver" in told and "all foreground" in told and "what the grid alone costs" in told


def test_says_what_differs(described: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    expert, file = described
    judge = HomeNNUNet.judge

    def elsewhere(self: HomeNNUNet, given: Any) -> Any:
        return judge(HomeNNUNet(replace(self.spec, orientation="PIR")), given)

    monkeypatch.setattr(HomeNNUNet, "judge", elsewhere)
    with pytest.raises(ExpertError, match="not heard as it speaks at home") as error:
        Experts().check(str(expert), str(file))
    assert "scan: foreground 0." in str(error.value)
    spec = json.loads(expert.read_text())
    line = f"tools experts describe {spec['path']} expert.json --task {spec['task']} --training_files FOLDER"
    assert line in str(error.value)


def test_what_was_found_is_written(described: tuple[Path, Path], tmp_path: Path) -> None:
    expert, file = described
    Experts().check(str(expert), str(file), mirroring=False, out=str(tmp_path / "found.json"))
    (scan,) = json.loads((tmp_path / "found.json").read_text())["scans"].values()
    assert scan["foreground"] >= 0.995 and set(scan["structures"]) == {"liver", "spleen"}


def test_channels_in_files_of_any_name(tmp_path: Path) -> None:
    given = scan("LPS", channels=2)
    spec = spec_of(decided(write_folder(tmp_path, channel_names=("T1", "T2")), given, "RAS"))
    (tmp_path / "expert.json").write_text(json.dumps(spec.to_dict()))
    files = [tmp_path / "first.nii.gz", tmp_path / "b.nii.gz"]
    for channel, file in zip(given.numpy(), files, strict=True):
        nib.save(nib.Nifti1Image(channel, np.asarray(given.affine)), file)
    (found,) = check(tmp_path / "expert.json", files, together=True)
    assert not found.below
    with pytest.raises(DataError):
        check(tmp_path / "expert.json", files)


def test_needs_a_scan(described: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match="checked on a scan"):
        Experts().check(str(described[0]))


@pytest.mark.parametrize(
    ("given", "words"),
    [({"spacing": "abc"}, "--spacing"), ({"spacing": ("abc",)}, "--spacing"), ({"spacing": (1, 1)}, "--spacing"),
     ({"spacing": (1, 1, 0)}, "--spacing"), ({"spacing": (1, 1, float("nan"))}, "--spacing"),
     ({"spacing": (1e-7,) * 3}, "--spacing: the student's grid would have too many voxels"),
     ({"orientation": "$x"}, "--orientation"), ({"orientation": "RAA"}, "--orientation"),
     ({"orientation": ""}, "--orientation"), ({"folds": "٣"}, "--folds"), ({"folds": "9" * 5000}, "--folds"),
     ({"out": "x" * 300}, "too long"), ({"out": "a\0b"}, "a character that no name has")],
)  # fmt: skip
def test_what_an_option_cannot_be_is_refused(described: tuple[Path, Path], given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Experts().check(str(described[0]), str(described[1]), **given)


@pytest.mark.parametrize("words", [
    ["--spacing", "abc"], ["--spacing=1,a,1"], ["--spacing={1}"], ["--spacing=nan,1,1"], ["--spacing=1e999,1,1"],
    ["--orientation=$x"], ["--folds=٣"], ["--mirroring=perhaps"], ["--together=2"], ["--spacing=" + "[" * 5000],
])  # fmt: skip
def test_typed_options_are_refused_by_name(
    described: tuple[Path, Path], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experts", "check", str(described[0]), str(described[1]), *words]) == 2
    told = capsys.readouterr().err
    assert words[0].split("=")[0] in told and "Traceback" not in told and len(told) < 1000


def test_scans_that_it_does_not_read(described: tuple[Path, Path], dicom_series: Callable[..., Any]) -> None:
    expert, file = described
    content = {"channel_names": {"0": "T2 MR"}, "labels": {"liver": 1}}
    (file.parent / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="not what the model was trained on") as error:
        Experts().check(str(expert), str(file))
    assert error.value.got == "channel T2 MR" and "on scans that it reads" in str(error.value.hint)
    dicom_series(file.parent / "series", np.zeros((8, 8, 4), np.int16))
    (file.parent / "dataset.json").unlink()
    with pytest.raises(DataError, match="not what the model was trained on") as error:
        Experts().check(str(expert), str(file.parent / "series"))
    assert error.value.got == "CT"
