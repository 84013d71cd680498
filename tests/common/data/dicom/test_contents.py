"""What lies beside a scan is no scan, and is told where it is left out."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data.dicom.contents import left_out, modality_tag, no_image, series_description
from common.data.dicom.series import read_dicom
from common.errors import DataError

VOXELS = np.zeros((6, 7, 8), np.int16)
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def said(_: int, data: Any, **tags: Any) -> None:
    for name, value in tags.items():
        setattr(data, name, value)
        if value is None:
            delattr(data, name)


def beside(dicom_series: Any, folder: Path, **tags: Any) -> Path:
    """A CT, and one more file before it."""
    dicom_series(folder, VOXELS)
    (one,) = dicom_series(folder.parent / "one", VOXELS[..., :1], change=partial(said, **tags)).iterdir()
    return one.rename(folder / "0.dcm")


@pytest.mark.parametrize(("tags", "words"), [
    ({"Modality": "SR"}, "a report (SR)"), ({"Modality": "DOC"}, "a document (DOC)"),
    ({"Modality": "RTPLAN"}, "a treatment plan (RTPLAN)"), ({"Modality": "REG"}, "a registration (REG)"),
    ({"Modality": "OT", "ImagePositionPatient": None}, "a picture without a place in the patient (OT)"),
    ({"SOPClassUID": CAPTURE, "ImagePositionPatient": None}, "a picture without a place in the patient (SC)"),
])  # fmt: skip
def test_what_lies_beside_a_ct(
    dicom_series: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, tags: dict[str, Any], words: str
) -> None:
    beside(dicom_series, tmp_path / "ct", **tags)
    found = read_dicom(tmp_path / "ct")
    assert found.image.shape == (1, 6, 7, 8) and found.notes == (f"left out 0.dcm: {words}",)
    assert f"left out 0.dcm: {words}" in caplog.text and modality_tag(tmp_path / "ct") == "CT"
    assert left_out(tmp_path / "ct", [s.path for s in found.slices]) == list(found.notes)


@pytest.mark.parametrize("tags", [{"Modality": "OT"}, {"SOPClassUID": CAPTURE}])
def test_another_series_is_no_ct_for_lying_beside_one(dicom_series: Any, tmp_path: Path, tags: dict[str, Any]) -> None:
    beside(dicom_series, tmp_path / "ct", **tags)
    assert modality_tag(tmp_path / "ct") == "CT"
    with pytest.raises(DataError, match="2 series"):
        read_dicom(tmp_path / "ct")
    assert modality_tag(tmp_path / "ct" / "0.dcm") in ("OT", "SC")


def test_all_there_is(dicom_series: Any, tmp_path: Path) -> None:
    folder = dicom_series(tmp_path / "s", VOXELS, change=partial(said, Modality="DOC", SeriesDescription="Dose"))
    assert modality_tag(folder) == "" == series_description(folder) and no_image(folder) == ("DOC", "a document")
    with pytest.raises(DataError, match="a document"):
        read_dicom(folder)
    scans = dicom_series(tmp_path / "t", VOXELS, change=partial(said, SeriesDescription="t2_tse"))
    assert series_description(scans) == "t2_tse" and no_image(scans) is None
