"""Scans are compared with what the model's card says before anything is computed; what is not said is not compared."""

import json
from collections import OrderedDict

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from common.card import ModelCard, save_weights
from common.contract import OVERRIDE, Contract, contract_of
from common.errors import DataError
from common.intensity_range import Range
from common.labels import LabelSpace
from tools.bundle_files import find_bundle
from tools.evaluate import run_evaluation
from tools.predict.check import Comparison
from tools.predict.command import _targets, predict, segment
from tools.predict.scans import Scan, readable
from tools.workflow import config_files

HU = {"lows": [-1024, -1000], "highs": [100, 300]}


def weights(path, *channels, taught=("bright",), stats=HU, **modalities):
    names = modalities or {" + ".join(channels): list(channels)}
    said = {
        "modalities": {n.replace("_", " "): {"channels": c, "intensities": [stats] * len(c)} for n, c in names.items()},
        "taught": {n.replace("_", " "): list(taught) for n in names},
    }
    card = ModelCard(LabelSpace(("bright",)), channels, extra={"contract": said})
    weight, bias = torch.zeros(2, 1, 1, 1, 1), torch.zeros(2)
    weight[1], bias[0], bias[1] = 1.0, 0.0, -50.0
    return save_weights(path, OrderedDict(weight=weight, bias=bias), card)


@pytest.fixture
def body():
    voxels = np.full((12, 12, 8), -1000)
    voxels[3:9, 3:9, 2:6] = 120
    return voxels


def test_dicoms_tag_is_compared(toy_bundle, dicom_series, body, tmp_path, capsys):
    dicom_series(tmp_path / "ct", body)
    model = weights(toy_bundle / "models" / "model.pt", "T2 MR")
    with pytest.raises(DataError, match="not what the model was trained on") as error:
        segment(toy_bundle, tmp_path / "ct", tmp_path / "out")
    assert "CT" in str(error.value) and "T2 MR" in str(error.value) and OVERRIDE in str(error.value)
    assert not list((tmp_path / "out").iterdir())
    predict(str(toy_bundle), str(tmp_path / "ct"), str(tmp_path / "out"), ignore_card=True, result="both")
    assert "in the place of channel T2 MR, as asked" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "ct.nii.gz.record.json").read_text())
    assert record["ignore_card"] is True and "T2 MR" in record["expected"] and record["weights"] == str(model)
    weights(toy_bundle / "models" / "model.pt", "CTA")
    segment(toy_bundle, tmp_path / "ct", tmp_path / "out", overwrite=True, result="nifti")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["ct.dcm", "ct.nii.gz"]
    phase, stays = capsys.readouterr().err.splitlines()  # DICOM's tag tells no phase
    assert phase.startswith(f"{tmp_path / 'ct'}: CT is taken for CTA") and [stays] == [
        f"{tmp_path / 'out' / 'ct.dcm'}: stays, but is not of this run, whose result is ct.nii.gz"
    ]


def test_the_override_is_part_of_a_dicom_seg(toy_bundle, dicom_series, body, tmp_path):
    file = toy_bundle / "configs" / "inference.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "ignore_card": False}))
    dicom_series(tmp_path / "ct", body)
    weights(toy_bundle / "models" / "model.pt", "T2 MR")
    found = segment(toy_bundle, tmp_path / "ct", tmp_path / "out", ignore_card=True)["ct"]
    (one,) = pydicom.dcmread(found).SegmentSequence
    assert "ignore_card=True" in one.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters


def test_a_scan_that_no_ct_is(toy_bundle, body, tmp_path, capsys):
    weights(toy_bundle / "models" / "model.pt", "CT")
    for name, voxels in (("good", body), ("offset", body + 1024), ("unit", (body + 1000) / 1400)):
        nib.save(nib.Nifti1Image(voxels.astype(np.float32), np.eye(4)), tmp_path / f"{name}.nii.gz")
        segment(toy_bundle, tmp_path / f"{name}.nii.gz", tmp_path / "out")
        told = capsys.readouterr().err
        assert (told == "") if name == "good" else ("warning" in told and f"{name}.nii.gz" in told and "HU" in told)


