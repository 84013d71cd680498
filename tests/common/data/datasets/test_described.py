"""Every command that takes a folder of scans and a name of theirs reads the ``dataset.json`` that they belong to."""

import json

import nibabel as nib
import numpy as np
import pytest

from common.data.datasets.convert import convert_pairs
from common.data.datasets.described import told_and_described
from common.data.slices.unlabelled import unlabelled_images
from common.errors import DataError


@pytest.fixture
def raw(tmp_path):
    """An nnU-Net raw folder: ``raw("T1", "FLAIR")`` returns its ``imagesTs`` with one case."""

    def make(*channels, count=None):
        folder = tmp_path / "Dataset007_x" / "imagesTs"
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(count or len(channels)):
            nib.save(nib.Nifti1Image(np.full((4, 4, 4), i, np.float32), np.eye(4)), folder / f"a_{i:04d}.nii.gz")
        content = {"channel_names": {str(i): c for i, c in enumerate(channels)}, "labels": {"liver": 1}}
        (folder.parent / "dataset.json").write_text(json.dumps(content))
        return folder

    return make


def test_a_folder_and_what_a_user_says_of_it(raw, tmp_path):
    folder = raw("FLAIR", "T1")
    files = {"a": tuple(sorted(folder.iterdir()))}
    with pytest.raises(DataError, match="another order") as error:
        told_and_described(("T1", "FLAIR"), files, where=folder)
    assert "--channels FLAIR,T1" in error.value.hint
    with pytest.raises(DataError, match="another order") as error:
        told_and_described(("T1", "FLAIR"), files, where=folder, option="scans")
    assert "--scans FLAIR+T1=FOLDER" in error.value.hint
    each = {p.name: (p,) for p in files["a"]}
    with pytest.raises(DataError, match="of several kinds") as error:
        told_and_described(("MR",), each, where=folder)
    assert "FLAIR: a_0000.nii.gz" in error.value.got
    assert told_and_described(("MR",), each, where=folder, mixed=True).names == ("MR",)
    own = {**json.loads((folder.parent / "dataset.json").read_text()), "unlabelled": []}
    (folder.parent / "dataset.json").write_text(json.dumps(own))
    written = told_and_described(("T1", "FLAIR"), files, where=folder, written=folder.parent / "dataset.json")
    assert written == (("T1", "FLAIR"), ())  # ours, about to be written anew
    (folder.parent / "dataset.json").write_text("{")
    (note,) = told_and_described(("T1", "FLAIR"), files, where=folder).notes
    assert "are not compared with it" in note


def test_convert_reads_it(raw, tmp_path, caplog):
    folder, labels = raw("FLAIR", "T1"), tmp_path / "Dataset007_x" / "labelsTs"
    labels.mkdir()
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), labels / "a.nii.gz")
    options = {"name": "x", "structures": {"liver": 1}}
    with pytest.raises(DataError, match="another order"):
        convert_pairs(folder, labels, tmp_path / "out", channels=("T1", "FLAIR"), **options)
    assert not (tmp_path / "out" / "dataset.json").exists()
    found = convert_pairs(folder, labels, tmp_path / "out", channels=("FLAIR", "T1"), **options)
    assert found.channels == ("FLAIR", "T1")
    for name in folder.iterdir():
        name.unlink()
    raw("T2 MR")
    with pytest.raises(DataError, match="something else"):
        convert_pairs(folder, labels, tmp_path / "out", channels=("CT",), **options)
    assert convert_pairs(folder, labels, tmp_path / "out", channels=("MRI",), **options).channels == ("T2 MR",)
    assert "tells more than MRI" in caplog.text
    with pytest.raises(DataError, match="nobody says what the scans are") as error:
        convert_pairs(folder, labels, tmp_path / "out", **options)
    assert "--channels 'T2 MR'" in error.value.hint
    convert_pairs(folder, labels, folder.parent, channels=("T2 MR",), **options)
    again = convert_pairs(folder, labels, folder.parent, channels=("T1 MR",), **options)
    assert again.channels == ("T1 MR",)  # what was written by an earlier call is corrected


def test_a_plain_folder_of_images_reads_it(raw, caplog):
    folder = raw("T2 MR")
    with pytest.raises(DataError, match="something else") as error:
        unlabelled_images(folder, modality="CT", ct_window=(-100, 100))
    assert "--modality 'T2 MR'" in error.value.hint
    assert [i["modality"] for i in unlabelled_images(folder, modality="MR").items] == ["MR"]
    assert "tells more than MR" in caplog.text
    coloured = raw("red", "green", "blue", count=1)
    assert unlabelled_images(coloured, modality="fundus").items
