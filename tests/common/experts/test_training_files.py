"""The orientation of an expert's training scans comes from these, or is refused where they do not agree."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from common.errors import AmalgamationError, ExpertError
from common.experts.training_files import orientation_of
from tests.common.experts.answers.nnunets import scan


def save(file: Path, axcodes: str) -> None:
    given = scan(axcodes)
    nib.save(nib.Nifti1Image(given[0].numpy(), np.asarray(given.affine)), file)


@pytest.mark.parametrize("axcodes", ["LPS", "PIR"])
def test_all_files_agree(tmp_path: Path, axcodes: str) -> None:
    (tmp_path / "raw" / "imagesTr").mkdir(parents=True)
    (tmp_path / "raw" / "dataset.json").write_text("{}")
    for name in ("a_0000.nii.gz", "b_0000.nii.gz", "b_0001.nii"):
        save(tmp_path / "raw" / "imagesTr" / name, axcodes)
    assert orientation_of(tmp_path / "raw") == orientation_of(tmp_path / "raw" / "imagesTr") == axcodes


def test_other_kinds_of_files_are_read_too(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 6, 7), np.int16)), str(tmp_path / "a.mha"))
    assert orientation_of(tmp_path) == "LPS"  # ITK's own axes run to the left, the back and the head


def test_several_orientations_are_refused_with_what_was_found(tmp_path: Path) -> None:
    for name, codes in (("a", "LPS"), ("b", "RAS"), ("c", "LPS")):
        save(tmp_path / f"{name}.nii.gz", codes)
    with pytest.raises(ExpertError, match=r"(?s)several orientations.*LPS \(2, such as a.*RAS \(1, such as b") as error:
        orientation_of(tmp_path)
    assert "--orientation LPS" in str(error.value.hint)


def test_no_files_and_broken_ones(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ExpertError, match="no volumes"):
            orientation_of(place)
    (tmp_path / "a.nii.gz").write_bytes(b"nothing")
    with pytest.raises(AmalgamationError, match=r"a\.nii\.gz"):
        orientation_of(tmp_path)
