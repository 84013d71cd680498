"""Which student a card describes, and what is refused of one that comes from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import SimpleInferer

from common.backbones.nnunet.window import NNUNetTiles
from common.engine.run.settings import model_settings
from common.errors import ConfigError, DataError, PromptError, WeightError
from common.experts.tiles import Tiles
from common.methods.ka2er.begin import nnunet_settings
from common.methods.ka2er.planned import plan_of_card, student_inferer, student_network, student_overlap
from common.methods.ka2er.student import KA2ERStudent
from common.weights import read_state_dict
from tests.bundles.commands import parsed
from tests.bundles.tiny import settings as swin_settings
from tests.common.experts.answers.nnunets import scan
from tests.nnunet_students import STRUCTURES, two_modalities, write_student
from tools.label.config import read_model, served_inference
from tools.label.layout import lay_out

BUNDLE = Path(__file__).resolve().parents[4] / "bundles" / "ka2er"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = write_student(tmp_path_factory.mktemp("card") / "model.pt", two_modalities())
    defaults = {**swin_settings("ka2er"), "structures": ["x"], "channels": ["image"], "exclusive": True}
    return {**model_settings(file, defaults), "file": file}


def test_the_card_builds_the_network_that_its_weights_fit(told: dict[str, Any]) -> None:
    plan = plan_of_card(told, told["file"])
    assert plan is not None and plan.settings == two_modalities().settings
    network = student_network(settings=told, plan=plan)
    network.load_state_dict(read_state_dict(told["file"])[0], strict=True)
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 4, 16, 16, 16)
    assert told["roi_size"] == [16, 16, 16] and told["mirror_axes"] == [0, 2] and told["modalities"] == ["CT", "MR"]


def test_an_earlier_card_is_a_swin_unetrs() -> None:
    own = {**swin_settings("ka2er"), "labels": STRUCTURES, "channels": ["image"], "exclusive": True}
    assert plan_of_card(own) is None and plan_of_card({**own, "student": "swin_unetr"}) is None
    assert isinstance(student_network(settings=own), KA2ERStudent)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"student": "unet"}, "unknown student"),
        ({"student": 3}, "unknown student"),
        ({"plans": None}, "lacks settings"),
        ({"by_modality": {"CT": "2d"}}, "do not have this configuration"),
        ({"by_modality": ["CT"]}, "which configuration"),
        ({"turned": "RAR"}, "axis codes"),
        ({"turned": 3}, "axis codes"),
        ({"mirror_axes": [3]}, "damaged"),
        ({"mirror_axes": "01"}, "damaged"),
        ({"channels": ["CT", "PET"]}, "another student"),
        ({"dataset_json": {"channel_names": {"0": "CT"}, "labels": {"background": 0, "heart": 1}}}, "another student"),
    ],
)
def test_cards_that_do_not_belong_together(told: dict[str, Any], wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightError, match=message):
        plan_of_card({**told, **wrong}, told["file"])


def test_a_network_that_is_not_nnunets_own_is_refused(told: dict[str, Any]) -> None:
    plans = two_modalities().plans
    plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "os.system"
    with pytest.raises(WeightError, match="not nnU-Net's own"):
        plan_of_card({**told, "plans": plans}, told["file"])


def test_an_nnunet_reads_no_boxes(told: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="reads no boxes"):
        plan_of_card(told, told["file"], boxes=True)
    plan = plan_of_card(told, told["file"])
    assert plan is not None
    inferer, network = NNUNetTiles(plan=plan), student_network(settings=told, plan=plan)
    image = MetaTensor(torch.randn(1, 1, 16, 16, 16))
    assert inferer(image, network).shape == (1, 4, 16, 16, 16)
    image.meta["boxes"] = torch.zeros(3, 2, 3)
    with pytest.raises(PromptError, match="reads no boxes"):
        inferer(image, network)


def test_inferers(told: dict[str, Any]) -> None:
    plan, windows = plan_of_card(told, told["file"]), SimpleInferer()
    assert plan is not None
    chosen = student_inferer(windows=windows, settings=told, plan=plan, overlap=0.25, mirror=True)
    assert isinstance(chosen, NNUNetTiles) and (chosen.axes, chosen.overlap) == ((0, 2), 0.25)
    plain = student_inferer(windows=windows, settings=told, plan=plan)
    assert isinstance(plain, NNUNetTiles) and plain.axes == ()
    assert student_inferer(windows=windows, settings=told) is windows
    with pytest.raises(ConfigError, match="mirrored copies"):
        student_inferer(windows=windows, settings=told, mirror=True)
    for options, message in (({"overlap": 1.0}, "share of their size"), ({"mirror": (3,)}, "no such axis")):
        with pytest.raises(ConfigError, match=message):
            NNUNetTiles(plan=plan, **options)


def test_the_card_says_how_far_tiles_step(told: dict[str, Any], tmp_path: Path) -> None:
    """A student steps as its experts did, one of an earlier version as nnU-Net does, and who types it decides."""
    file = write_student(tmp_path / "model.pt", two_modalities(), overlap=0.2, overlap_from=["organs"])
    for given, overlap in (
        ({"model_path": file}, 0.2),
        ({"model_path": told["file"]}, 0.5),
        ({"model_path": file, "overlap": 0.3}, 0.3),
        ({"model_path": tmp_path / "none.pt"}, 0.5),
    ):
        config = parsed("ka2er", ("inference",), device="cpu", **given)
        inferer = config.get_parsed_content("inferer")
        assert inferer.overlap == overlap if isinstance(inferer, NNUNetTiles) else overlap == 0.5
    served = served_inference(read_model(BUNDLE, file), "segmentation", {"modality": "MR"})
    assert served["displayable_configs"]["overlap"] == 0.2, "a viewer's default"
    windows = parsed("ka2er", ("inference",), **{"model::defaults::overlap": 0.1, "model_path": tmp_path / "none.pt"})
    assert windows.get_parsed_content("inferer").overlap == 0.1, "a Swin UNETR's, too"


@pytest.mark.parametrize("wrong", [1, -0.1, True, "0.2", None, float("nan"), [0.2]])
def test_an_overlap_that_is_none(wrong: Any) -> None:
    with pytest.raises(WeightError, match=r"(?s)m\.pt, settings\.overlap: the card is damaged.*\[0, 1\)"):
        student_overlap(settings={"overlap": wrong}, path="m.pt")


def test_what_a_scan_is_decides_how_it_is_normalised(told: dict[str, Any]) -> None:
    plan = plan_of_card(told, told["file"])
    assert plan is not None
    assert [plan.configuration_for(m) for m in ("CT", "MR")] == ["3d_fullres", "3d_fullres_mr"]
    for unknown in (None, "PET", 3):
        with pytest.raises(DataError, match=r"(?s)planned for.*--modality CT"):
            plan.configuration_for(unknown)
    assert nnunet_settings(plan=plan)["mirror_axes"] == [] and "overlap" not in nnunet_settings(plan=plan)
    told_of = nnunet_settings(plan=plan, tiles=Tiles(0.2, ("organs",)))
    assert (told_of["overlap"], told_of["overlap_from"]) == (0.2, ["organs"])


def test_a_server_offers_it_as_segmentation(told: dict[str, Any]) -> None:
    model = read_model(BUNDLE, told["file"])
    with pytest.raises(ConfigError, match="modality"):
        served_inference(model, "segmentation", {})
    config = parsed("ka2er", ())
    served = served_inference(model, "segmentation", {"modality": "MR"})
    assert "kept" not in str(served).lower(), "a viewer's answer is the student's alone"
    config.update(served)
    network = config.get_parsed_content("network_def")
    network.load_state_dict(read_state_dict(told["file"])[0], strict=True)
    names = [type(t).__name__ for t in config.get_parsed_content("preprocessing").transforms]
    assert "NNUNetPreprocessd" in names and "SafeSpacingd" not in names
    assert names[:2] == ["LoadCased", "CompareWithCardd"] and "CompareReadd" not in names, "a server compares once"
    with pytest.raises(ConfigError, match="reads no prompts"):
        served_inference(model, "deepgrow", {"modality": "MR"})


def test_corrected_label_maps_lie_on_its_grid(told: dict[str, Any], tmp_path: Path) -> None:
    """A server's training puts what a viewer submits on nnU-Net's cropped, turned and resampled array."""
    image = scan("LPS", spacing=(1.0, 2.0, 1.0))
    label = (image.numpy()[0] > 25).astype(np.uint8)
    for name, voxels in (("scan", image.numpy()[0]), ("label", label)):
        nib.save(nib.Nifti1Image(voxels, image.affine.numpy()), tmp_path / f"{name}.nii.gz")
    folder = lay_out(read_model(BUNDLE, told["file"]), tmp_path / "m", "segmentation", given={"modality": "MR"})
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "train.json"))
    parser["bundle_root"] = str(folder)
    chain = parser.get_parsed_content("validate::dataset").transform
    done = chain({k: str(tmp_path / f"{v}.nii.gz") for k, v in (("image", "scan"), ("label", "label"))})
    found, marked = done["image"].as_tensor(), done["label"].as_tensor() > 0
    assert found.shape == marked.shape and found.shape[2] > image.shape[2]
    assert float(found[marked].min()) > -0.5 and float(found[marked].mean()) > float(found[~marked].mean()) + 1
