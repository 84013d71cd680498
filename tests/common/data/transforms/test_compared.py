"""Whoever lists the cases, each that is read is compared with the card; what was compared before is not again."""

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate

from common.contract import Contract
from common.data.transforms.compared import CompareReadd
from common.data.transforms.loading import TAGS, LoadCased
from common.data.transforms.restore import KeepOverriddend, SavePredictiond
from common.errors import DataError
from common.scan_fit import COMPARED, mark_of

HU, SIGNAL = {"lows": [-1024, -1000], "highs": [100, 300]}, {"lows": [0, 0], "highs": [700, 1200]}
SIZES = {"lowest": [0.5] * 3, "highest": [5.0] * 3}


def model(*names: str, size: dict[str, Any] | None = None) -> Contract:
    stats = {"CT": HU, "T2 MR": SIGNAL}
    modalities = {n: {"channels": [n], "intensities": [stats[n]], "spacing": size or SIZES} for n in names}
    return Contract((" | ".join(names),), modalities, dict.fromkeys(names, ("liver",)))


def body(shift: int = 0) -> Any:
    rng = np.random.default_rng(0)
    return np.where(rng.random((12, 12, 8)) < 0.5, -1000, rng.normal(40, 30, (12, 12, 8))).round().astype(int) + shift


def signal() -> Any:
    return np.abs(np.random.default_rng(0).gamma(4, 110, (12, 12, 8)) - 150).round().astype(int)


def nifti(file: Path, voxels: Any, mm: float = 1.0) -> str:
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.diag([mm, mm, mm, 1])), file)
    return str(file)


def read(contract: Contract, item: dict[Any, Any], **options: Any) -> dict[Any, Any]:
    return CompareReadd(contract, **options)(LoadCased("image", tags=True)(item))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("common.")]


def test_a_right_scan_passes_in_silence(tmp_path: Path, dicom_series: Any, caplog: pytest.LogCaptureFixture) -> None:
    dicom_series(tmp_path / "ct", body())
    for image in (nifti(tmp_path / "a.nii.gz", body()), str(tmp_path / "ct")):
        found = read(model("CT"), {"image": image})
        assert found["modality"] == "CT" and found["doubt"] == "" and TAGS not in found["image"].meta
        assert list_data_collate([found])["doubt"] == [""]
    assert said(caplog) == []


def test_an_mr_series_is_refused(tmp_path: Path, dicom_series: Any, caplog: pytest.LogCaptureFixture) -> None:
    dicom_series(tmp_path / "mr", signal(), change=lambda _, d: setattr(d, "Modality", "MR"))
    item = {"image": str(tmp_path / "mr")}
    with pytest.raises(DataError, match="not what the model was trained on") as error:
        read(model("CT"), item)
    assert error.value.where == "case mr"
    found = read(model("CT"), item, ignore_card=True)
    assert "MR in the place of channel CT, as asked" in caplog.text and "modality" not in found
    record = json.loads(found["overridden"])
    assert record["expected"] == "channel CT" and any("as asked" in n for n in record["notes"])


@pytest.mark.parametrize(("voxels", "mm", "words"), [
    (signal(), 1, "nothing below 0"), (body(1024), 1, "offset"), (body(), 0.02, "spacing 0.02 x 0.02 x 0.02 mm"),
])  # fmt: skip
def test_odd_voxels_are_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, voxels: Any, mm: float, words: str
) -> None:
    compare = CompareReadd(model("CT"))
    load = LoadCased("image", tags=True)
    for _ in range(2):
        found = compare(load({"image": nifti(tmp_path / "a.nii.gz", voxels, mm)}))
        assert words in found["doubt"]
    (told,) = [r for r in caplog.records if "not to be trusted" in r.message]
    assert words in told.message and "case a" in told.message and told.levelno == logging.WARNING


