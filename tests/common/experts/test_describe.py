"""Experts that somebody else trained are described from their own files, or it is said what these do not tell."""

import json

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from common.errors import AmalgamationError, ExpertError
from common.experts.describe import describe_expert, kind_of
from common.experts.expert_set import describe_nnunet, load_experts
from common.experts.spec import ExpertSpec
from common.experts.trust import code_hash
from common.labels import LabelSpace

LABELS = LabelSpace(("liver", "spleen"))
ARGUMENTS = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8, 8], "strides": [2, 2]}
FEATURES = "model.1.submodule.1.submodule"


@pytest.fixture
def bundle(tmp_path):
    root = tmp_path / "zoo"
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    (root / "configs" / "inference.json").write_text(json.dumps({"network_def": {"_target_": "UNet", **ARGUMENTS}}))
    pred = {"channel_def": {"0": "background", "1": "liver", "2": "spleen"}}
    told = {"inputs": {"image": {"num_channels": 1, "channel_def": {"0": "CT"}}}, "outputs": {"pred": pred}}
    (root / "configs" / "metadata.json").write_text(json.dumps({"network_data_format": told}))
    torch.save(UNet(**ARGUMENTS).state_dict(), root / "models" / "model.pt")
    return root


@pytest.fixture
def script(tmp_path):
    file = tmp_path / "net.ts"
    torch.jit.script(nn.Sequential(nn.Conv3d(1, 4, 2, stride=2), nn.ConvTranspose3d(4, 3, 2, stride=2))).save(str(file))
    return file


def test_an_nnunet_folder_tells_everything(nnunet_folder):
    folder = nnunet_folder()
    spec = describe_expert(folder, name="ct", task="ct")
    assert spec == describe_nnunet(folder.resolve(), name="ct", task="ct") and spec.sha256
    assert load_experts([spec]).for_task("ct").spec.labels == spec.labels


def test_a_bundle_s_metadata_tell_structures_and_channels(bundle):
    given = {"features": FEATURES, "extra": {"divisor": 4}, "spacing": [1, 1, 2], "orientation": None,
             "trusted": code_hash(bundle)}  # fmt: skip
    spec = describe_expert(bundle, name="zoo", role="external", **given)
    assert spec.labels == LABELS and spec.channels == ("CT",) and spec.spacing == (1.0, 1.0, 2.0)
    assert spec.kind == "bundle" and spec.orientation == "RAS" and len(spec.sha256) == 64
    assert load_experts([spec], channels=("CT",)).external[0].spec == spec
    other = describe_expert(bundle, name="zoo", task="ct", labels=LABELS, channels=["CTA"], **given)
    assert other.channels == ("CTA",) and other.task == "ct"


def test_a_torchscript_file_tells_neither(script):
    given = {"name": "ts", "role": "external", "features": "0", "extra": {"divisor": 2}}
    with pytest.raises(ExpertError, match=r"(?s)do not tell everything.*no labels and no channels.*--labels"):
        describe_expert(script, **given)
    spec = describe_expert(script, labels=LABELS, channels=["T1"], **given)
    assert load_experts([spec]).external[0].channels_of_features == [4]


def test_what_cannot_be_opened_is_refused(bundle, script, tmp_path, nnunet_folder):
    with pytest.raises(ExpertError, match="no `features`"):
        describe_expert(bundle, name="zoo", task="ct", trusted=code_hash(bundle))
    (bundle / "models" / "model.pt").unlink()
    with pytest.raises(ExpertError, match=r"model\.pt"):
        describe_expert(bundle, name="zoo", task="ct", features=FEATURES, trusted=code_hash(bundle))
    script.write_bytes(b"nothing")
    with pytest.raises(ExpertError, match="cannot read this TorchScript"):
        describe_expert(script, name="ts", task="ct", labels=LABELS, channels=["CT"], features="0")
    with pytest.raises(ExpertError, match=r"(?s)no expert that can be read.*nothing"):
        kind_of(tmp_path / "nowhere")
    folder = nnunet_folder()
    with pytest.raises(ExpertError, match=f"did you mean .*{folder.name}"):
        kind_of(folder.parent)


