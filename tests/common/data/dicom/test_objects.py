"""What a DICOM file is: a scan with its modality and unit, something else, or a picture of a screen."""

import pydicom
import pytest

from common.data.dicom.objects import no_scan, picture, told_tag

STORAGE = "1.2.840.10008.5.1.4.1.1."
PLACE = [0, 0, 0]


def header(modality: str = "", sop: str = "2", **tags: object) -> pydicom.Dataset:
    data = pydicom.Dataset()
    data.Modality, data.SOPClassUID = modality, STORAGE + sop
    for name, value in tags.items():
        setattr(data, name, value)
    return data


@pytest.mark.parametrize(("tag", "data"), [
    ("CT", header("CT")), ("CT", header("CT", RescaleType="HU")), ("CT US", header("CT", RescaleType="US")),
    ("CT Z_EFF", header("CT", RescaleType="Z_EFF")), ("PT", header("PT")), ("PT BQML", header("PT", Units="BQML")),
    ("PT GML", header("PT", Units="GML")), ("PT GML LBM", header("PT", Units="GML", SUVType="LBM")),
    ("PT CNTS", header("PT", Units="cnts ")), ("MR", header("MR", RescaleType="US")), ("SC", header("CT", "7")),
    ("SC", header("MR", "7.2")), ("OT", header("OT")), ("", header()), ("OTHER", header("C T")),
    ("CT OTHER", header("CT", RescaleType="@x=1")),
])  # fmt: skip
def test_modality_and_unit(tag: str, data: pydicom.Dataset) -> None:
    assert told_tag(data) == tag


def test_the_unit_of_an_enhanced_image_is_that_of_its_frames() -> None:
    value = pydicom.Dataset()
    value.RescaleType = "US"
    assert told_tag(header("CT"), value) == "CT US" and told_tag(header("CT"), pydicom.Dataset()) == "CT"


@pytest.mark.parametrize(("tag", "data"), [
    (t, header(t)) for t in ("DOC", "SR", "PR", "REG", "RTPLAN", "RTDOSE", "KO", "AU", "RWV", "FID", "ECG")
] + [("SR", header("CT", "88.67")), ("PR", header("MR", "11.1")), ("DOC", header("OT", "104.1")),
     ("RTDOSE", header("CT", "481.2")), ("SEG", header("CT", "66.4"))])  # fmt: skip
def test_what_is_no_scan(tag: str, data: pydicom.Dataset) -> None:
    found = no_scan(data)
    assert found is not None and found[0] == tag and found[1]


def test_images_are_none_of_these() -> None:
    for data in (
        header("CT"),
        header("MR", "4"),
        header("PT", "128"),
        header("OT"),
        header("CT", "7"),
        header("US", "6.1"),
    ):
        assert no_scan(data) is None


def test_a_picture_of_a_screen_has_no_place() -> None:
    assert picture(header("OT", "7")) == ("SC", "a picture without a place in the patient")
    assert picture(header("CT", "7")) is not None and picture(header("OT")) is not None
    assert picture(header("CT", "7", ImagePositionPatient=PLACE)) is None and picture(header("CT")) is None