def test_what_the_item_and_the_setting_say(tmp_path: Path) -> None:
    image, both = nifti(tmp_path / "a.nii.gz", signal()), model("CT", "T2 MR")
    assert read(both, {"image": image})["modality"] == "T2 MR"  # its intensities tell
    assert read(both, {"image": image, "modality": "T2"})["modality"] == "T2 MR"
    for item, options in (({"modality": "US"}, {}), ({"modality": "T2 MR"}, {"modality": "CT"})):
        with pytest.raises(DataError, match=r"something else|not what the model"):
            read(both, {"image": image, **item}, **options)
    found = read(both, {"image": image, "modality": "T2 MR"}, modality="CT", ignore_card=True)
    assert found["modality"] == "T2 MR" and "T2 MR is read as CT, as asked" in found["overridden"]


def test_channels_are_counted_and_their_tags_compared(tmp_path: Path, dicom_series: Any) -> None:
    pet = Contract(("CT", "PET"), {"PET/CT": {"channels": ["CT", "PET"]}})
    for name, tag in (("a", "CT"), ("b", "PT")):
        dicom_series(tmp_path / name, body(), change=lambda _, d, t=tag: setattr(d, "Modality", t))
    files = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert read(pet, {"image": files})[COMPARED] == mark_of(pet)
    with pytest.raises(DataError, match="a channel is something else"):
        read(pet, {"image": files[::-1]})
    for images in (files[0], [*files, files[0]]):
        with pytest.raises(DataError, match=r"missing channel PET|too many channels"):
            read(pet, {"image": images}, ignore_card=True)


def test_what_was_compared_with_this_card_passes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = nifti(tmp_path / "a.nii.gz", signal())
    assert read(model("CT"), {"image": image, COMPARED: mark_of(model("CT"))}).keys() == {"image", COMPARED}
    assert said(caplog) == [] and read(Contract(), {"image": image}).keys() == {"image"}
    assert read(model("CT"), {"image": image, COMPARED: mark_of(model("T2 MR"))})["doubt"]  # that was another card
    assert read(model("CT"), {"image": image, COMPARED: True})["doubt"]


def test_images_of_other_loaders() -> None:
    compare = pickle.loads(pickle.dumps(CompareReadd(model("CT"))))
    voxels = torch.as_tensor(body()[None].astype(np.float32))
    assert compare({"image": voxels})["doubt"] == ""
    for meta in ({"0008|0060": "MR "}, {"Modality": "MR"}):
        with pytest.raises(DataError, match="not what the model"):
            compare({"image": MetaTensor(voxels, meta=meta)})


def test_pictures() -> None:
    rgb = Contract(("red", "green", "blue"), {"photo": {"channels": ["red", "green", "blue"], "dim": 2}})
    coloured = torch.arange(256.0).view(1, 16, 16) * torch.tensor([1.0, 0.5, 0.8]).view(3, 1, 1)
    assert CompareReadd(rgb)({"image": coloured})["doubt"] == ""
    assert "a grey picture" in CompareReadd(rgb)({"image": coloured[:1].repeat(3, 1, 1)})["doubt"]
    with pytest.raises(DataError, match="learned from pictures"):
        CompareReadd(rgb)({"image": coloured[..., None]})


def test_the_record_lies_beside_the_result(tmp_path: Path) -> None:
    pred = MetaTensor(torch.zeros(1, 4, 4, 4), affine=torch.eye(4))
    save, keep = SavePredictiond("pred", tmp_path), KeepOverriddend(tmp_path / "new")
    save({"pred": pred, "case": "a", "overridden": '{"x": 1}'})
    assert json.loads((tmp_path / "a.nii.gz.record.json").read_text()) == {"x": 1}
    SavePredictiond("pred", tmp_path)({"pred": pred, "case": "a"})
    assert not (tmp_path / "a.nii.gz.record.json").exists()
    keep({"case": "a"})
    assert not (tmp_path / "new").exists()
    keep({"case": "a", "overridden": '{"x": 1}'})
    assert json.loads((tmp_path / "new" / "a.record.json").read_text()) == {"x": 1}
