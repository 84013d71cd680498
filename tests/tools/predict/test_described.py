"""What a dataset.json beside scans says of them is read and compared, not left aside."""

import json

import nibabel as nib
import numpy as np
import pytest

from common.contract import OVERRIDE, Contract
from common.data.datasets.described import about_structures, described
from common.errors import DataError
from tests.tools.predict.test_check import weights
from tools.predict.check import Comparison
from tools.predict.command import segment
from tools.predict.scans import find_scans

LABELS = {"background": 0, "liver": 1, "spleen": 2}


@pytest.fixture
def raw(tmp_path):
    """An nnU-Net raw folder: ``raw("T1", "FLAIR")`` returns its ``imagesTs`` with one case."""

    def make(*channels, count=None, **more):
        folder = tmp_path / "Dataset007_x" / "imagesTs"
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count or len(channels)):
            nib.save(nib.Nifti1Image(np.full((4, 4, 4), i, np.float32), np.eye(4)), folder / f"a_{i:04d}.nii.gz")
        names = {str(i): c for i, c in enumerate(channels)}
        content = {"channel_names": names, "labels": LABELS, "numTraining": 1, "file_ending": ".nii.gz", **more}
        (folder.parent / "dataset.json").write_text(json.dumps(content))
        return folder

    return make


def model(*channels, taught=("liver", "spleen")):
    name = " + ".join(channels)
    return Contract(channels, {name: {"channels": list(channels)}}, {name: taught})


def compared(folder, contract, **options):
    found = Comparison(contract, **options)
    return found, [found.ordered(s) for s in find_scans(folder, len(contract.channels))]


def test_it_lies_beside_imagests_in_the_folder_or_lists_the_scan(raw, tmp_path):
    folder = raw("T2 MR")
    (scan,) = find_scans(folder)
    assert described(scan.files).channels == ("T2 MR",) and described(scan.files).structures == ("liver", "spleen")
    (one,) = find_scans(folder / "a_0000.nii.gz")
    assert described(one.files).file == folder.parent / "dataset.json"
    (folder.parent / "dataset.json").rename(folder / "dataset.json")
    assert described(scan.files).file == folder / "dataset.json"
    other = folder.rename(tmp_path / "Dataset007_x" / "scans")
    (other / "dataset.json").rename(other.parent / "dataset.json")
    (scan,) = find_scans(other)
    assert described(scan.files) is None  # of a folder beside it nobody says that it is of these data
    content = {"modality": ["CT | MR"], "labels": {"1": "liver"},
               "test": [{"image": "./scans/a_0000.nii.gz", "modality": "MR"}]}  # fmt: skip
    (other.parent / "dataset.json").write_text(json.dumps(content))
    assert described(scan.files)[1:4] == (("CT | MR",), "MR", ("liver",))
    (other / "dataset.json").write_text(json.dumps({"rows": 3}))
    assert described(scan.files) is None  # of another program


def test_another_modality_is_refused(raw, toy_bundle, tmp_path):
    weights(toy_bundle / "models" / "model.pt", "CT", stats=None)
    with pytest.raises(DataError, match="not what the model was trained on") as error:
        segment(toy_bundle, raw("T2 MR"), tmp_path / "out")
    assert error.value.got == "channel T2 MR" and OVERRIDE in error.value.hint
    segment(toy_bundle, raw("T2 MR"), tmp_path / "out", ignore_card=True)
    record = json.loads((tmp_path / "out" / "a_0000.nii.gz.record.json").read_text())
    assert any("T2 MR in the place of channel CT, as asked" in n for n in record["notes"])


def test_channels_are_read_in_the_models_order(raw):
    found, (scan,) = compared(raw("FLAIR", "T1"), model("T1", "FLAIR"))
    assert [p.name for p in scan.files] == ["a_0001.nii.gz", "a_0000.nii.gz"]
    assert any("are read in the model's order, T1, FLAIR" in n for n in found.notes)
    assert found.entry(scan, None) == {"modality": "T1 + FLAIR"}
    _, (straight,) = compared(raw("T1", "FLAIR"), model("T1", "FLAIR"))
    assert [p.name for p in straight.files] == ["a_0000.nii.gz", "a_0001.nii.gz"]


def test_a_file_that_is_one_of_several_channels_is_that_one(raw):
    folder = raw("T1", "FLAIR")
    found = Comparison(model("T1"))
    scans = find_scans(folder, 1)
    assert found.ordered(scans[0]) == scans[0] and found.said["a_0000"].channels == ("T1",)
    with pytest.raises(DataError, match="not what the model was trained on") as error:
        found.ordered(scans[1])
    assert error.value.got == "channel FLAIR"


def test_dicom_that_it_calls_something_else(raw, dicom_series):
    folder = raw("T2 MR")
    (folder / "a_0000.nii.gz").unlink()
    dicom_series(folder / "a", np.zeros((4, 4, 4), np.int16))
    both = Contract(("CT | T2 MR",), {n: {"channels": [n]} for n in ("CT", "T2 MR")})
    found, (scan,) = compared(folder, both)
    series = type("Source", (), {"slices": [type("Slice", (), {"modality": "CT"})()]})()
    with pytest.raises(DataError, match="DICOM says") as error:
        found.entry(scan, series)
    assert "dataset.json" in error.value.expected


def test_its_name_decides_where_the_model_knows_several(raw):
    both = Contract(("CT | T2 MR",), {n: {"channels": [n]} for n in ("CT", "T2 MR")})
    found, (scan,) = compared(raw("T2w"), both)
    assert found.entry(scan, None) == {"modality": "T2 MR"}


def test_a_description_that_contradicts_itself(raw):
    folder = raw("CT", modality={"0": "MR"})
    with pytest.raises(DataError, match="different things"):
        compared(folder, model("CT"))
    found, _ = compared(folder, model("CT"), ignore=True)
    assert "not compared, as asked" in found.notes[0]
    (folder.parent / "dataset.json").write_text("{")
    found, _ = compared(folder, model("CT"))
    assert "the scans are not compared with it" in found.notes[0]


def test_structures_that_the_model_was_not_taught(raw):
    (scan,) = find_scans(raw("CT"))
    said = described(scan.files)
    assert about_structures(said, model("CT")) == [] == about_structures(said, Contract())
    assert "not all that it names was taught" in about_structures(said, model("CT", taught=("Liver",)))[0]
    assert "none of the structures" in about_structures(said, model("CT", taught=("kidney",)))[0]
    (told,) = about_structures(said._replace(structures=("tumor",)), model("CT", taught=("tumor",)))
    assert "nobody says whether these are the same" in told
    found, _ = compared(raw("CT"), model("CT", taught=("kidney",)))
    assert sum("none of the structures" in n for n in found.notes) == 1
