"""What a label server looks for on a DICOMweb service: DICOM's own name of the modality that a model was taught on."""

import json
from pathlib import Path

import pytest

from common.errors import ConfigError
from tools.label.server import dicomweb


def searched(names: list[str], modality: str | None = None) -> str:
    return json.loads(dicomweb(Path("app"), modality, names)["MONAI_LABEL_DICOMWEB_SEARCH_FILTER"])["Modality"]


@pytest.mark.parametrize(("names", "tag"), [
    (["CTA"], "CT"), (["CT", "contrast CT"], "CT"), (["LGE MR", "FLAIR"], "MR"), (["MRI"], "MR"), (["FDG-PET"], "PT"),
    (["ultrasound"], "US"), (["SPECT"], "NM"), (["OCT"], "OPT"), (["fundus"], "OP"), (["colonoscopy"], "ES"),
    (["OP"], "OP"), (["histology"], "SM"), (["MG"], "MG"), (["X-ray DX"], "DX"), (["CBCT"], "CT"),
])  # fmt: skip
def test_what_a_model_s_names_mean_is_looked_for(names: list[str], tag: str) -> None:
    assert searched(names) == tag


@pytest.mark.parametrize("names", [["PET CT"], ["PET-CT"], ["CT", "T2 MR"], ["CT", "image"], ["chest X-ray"], []])
def test_several_or_none_have_to_be_said(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="say which series") as caught:
        searched(names)
    assert "CT" in str(caught.value.expected)


def test_what_is_said_is_a_tag_of_dicom() -> None:
    assert searched(["PET CT"], "pt") == "PT"
    with pytest.raises(ConfigError, match="say which series") as caught:
        searched([], "MRI")
    assert caught.value.got == "MRI" and "MR" in str(caught.value.hint)