def test_a_missing_channel_is_named(toy_bundle, body, tmp_path):
    weights(toy_bundle / "models" / "model.pt", "T1", "FLAIR")
    nib.save(nib.Nifti1Image(body.astype(np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match="missing channel FLAIR") as error:
        segment(toy_bundle, tmp_path / "a.nii.gz", tmp_path / "out", ignore_card=True)
    assert "a_0001 (FLAIR)" in str(error.value)


def both(**options):
    modalities = {n: {"channels": [n]} for n in ("CT", "T2 MR")}
    taught = {"CT": ("liver",), "T2 MR": ("liver", "gallbladder")}
    return Comparison(Contract(("CT | T2 MR",), modalities, taught), **options)


class _Series:
    def __init__(self, tag):
        self.slices = [type("Slice", (), {"modality": tag})()]


def test_the_models_name_of_what_it_is_reaches_the_run(tmp_path):
    scan = Scan("a", (tmp_path / "a.nii.gz",))
    compared = both(masks=True)
    assert compared.entry(scan, _Series("CT")) == {"modality": "CT"}
    assert "not taught on CT, left out of the result: gallbladder" in compared.notes[0]
    assert compared.entry(scan, _Series("MR")) == {"modality": "T2 MR"} and len(compared.notes) == 2
    assert "MR is taken for T2 MR, nobody says" in compared.notes[1]  # which sequence DICOM's tag does not say
    assert compared.entry(scan, None) == {} == compared.entry(scan, _Series("OT"))
    assert both(modality="CTA").entry(scan, None) == {"modality": "CT"}
    asked = both(modality="CT")
    with pytest.raises(DataError, match="something else"):
        asked.entry(scan, _Series("MR"))
    assert "never learned" in asked.notes[0] if asked.entry(scan, _Series("CT")) else False
    with pytest.raises(DataError, match="trained on"):
        both().entry(scan, _Series("US"))
    assert both(ignore=True).entry(scan, _Series("US")) == {}
    assert Comparison(Contract()).entry(scan, _Series("US")) == {}


def test_the_unit_that_dicom_says_is_compared(tmp_path):
    scan = Scan("a", (tmp_path / "a.nii.gz",))
    pet = Contract(("SUV",), {"SUV": {"channels": ["SUV"]}})
    with pytest.raises(DataError, match="trained on") as error:
        Comparison(pet).entry(scan, _Series("PT BQML"))
    assert "BQML" in error.value.got
    with pytest.raises(DataError, match="something else"):
        Comparison(pet, modality="SUV").entry(scan, _Series("PT BQML"))
    fine = Comparison(pet)
    assert fine.entry(scan, _Series("PT GML")) == {"modality": "SUV"} and not [n for n in fine.notes if "Units" in n]
    ct = Comparison(Contract(("CT",), {"CT": {"channels": ["CT"]}}))
    assert ct.entry(scan, _Series("CT US")) == {"modality": "CT"}
    assert any("US (RescaleType), and not HU" in n for n in ct.notes)
    other = Comparison(Contract(("CT",), {"CT": {"channels": ["CT"]}}), modality="CT")
    other.entry(scan, _Series("OT"))
    assert any("DICOM says OT, which is no modality" in n for n in other.notes)


def test_a_scan_of_which_nobody_says_what_it_is(tmp_path):
    scan, known = Scan("a", (tmp_path / "a.nii.gz",)), {"lows": [0, 0], "highs": [700, 1200]}
    modalities = {n: {"channels": [n], "intensities": [s]} for n, s in (("CT", HU), ("T2 MR", known))}
    contract = Contract(("CT | T2 MR",), modalities, {"CT": ("liver",), "T2 MR": ("liver", "gallbladder")})
    for low, name in ((-1020, "CT"), (0, "T2 MR")):
        compared = Comparison(contract, masks=True, ranges={"a": (Range(low, 250 if low else 900, low, 900),)})
        assert compared.entry(scan, None) == {"modality": name}
        assert any(f"taken for {name}: its intensities are none of" in n for n in compared.notes)
        assert any("gallbladder" in n for n in compared.notes) == (name == "CT")
    unclear = Comparison(contract)
    assert unclear.entry(scan, None) == {} and "on T2 MR only: gallbladder" in unclear.notes[0]
    settled = Comparison(contract, modality="CT")
    assert settled.entry(scan, None) == {"modality": "CT"} and not any("nobody says" in n for n in settled.notes)


def test_one_slice_for_a_model_of_volumes(tmp_path):
    scan, compared = Scan("a", (tmp_path / "a.nii.gz",)), Comparison(Contract(("CT",), {"CT": {"channels": ["CT"]}}))
    for depth in (1, 4):
        compared.see(scan, MetaTensor(torch.randn(1, 9, 9, depth) * 300))
        compared.entry(scan, None)
    assert sum("one slice alone" in note for note in compared.notes) == 1


def test_an_evaluation_records_that_the_card_was_ignored(toy_bundle, collection, tmp_path):
    """The configuration of every bundle: items are compared, and the summary says when they were not."""
    for name in ("inference", "evaluate"):
        file = toy_bundle / "configs" / f"{name}.json"
        content = json.loads(file.read_text())
        content["dataset"]["data"] |= {
            "_target_": "common.data.datasets.fitting.fitting_items",
            "contract": "@contract",
            "ignore_card": "@ignore_card",
        }
        if name == "inference":
            contract = {"_target_": "common.contract.contract_of", "path": "@model_path"}
            content |= {"contract": contract, "ignore_card": False}
        else:
            content["handlers"][0]["extra"] = {"ignore_card": "@ignore_card"}
            content["handlers"].append(
                {
                    "_target_": "common.engine.evaluation.score_record.KeepScores",
                    "split": "@split",
                    "output_dir": "@output_dir",
                    "weights": "@model_path",
                }
            )
        file.write_text(json.dumps(content))
    model = weights(toy_bundle / "models" / "model.pt", "T2 MR")
    options = {"dataset_dir": collection / "a", "output_dir": tmp_path / "out", "weights": model}
    with pytest.raises(DataError, match="not what the model was trained on"):
        run_evaluation(str(toy_bundle), **options)
    assert not (tmp_path / "out" / "evaluation" / "summary.json").exists()
    folder = run_evaluation(str(toy_bundle), **options, overrides={"ignore_card": True})
    assert json.loads((folder / "summary.json").read_text())["ignore_card"] is True
    assert json.loads(model.with_name(f"{model.name}.scores.json").read_text())["evaluations"][0]["tasks"] == ["a"]


def test_pictures_are_compared_with_what_the_model_learned_from(tmp_path):
    def scan(name, planes):
        Image.fromarray(planes).save(tmp_path / name)
        return Scan(name, (tmp_path / name,))

    grey, colour = np.full((4, 5), 7, np.uint8), np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    scans = scan("g.png", grey), scan("e.png", np.repeat(grey[..., None], 3, 2)), scan("c.png", colour)
    channels = ["red", "green", "blue"]
    compared = Comparison(Contract(tuple(channels), {"fundus": {"channels": channels, "dim": 2}}))
    told = []
    for one in scans:
        compared.notes.clear()
        readable(one, tmp_path / "converted", seen=compared.see)
        compared.entry(one, None)
        told.append([("grey picture" in note and one.name in note) for note in compared.notes])
    assert told == [[True], [True], []] and not compared.ranges
    volumes = Comparison(Contract(("CT",), {"CT": {"channels": ["CT"], "dim": 3}}), ignore=True)
    with pytest.raises(DataError, match="learned from volumes"):
        volumes.entry(scans[0], None)


def test_the_remark_about_what_is_left_out_knows_the_targets(tmp_path):
    scan = Scan("a", (tmp_path / "a.nii.gz",))
    for options, words in (
        ({}, ["left out of the result: gallbladder"]),
        ({"targets": ("gallbladder", "liver")}, ["in the result because it was asked for: gallbladder"]),
        ({"targets": ("liver",)}, []),
        ({"targets": ""}, ["what the result says of it was never learned: gallbladder"]),
        ({"targets": "", "stays": True}, ["what the result says of it was never learned: gallbladder"]),
        ({"masks": False}, ["what the result says of it was never learned: gallbladder"]),
    ):
        compared = both(**{"masks": True, **options})
        compared.entry(scan, _Series("CT"))
        assert [n.split(", ", 1)[1] for n in compared.notes if "not taught" in n] == words


@pytest.mark.parametrize(("overrides", "found"), [
    ({}, "all"), ({"targets": ["liver"]}, ("liver",)), ({"targets": "$['spl' + 'een']"}, ("spleen",)),
    ({"targets": "$1/0"}, ""), ({"targets": "liver"}, ""),
    ({"postprocessing::transforms::0::targets": ["liver"]}, ("liver",)),
])  # fmt: skip
def test_targets_are_the_runs_own(overrides, found):
    assert _targets(config_files(find_bundle("ka2er"), "inference"), overrides) == found
    if not overrides:
        assert _targets(config_files(find_bundle("m4oe"), "inference"), {}) == "all"


def test_the_users_modality_is_compared_with_the_entrys(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    content = {"modality": {"0": "image"}, "labels": {}, "test": [{"image": "a.nii.gz", "modality": "T2 MR"}]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    scan = Scan("a", (tmp_path / "a.nii.gz",))
    with pytest.raises(DataError, match="something else"):
        both(modality="CT").ordered(scan)
    forced = both(modality="CT", ignore=True)
    assert forced.entry(forced.ordered(scan), None) == {"modality": "CT"}
    assert len([n for n in forced.notes if "T2 MR is read as CT, as asked" in n]) == 1


def test_voxels_of_another_size_are_warned_of(toy_bundle, body, tmp_path, capsys):
    file = weights(toy_bundle / "models" / "model.pt", "CT")
    contract = contract_of(file)
    contract.modalities["CT"]["spacing"] = {"lowest": [0.5] * 3, "highest": [5.0] * 3}
    scan, compared = Scan("a", (tmp_path / "a.nii.gz",)), Comparison(contract)
    for mm, told in ((1.0, 0), (0.02, 1)):
        compared.notes.clear()
        compared.see(scan, MetaTensor(torch.as_tensor(body[None].astype(np.float32)), affine=np.diag([mm, mm, mm, 1])))
        compared.entry(scan, None)
        assert len([n for n in compared.notes if f"spacing {mm:g} x" in n and "warning" in n]) == told
