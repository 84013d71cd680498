"""Training from submitted label maps over REST, as 3D Slicer asks for it; the model in use is never lost."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from common.weights import read_card
from tests.label.client import SLICER
from tests.label.toys import bright

pytestmark = pytest.mark.label
# what 3D Slicer sends when nothing is changed in its panel, but for the epochs
DEFAULT = {
    "device": ["cpu"], "pretrained": True, "max_epochs": 2, "val_split": 0.2, "multi_gpu": True, "gpus": "all",
    "tracking": ["None", "mlflow"], "tracking_uri": "", "tracking_experiment_name": "", "run_id": "",
    "model_filename": ["model.pt"],
}  # fmt: skip
NAMES = [{"name": "spleen"}, {"name": "liver"}]  # not in the model's order


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def labelled(served, tmp_path_factory):
    """One scan with a submitted label map, whose segments the viewer numbered in its own order."""
    label = bright(served.studies / "ras.nii.gz", tmp_path_factory.mktemp("labels") / "ras.nii.gz")
    served.client.submit("ras", label, label_info=NAMES)
    return served


SELECTED = pytest.param("ka2er_segmentation", marks=pytest.mark.selected)


@pytest.mark.parametrize("model", [SELECTED, "samora_segmentation", "sam_med3d_moe_deepgrow"])
def test_one_study_and_the_default_request(labelled, model):
    folder = labelled.app / "model" / model / "models"
    before, earlier = digest(folder / "model.pt"), torch.load(folder / "model.pt", weights_only=True)
    ask = {"label": "liver", "foreground": [[12, 9, 7]]} if model.startswith("sam_") else {}
    first = labelled.client.infer(model, "lps", **ask, **SLICER).values
    assert labelled.client.train(model, **DEFAULT) == "DONE", labelled.log[-4000:]
    assert digest(folder / "model.pt") != before, labelled.log[-4000:]
    kept = list((folder / "previous").glob("*.pth"))
    assert [digest(p) for p in kept] == [before] and [p.name for p in folder.glob("*.pt")] == ["model.pt"]
    now = torch.load(folder / "model.pt", weights_only=True)
    assert now.keys() == earlier.keys() and any(not torch.equal(now[k], earlier[k]) for k in now)
    card = read_card(folder / "model.pt")
    assert card.labels.names == ("liver", "spleen", "left kidney")
    second = labelled.client.infer(model, "lps", **ask, **SLICER).values  # served without a restart
    assert second.shape == first.shape


def test_validated_first_and_replaced_only_by_something_better(labelled, tmp_path):
    for name in ("lps", "oblique"):
        labelled.client.submit(
            name, bright(labelled.studies / f"{name}.nii.gz", tmp_path / f"{name}.nii.gz"), label_info=NAMES
        )
    file = labelled.app / "model" / "m4oe_segmentation" / "models" / "model.pt"
    before = digest(file)
    request = {**DEFAULT, "val_split": 0.4, "run_id": "run", "max_epochs": 3}
    assert labelled.client.train("m4oe_segmentation", **request) == "DONE", labelled.log[-4000:]
    assert "the model in use has mean_dice" in labelled.log
    card = read_card(file)
    if digest(file) == before:
        assert "no epoch was better than the model in use" in labelled.log
    else:
        assert card.extra["epoch"] >= 1 and digest(next((file.parent / "previous").glob("*.pth"))) == before


def test_segments_that_the_network_does_not_know_stop_the_training(labelled, tmp_path):
    label = bright(labelled.studies / "ras.nii.gz", tmp_path / "ras.nii.gz")
    labelled.client.submit("ras", label, label_info=[{"name": "liver"}, {"name": "cyst"}])
    file = labelled.app / "model" / "samora_segmentation" / "models" / "model.pt"
    before = digest(file)
    assert labelled.client.train("samora_segmentation", **DEFAULT) == "ERROR"
    assert digest(file) == before and "cyst" in labelled.log
    labelled.client.submit("ras", label, label_info=NAMES)


def test_pictures_train_too(served, tmp_path):
    for path in served.studies.glob("*.nii.gz"):  # a server's studies are of one kind: put the scans' labels away
        served.client.forget(path.name.split(".")[0])
    for number in range(2):
        file = served.pictures / f"picture{number}.png"
        served.client.form("PUT", f"/datastore/image?image=picture{number}", {"params": "{}", "file": file})
        picture = np.asarray(Image.open(file))
        Image.fromarray((picture > 120).astype(np.uint8)).save(tmp_path / f"picture{number}.png")
        served.client.submit(f"picture{number}", tmp_path / f"picture{number}.png", label_info=[{"name": "liver"}])
    file = served.app / "model" / "ic_moe_segmentation" / "models" / "model.pt"
    before = digest(file)
    assert served.client.train("ic_moe_segmentation", **DEFAULT) == "DONE", served.log[-4000:]
    assert digest(file) != before
    records = json.loads((served.studies / "datastore_v2.json").read_text())["objects"]
    assert records["picture0"]["labels"]["final"]["info"]["label_info"] == [{"name": "liver"}]
