"""ImageType says that an image is a projection, a localizer or a map, and is read as the same word in a name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.contract import Contract
from common.data.datasets.convert_channels import told_channels
from common.data.datasets.dataset_json import Case
from common.data.dicom.contents import modality_tag
from common.data.dicom.image_type import image_words
from common.data.dicom.series import read_dicom
from common.dicom_tags import doubts, is_scan, of_dicom, unnamed
from common.errors import DataError


@pytest.mark.parametrize(("kind", "values", "words"), [
    ("CT", r"DERIVED\SECONDARY\AXIAL\MIP", "MIP"), ("PT", r"DERIVED\SECONDARY\MIP", "MIP"),
    ("CT", r"ORIGINAL\PRIMARY\LOCALIZER", "localizer"), ("CT", r"DERIVED\PRIMARY\AXIAL\DET_IODINE", "iodine"),
    ("CT", r"DERIVED\PRIMARY\AXIAL\DET_VNC", "VNC"), ("CT", r"DERIVED\PRIMARY\VOLUME\VMI", "monoenergetic"),
    ("CT", r"DERIVED\PRIMARY\VOLUME\EFF_ATOMIC_NUM", "Zeff"), ("MR", r"DERIVED\SECONDARY\OTHER\MIN_IP", "minIP"),
    ("MR", r"DERIVED\PRIMARY\DIFFUSION\ADC\ND\NORM", "ADC"), ("MR", r"DERIVED\PRIMARY\DIFFUSION\TRACEW", "trace"),
    ("MR", r"DERIVED\PRIMARY\DIFFUSION\FA", "FA"), ("MR", r"ORIGINAL\PRIMARY\DIFFUSION\NONE", "DWI"),
    ("MR", r"ORIGINAL\PRIMARY\P\ND", "phase"), ("MR", r"ORIGINAL\PRIMARY\PHASE MAP\P\PCA", "phase"),
    ("MR", r"DERIVED\PRIMARY\W\W\DERIVED", "water"), ("MR", r"DERIVED\PRIMARY\T2_STAR MAP", "T2star map"),
    ("MR", r"DERIVED\SECONDARY\MODULUS SUBTRACT", "subtraction"), ("MR", r"DERIVED\PRIMARY\T1 MAP", "T1 map"),
    ("MR", r"DERIVED\PRIMARY\PERFUSION\RCBF", "CBF"),
    ("CT", r"ORIGINAL\PRIMARY\AXIAL\CT_SOM5 SPI", ""), ("CT", r"DERIVED\SECONDARY\MPR", ""), ("CT", "", ""),
    ("CT", r"ORIGINAL\PRIMARY\AXIAL\P", ""), ("MR", r"ORIGINAL\PRIMARY\M_FFE\M\FFE", ""), ("CT", "MIP", ""),
    ("MR", r"ORIGINAL\PRIMARY\M\NORM\DIS2D", ""), ("MR", r"DERIVED\PRIMARY\IN_PHASE", ""),
    ("CT", r"DERIVED\PRIMARY\AXIAL\MIPS", ""),
])  # fmt: skip
def test_its_words(kind: str, values: str, words: str) -> None:
    assert image_words(values.split("\\"), kind) == words


def model(name: str) -> Contract:
    return Contract((name,), {name: {"channels": [name]}})


@pytest.fixture
def typed(tmp_path: Path, dicom_series: Callable[..., Any]) -> Callable[..., Path]:
    """A series of a modality and an ImageType; ``first`` slices have it, the others are ordinary."""

    def make(kind: str, values: str, first: int = 9) -> Path:
        def change(number: int, data: Any) -> None:
            data.Modality = kind
            data.ImageType = (values if number < first else r"ORIGINAL\PRIMARY\AXIAL").split("\\")

        folder: Path = dicom_series(tmp_path / values.replace("\\", "_"), np.zeros((6, 6, 4), np.int16), change=change)
        return folder

    return make


@pytest.mark.parametrize(("kind", "values", "name"), [
    ("CT", r"ORIGINAL\PRIMARY\LOCALIZER", "CT"), ("CT", r"DERIVED\PRIMARY\AXIAL\DET_IODINE", "CT"),
    ("MR", r"DERIVED\PRIMARY\DIFFUSION\ADC", "T2 MR"), ("MR", r"DERIVED\PRIMARY\DIFFUSION\ADC", "DWI"),
])  # fmt: skip
def test_what_is_another_thing_is_refused(typed: Callable[..., Path], kind: str, values: str, name: str) -> None:
    folder = typed(kind, values)
    tag = modality_tag(folder)
    assert is_scan(tag) and read_dicom(folder).slices[0].modality == tag
    with pytest.raises(DataError, match="not what the model was trained on"):
        model(name).fit(None, tag=tag)
    case = Case("a", (folder,), None, "a")
    with pytest.raises(DataError, match="DICOM says that the scan is something else"):
        told_channels([name], [case], "x")
    assert told_channels(None, [case], "x") == (of_dicom(tag),)


@pytest.mark.parametrize(("kind", "values", "name", "words"), [
    ("CT", r"DERIVED\SECONDARY\AXIAL\MIP", "CT", "CT MIP is taken for CT"),
    ("MR", r"DERIVED\PRIMARY\DIFFUSION\ADC", "MR", "MR ADC is taken for MR"),
    ("MR", r"DERIVED\SECONDARY\MODULUS SUBTRACT", "T1 MR", "MR subtraction is taken for T1 MR"),
])  # fmt: skip
def test_what_may_be_is_told(typed: Callable[..., Path], kind: str, values: str, name: str, words: str) -> None:
    tag = modality_tag(typed(kind, values))
    assert any(words in note for note in model(name).fit(None, tag=tag).notes)
    assert any("(ImageType), which its name does not say" in line for line in doubts(tag, (name,)))
    assert doubts(tag, (of_dicom(tag),)) == []


def test_an_ordinary_slice_speaks_for_the_folder(typed: Callable[..., Path]) -> None:
    assert modality_tag(typed("CT", r"ORIGINAL\PRIMARY\LOCALIZER", first=1)) == "CT"
    assert modality_tag(typed("CT", r"ORIGINAL\PRIMARY\AXIAL")) == "CT"


def test_a_unit_stays_beside_it() -> None:
    assert of_dicom("PT BQML; MIP") == "PT BQML MIP" and of_dicom("CT Z_EFF; MIP") == "CT Zeff MIP"
    assert len(doubts("PT BQML; MIP", ("PET",))) == 2 and len(doubts("CT US; MIP", ("CT",))) == 2
    assert unnamed("MR; ADC", ("MR",)) == [] and unnamed("MR; MIP", ("MR",)) != []
