"""A label server tells of a study what ``predict`` tells of a scan: DICOM's words, and a ``dataset.json`` beside it."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.contract import Contract
from common.data.requests.card import CompareWithCardd
from common.data.requests.study import compared, place_of
from common.errors import DataError


def model(*names):
    """A model of one channel, of these modalities."""
    return Contract((" | ".join(names),), {n: {"channels": [n]} for n in names}, {n: (f"organ of {n}",) for n in names})


@pytest.fixture
def series(tmp_path, dicom_series):
    """``series("MR")`` is a study as an archive's: the file, beside the folder of its slices."""

    def make(tag, **tags):
        def change(_number, data):
            data.Modality = tag
            for name, value in tags.items():
                setattr(data, name, value)

        dicom_series(tmp_path / "1.2.3", np.zeros((4, 4, 4), np.int16), change=change)
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), tmp_path / "1.2.3.nii.gz")
        return tmp_path / "1.2.3.nii.gz"

    return make


@pytest.fixture
def study(tmp_path):
    """``study("T1")`` lies in a folder whose ``dataset.json`` says so."""

    def make(*channels, **more):
        folder = tmp_path / "raw" / "imagesTs"
        folder.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), folder / "a.nii.gz")
        content = {"channel_names": {str(i): c for i, c in enumerate(channels)}, "labels": {"liver": 1}, **more}
        (folder.parent / "dataset.json").write_text(json.dumps(content))
        return folder / "a.nii.gz"

    return make


@pytest.mark.parametrize(
    ("tag", "name", "words"),
    [("MR", "T2 MR", "MR is taken for T2 MR"), ("CT", "CT arterial", "CT arterial"), ("US", "TRUS", "TRUS")],
)
def test_what_dicom_leaves_open_is_told(series, tag, name, words):
    file = series(tag)
    contract = model(name)
    (note,) = compared(file, contract).notes
    assert words in note and note == contract.fit(None, tag=tag, where=file.name).notes[0]
    assert (
        compared(file.with_name("1.2.3"), contract).notes[0].endswith(note.partition(": ")[2])
    )  # of the series itself


def test_units_are_read_and_what_is_something_else_is_refused(series):
    file = series("PT", Units="BQML")
    with pytest.raises(DataError, match="not what the model was trained on"):
        compared(file, model("SUV"))
    assert any("numbers of this PET are BQML" in note for note in compared(file, model("PET")).notes)
    with pytest.raises(DataError, match="the request and DICOM say different things"):
        compared(file, model("CT", "PET"), "CT")


def test_a_dataset_json_is_read(study):
    with pytest.raises(DataError, match="not what the model was trained on"):
        compared(study("T1"), model("T2 MR"))
    with pytest.raises(DataError, match=r"the request and dataset.json say different things"):
        compared(study("CT"), model("CT", "T2 MR"), "T2 MR")
    found = compared(study("T2w"), model("CT", "T2 MR"))
    assert found.modalities == ("T2 MR",)
    assert found.notes[0].startswith("dataset.json: none of the structures")
    both = Contract(("T1", "FLAIR"), {"MR": {"channels": ["T1", "FLAIR"]}})
    with pytest.raises(DataError, match="in another order"):
        compared(study("FLAIR", "T1"), both)
    file = study("T1")
    (file.parent.parent / "dataset.json").write_text("{")
    assert "not compared with it" in compared(file, model("T2 MR")).notes[0]
    (file.parent.parent / "dataset.json").unlink()
    assert compared(file, model("T2 MR")) == ((("T2 MR"),), ())


def test_the_server_s_transform_hands_it_on(series, caplog):
    file = series("MR")
    image = MetaTensor(torch.zeros(1, 4, 4, 4), meta={"filename_or_obj": str(file)})
    compare = CompareWithCardd(["T2 MR"], {"T2 MR": {"channels": ["T2 MR"]}}, taught={"T2 MR": ["liver"]})
    notes = compare({"image": image, "notes": ["before"]})["notes"]
    assert notes[0] == "before" and "MR is taken for T2 MR" in notes[1] and notes[1] in caplog.text
    with pytest.raises(DataError, match="not what the model was trained on"):
        CompareWithCardd(["CT"], {"CT": {"channels": ["CT"]}})({"image": image})
    assert place_of(torch.zeros(1)) is None and place_of(MetaTensor(torch.zeros(1))) is None