REGIONS = {"labels": {"background": 0, "whole": [1, 2], "core": [2]}, "extra": {"regions_class_order": [1, 2]}}


def test_regions_overlap_and_are_no_task_s_structures(nnunet_folder):
    folder = nnunet_folder(**REGIONS)
    with pytest.raises(ExpertError, match=r"(?s)region-based.*overlap.*whole, core.*--external True"):
        describe_expert(folder, name="ct", task="ct")
    with pytest.raises(ExpertError, match="region-based"):
        describe_expert(folder, name="ct", task="ct", labels=LabelSpace(("whole", "core")))
    spec = describe_expert(folder, name="any", role="external")
    assert not load_experts([spec]).external[0].spec.labels.exclusive


@pytest.mark.parametrize("fold", ["all", 1])
def test_the_fold_that_is_there_is_proposed_and_can_be_taken(nnunet_folder, fold):
    folder = nnunet_folder(fold=fold)
    with pytest.raises(AmalgamationError, match=rf"(?s)weights are missing.*fold_{fold}.*--fold {fold}$"):
        describe_expert(folder, name="ct", task="ct")
    spec = describe_expert(folder, name="ct", task="ct", fold=fold)
    assert spec.fold == fold and load_experts([ExpertSpec.from_dict(spec.to_dict())]).for_task("ct").spec == spec


def test_what_is_told_of_an_nnunet_is_what_its_files_say(nnunet_folder):
    folder = nnunet_folder()
    told = describe_nnunet(folder, name="ct", task="ct")
    assert describe_expert(folder, name="ct", task="ct", labels=told.labels, channels=list(told.channels))
    values = LabelSpace(told.labels.names, tuple(v + 1 for v in told.labels.values))
    for given, words in (({"channels": ["T2 MR"]}, "image channels"), ({"channels": ["CT", "PET"]}, "image channels"),
                         ({"labels": LabelSpace(("feet",))}, "different structures"),
                         ({"labels": values}, "values of structures")):  # fmt: skip
        with pytest.raises(ExpertError, match=words) as caught:
            describe_expert(folder, name="ct", task="ct", **given)
        assert "leave --channels or --labels out" in str(caught.value.hint) and str(folder) in str(caught.value.where)


def test_what_is_told_of_a_bundle_is_what_its_metadata_say(bundle):
    given = {"name": "zoo", "role": "external", "features": FEATURES, "extra": {"divisor": 4}, "orientation": None,
             "trusted": code_hash(bundle)}  # fmt: skip
    for told, words in (({"channels": ["T1"]}, "image channels"), ({"channels": ["CT", "PET"]}, "image channels"),
                        ({"labels": LabelSpace(("spleen", "liver"))}, "different structures"),
                        ({"labels": LabelSpace(("liver",))}, "different structures")):  # fmt: skip
        with pytest.raises(ExpertError, match=words):
            describe_expert(bundle, **given, **told)
    metadata = bundle / "configs" / "metadata.json"
    content = json.loads(metadata.read_text())
    content["network_data_format"]["inputs"]["image"]["channel_def"] = {"0": "image"}
    metadata.write_text(json.dumps(content))
    given["trusted"] = code_hash(bundle)
    assert describe_expert(bundle, **given, channels=["T1"]).channels == ("T1",)  # "image" says nothing to the contrary


def test_a_network_is_asked_once_what_it_reads_and_answers(script):
    given = {"name": "ts", "role": "external", "features": "0", "extra": {"divisor": 2}}
    with pytest.raises(ExpertError, match="does not read what is told"):
        describe_expert(script, labels=LABELS, channels=["T1", "T2"], **given)
    with pytest.raises(ExpertError, match="another number of structures") as caught:
        describe_expert(script, labels=LabelSpace(("liver",)), channels=["T1"], **given)
    assert caught.value.got == "3 channels of output" and "2: background, liver" in str(caught.value.expected)
