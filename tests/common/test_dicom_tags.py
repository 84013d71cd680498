"""Each of DICOM's modalities is one of its own; the kind that several share does not make them one."""

import pytest

from common.contract import Contract
from common.dicom_tags import DICOM_KINDS, doubts, is_scan, leaves_open, of_dicom, unnamed
from common.errors import DataError
from common.modalities import is_ct, kind_of, meanings, same


def test_dicoms_tags_are_kinds_that_names_have() -> None:
    kinds = {m.kind for name in ("CT", "MR", "PT", "US", "NM", "XR", "photo", "OCT") for m in meanings(name)}
    assert set(DICOM_KINDS.values()) <= kinds
    for tag, kind in DICOM_KINDS.items():  # what it is called is of its kind
        assert kind_of(of_dicom(tag)) == kind, tag


def test_a_c_arm_s_cone_beam_ct_comes_as_xa() -> None:
    for name in ("CBCT", "cone-beam CT", "DVT", "DynaCT"):
        assert same(of_dicom("XA", [name]), name) is True and is_ct(name)
    assert of_dicom("XA", ["CT"]) == "XA" == of_dicom("XA") and same(of_dicom("XA", ["CTA"]), "CTA") is False
    assert of_dicom("CT", ["CBCT"]) == "CT" and of_dicom("OT") == "" == of_dicom("")


def told(own: str, tag: str) -> str:
    """Whether a model of a name reads scans with a tag: ``silent``, ``told`` or ``refused``."""
    try:
        return "told" if Contract((own,), {own: {"channels": [own]}}).fit(None, tag=tag).notes else "silent"
    except DataError:
        return "refused"


@pytest.mark.parametrize(("answer", "pairs"), [
    ("silent", "IVUS IVUS|XR DX|XR CR|histology SM|dermoscopy DMS|MRA MA|DXA BMD|CT CT|MR MR|PET PT|US US"),
    ("told", "mammography MG|MG MG|tomosynthesis MG|DSA XA|XA XA|CBCT XA|OCT OPT|OCTA OPT|fundus OP|colonoscopy ES|"
             "autofluorescence OP|endoscopy ES|NBI ES|fluoroscopy RF|CTA CT|abdominal CT CT|"
             "mammography DX|XR MG|XR XA|XR RF|XR PX|XR IO|XR RTIMAGE|photo SM|photo OP|photo TG|"
             "MR MS|T1 MR|OCT OPTENF|CT OT"),
    ("refused", "US IVUS|IVUS US|mammography XA|CXR MG|CXR XA|DSA MG|OCT IVOCT|"
                "IVOCT OPT|OCT OP|fundus SM|"
                "dermoscopy ES|fundus DMS|US BDUS|XR BMD|T2 MA|CT DS|CT EC|PET NM|CT TG|MR DG"),
])  # fmt: skip
def test_what_a_tag_is_taken_for(answer: str, pairs: str) -> None:
    found = {pair: told(*pair.rsplit(" ", 1)) for pair in pairs.split("|")}
    assert not {pair: f for pair, f in found.items() if f != answer}


def test_what_a_tag_leaves_open() -> None:
    assert leaves_open("CT") == "" == leaves_open("SM") == leaves_open("OT")
    assert "DSA" in leaves_open("XA") and "tomosynthesis" in leaves_open("MG")


def test_what_is_a_scan_by_its_tag() -> None:
    assert all(map(is_scan, [*DICOM_KINDS, "DS", "PT BQML", "CT US"]))
    assert not any(map(is_scan, ["", "OT", "SC", "DOC", "SR", "OTHER", "OT BQML"]))


def test_the_unit_is_part_of_the_name() -> None:
    assert [of_dicom(t) for t in ("PT BQML", "PT GML", "PT GML LBM", "PT CNTS", "PT UMOLML")] == [
        "PT BQML", "PT SUV", "PT SUL", "PT counts", "PT UMOLML"]  # fmt: skip
    assert of_dicom("CT US") == "CT" and same(of_dicom("CT ED"), "CT") is False
    assert same(of_dicom("PT BQML"), "SUV") is False and same(of_dicom("PT GML"), "SUV") is True


def test_what_nobody_says() -> None:
    assert doubts("", ["CT"]) == doubts("CT", ["CT"]) == doubts("PT GML", ["SUV"]) == doubts("MR", []) == []
    assert "RescaleType" in doubts("CT US", ["CT"])[0] and "Units" in doubts("PT BQML", ["PET", "PET"])[0]
    assert "no modality" in doubts("OT", ["CT"])[0] and "(CT)" in doubts("SC", ["CT"])[0]
    assert "MR contrast" in unnamed("MR", ["MR"])[0] and unnamed("MR", ["T2 MR"]) == unnamed("CT", ["CT"]) == []
    assert "fluoroscopy" in unnamed("XA", ["XA"])[0] and unnamed("XA", ["DSA"]) == []
