import pytest
from pydicom.sr.codedict import codes

from common.data.dicom.codes import _CHANGES, _ORGANS, PRIVATE_SCHEME, meaning

pytest.importorskip("highdicom", exc_type=ImportError)  # which brings a pydicom that has all of these codes


@pytest.mark.parametrize(
    ("name", "value", "side", "region"),
    [
        ("liver", "10200004", None, None),
        ("Left Kidney", "64033007", "7771000", None),
        ("kidney_right", "64033007", "24028007", None),
        ("right adrenal gland", "23451007", "24028007", None),
        ("left parotid", "45289007", "7771000", None),
        ("left atrium", "82471001", None, None),
        ("inferior vena cava", "64131007", None, None),
        ("oesophagus", "32849002", None, None),
        ("esophagus", "32849002", None, None),
        ("tumour", "108369006", None, None),
        ("liver tumour", "108369006", None, "10200004"),
        ("brain edema", "79654002", None, "12738006"),
    ],
)
def test_known_names(name, value, side, region):
    found = meaning(name)
    assert found.known and found.type.value == value
    assert (found.side.value if found.side else None) == side
    assert (found.region.value if found.region else None) == region


@pytest.mark.parametrize(
    "name", ["prostate/uterus", "portal and splenic vein", "left liver", "gland", "Мозг", "x" * 90]
)
def test_unknown_names_stay_private_and_say_so(name):
    found = meaning(name)
    assert not found.known and found.type.scheme_designator == PRIVATE_SCHEME
    assert len(found.type.value) <= 16 and found.type.meaning == name[:64]
    assert found.category == codes.cid7150.SpatialAndRelationalConcept
    assert meaning(name) == found != meaning(name + "2")


def test_every_code_is_one_of_dicoms_and_means_what_the_name_says():
    for name, keyword in {**_ORGANS, **_CHANGES}.items():
        code = getattr(codes.SCT, keyword)
        assert code.scheme_designator == "SCT" and code.value.isdigit()
        assert code == meaning(name).type
        said = code.meaning.lower().replace(" ", "")
        assert name.replace(" ", "") in said or name == "tumor"
    for found in (meaning("liver").category, meaning("tumour").category):
        assert found in (codes.cid7150.AnatomicalStructure, codes.cid7150.MorphologicallyAbnormalStructure)
