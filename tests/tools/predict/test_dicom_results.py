"""From a DICOM folder to a DICOM SEG by the command line, and back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from monai.bundle import ConfigParser

from common.data.dicom.seg_masks import read_seg
from common.data.dicom.series import read_dicom
from common.errors import ConfigError, DataError
from common.labels import LabelSpace
from tools.__main__ import main
from tools.predict.command import segment
from tools.predict.dicom_results import result_kind, series_options, structure_names, structures
from tools.workflow import read_config

pytest.importorskip("highdicom", exc_type=ImportError)
ROOT = Path(__file__).resolve().parents[3]
SAMPLES = Path(os.environ.get("AMALGAM_DATA", "missing")) / "dicom_samples"
BRIGHT = LabelSpace(("bright",))
TURN = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])


def body(shape=(20, 18, 10)):
    voxels = np.zeros(shape)
    voxels[4:12, 5:14, 3:8] = 100
    return voxels


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def label_of(path, series):
    return read_seg(path, read_dicom(series).slices).label_map(BRIGHT)


@pytest.mark.parametrize("turn", [None, TURN])
def test_the_seg_is_what_the_nifti_is(toy_bundle, dicom_series, tmp_path, turn):
    series = dicom_series(tmp_path / "study" / "my series", body(), turn=turn)
    found = segment(toy_bundle, series, tmp_path / "out")
    assert found == {"my series": tmp_path / "out" / "my series.dcm"} and files(tmp_path / "out") == ["my series.dcm"]
    nifti = nib.load(segment(toy_bundle, series, tmp_path / "out", result="nifti", overwrite=True)["my series"])
    assert files(tmp_path / "out") == ["my series.dcm", "my series.nii.gz"]  # of another kind, and no less somebody's
    expected = np.asarray(nifti.dataobj)
    both = segment(toy_bundle, series, tmp_path / "both", result="both")["my series"]
    assert files(tmp_path / "both") == ["my series.dcm", "my series.nii.gz"] and both.name == "my series.nii.gz"
    assert expected.any()
    assert np.array_equal(label_of(tmp_path / "both" / "my series.dcm", series), expected)
    assert np.array_equal(np.asarray(nib.load(both).dataobj), expected)


def test_who_made_it(toy_bundle, dicom_series, tmp_path):
    (toy_bundle / "configs" / "metadata.json").write_text(json.dumps({"version": "0.4.2"}))
    path = segment(toy_bundle, dicom_series(tmp_path / "s", body()), tmp_path / "out" / "mine.dcm")["s"]
    assert path == tmp_path / "out" / "mine.dcm"
    (one,) = pydicom.dcmread(path).SegmentSequence
    algorithm = one.SegmentationAlgorithmIdentificationSequence[0]
    assert one.SegmentLabel == "bright" and algorithm.AlgorithmName == "töy bundle"
    assert algorithm.AlgorithmVersion == "0.4.2" and len(algorithm.AlgorithmParameters.split("sha256=")[-1]) >= 64


def test_a_folder_of_series_and_results_that_are_there(toy_bundle, dicom_series, tmp_path, capsys):
    for name in ("a", "b"):
        dicom_series(tmp_path / "study" / name, body())
    words = ["predict", str(toy_bundle), str(tmp_path / "study"), str(tmp_path / "out")]
    assert main(words) == 0 and files(tmp_path / "out") == ["a.dcm", "b.dcm"]
    assert capsys.readouterr().out.count(".dcm") == 2
    assert main(words) == 2 and "already" in capsys.readouterr().err
    assert main([*words, "--overwrite", "True", "--result", "both"]) == 0
    out = capsys.readouterr().out
    assert out.count(".dcm") == 2 and out.count(".nii.gz") == 2


@pytest.mark.parametrize(
    ("damage", "words", "flags"),
    [
        ("gap", "slices are missing", ["--fill_gaps", "True"]),
        ("broken", "truncated|cut off|decoded", ["--skip_broken", "True", "--fill_gaps", "True"]),
        ("twice", "one position", ["--skip_repeated", "True"]),
        ("tilt", "sheared", ["--straighten", "True"]),
        ("two", "2 series", ["--series", "4"]),
        ("phases", "one position", ["--stack", "2"]),
    ],
)
def test_every_fault_has_its_option(toy_bundle, dicom_series, tmp_path, capsys, damage, words, flags):
    import re

    series = dicom_series(tmp_path / "s", body(), lean=1.25 if damage == "tilt" else 0)
    one = series / "035.dcm"  # the sixth slice, inside the object
    if damage == "gap":
        one.unlink()
    elif damage == "broken":
        one.write_bytes(one.read_bytes()[:-30])
    elif damage == "twice":
        (series / "again.dcm").write_bytes(one.read_bytes())
    elif damage in ("two", "phases"):
        uid = pydicom.dcmread(one).SeriesInstanceUID

        def other(k, data):
            data.SeriesNumber, data.EchoNumbers = 5, 7
            data.SeriesInstanceUID = uid if damage == "phases" else "1.2.3.4"

        for file in dicom_series(tmp_path / "t", body(), change=other).iterdir():
            file.rename(series / f"t{file.name}")
    command = ["predict", str(toy_bundle), str(series), str(tmp_path / "out")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert re.search(words, error) and flags[0] in error, error
    assert files(tmp_path / "out") == []
    assert main([*command, *flags]) == 0, capsys.readouterr().err
    data = pydicom.dcmread(tmp_path / "out" / "s.dcm")
    sources = {s.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
               for s in data.PerFrameFunctionalGroupsSequence}  # fmt: skip
    present = {pydicom.dcmread(p, force=True).get("SOPInstanceUID") for p in series.iterdir()}
    assert sources <= present and len(sources) == (4 if damage in ("gap", "broken") else 5)


def test_series_that_a_seg_cannot_refer_to_are_refused_before_the_network_runs(
    toy_bundle, dicom_series, tmp_path, monkeypatch
):
    series = dicom_series(tmp_path / "s", body(), change=lambda k, d: setattr(d, "StudyInstanceUID", ""))
    monkeypatch.setattr("tools.predict.command.run_bundle", lambda *a, **k: pytest.fail("the network ran"))
    with pytest.raises(DataError, match=r"(?s)StudyInstanceUID.*--result nifti"):
        segment(toy_bundle, series, tmp_path / "out")
    assert files(tmp_path / "out") == []


def test_an_enhanced_file(toy_bundle, dicom_series, enhanced_series, tmp_path):
    dicom_series(tmp_path / "s", body())
    file = enhanced_series(tmp_path / "s")
    found = segment(toy_bundle, file, tmp_path / "out", result="both")["all"]
    expected = np.asarray(nib.load(found).dataobj)
    assert expected.any() and np.array_equal(label_of(tmp_path / "out" / "all.dcm", file), expected)
    with pytest.raises(DataError, match="one DICOM slice is not a scan"):
        segment(toy_bundle, next((tmp_path / "s").iterdir()), tmp_path / "o")


def test_kinds_of_results(tmp_path):
    folder = tmp_path / "out"
    assert result_kind(None, folder, dicom=True) == "dicom_seg" and result_kind(None, folder, dicom=False) == "nifti"
    assert result_kind(None, folder / "a.nii.gz", dicom=True) == "nifti"
    assert result_kind(None, folder / "a.dcm", dicom=True) == "dicom_seg"
    assert result_kind("both", folder / "a.nii.gz", dicom=True) == "both"
    for kind, output, dicom, words in (
        ("seg", folder, True, "unknown kind"),
        ("dicom_seg", folder / "a.nii.gz", True, "contradicts"),
        ("nifti", folder / "a.dcm", True, "contradicts"),
        ("both", folder / "a.dcm", True, "contradicts"),
        ("dicom_seg", folder, False, "is not DICOM"),
        (None, folder / "a.dcm", False, "is not DICOM"),
    ):
        with pytest.raises(ConfigError, match=words):
            result_kind(kind, output, dicom=dicom)


def test_options_of_the_command_line():
    plain = {"series": None, "stack": None, "fill_gaps": False, "straighten": False, "skip_broken": False,
             "skip_repeated": False}  # fmt: skip
    assert series_options(**{**plain, "series": 7}).series == "7"
    for wrong in ({"stack": "two"}, {"stack": True}, {"fill_gaps": "true"}, {"skip_broken": 1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            series_options(**{**plain, **wrong})


def test_names_of_the_structures(toy_bundle):
    config = read_config([str(toy_bundle / "configs" / "inference.json")])
    assert structures(config, toy_bundle, 1).names == ("bright",)
    config.config.pop("names")
    assert structures(config, toy_bundle, 2).names == ("structure 1", "structure 2")
    outputs = {"pred": {"channel_def": {"0": "background", "10": "b", "9": "a"}}}
    (toy_bundle / "configs" / "metadata.json").write_text(json.dumps({"network_data_format": {"outputs": outputs}}))
    assert structures(config, toy_bundle, 1).names == structure_names(config, toy_bundle) == ("a", "b")
    others = ({"0": "background", odd: "a"} for odd in ("١", "²", "9" * 5000, "01"))
    for channels in ({"0": "image"}, *others):
        outputs["pred"]["channel_def"] = channels
        (toy_bundle / "configs" / "metadata.json").write_text(json.dumps({"network_data_format": {"outputs": outputs}}))
        assert structure_names(config, toy_bundle) == ()


@pytest.mark.data
@pytest.mark.skipif(not SAMPLES.is_dir(), reason="AMALGAM_DATA is not set")
@pytest.mark.parametrize("own_process", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_real_oblique_series_by_the_command_line(toy_bundle, make_weights, tmp_path, own_process):
    series = SAMPLES / "mr_t1post_oblique"
    make_weights(toy_bundle / "models" / "model.pt", at=300.0)
    words = ["predict", str(toy_bundle), str(series), str(tmp_path), "--result", "both"]
    words += ["--inferer::roi_size", "[160,160,16]"]
    if own_process:
        command = [sys.executable, "-m", "tools", *words]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert run.returncode == 0, run.stderr
    else:
        assert main(words) == 0
    expected = np.asarray(nib.load(tmp_path / "mr_t1post_oblique.nii.gz").dataobj)
    assert 0.01 < expected.mean() < 0.9
    assert np.array_equal(label_of(tmp_path / "mr_t1post_oblique.dcm", series), expected)


WIDE = {"overrides": {"inferer::roi_size": [256, 256, 16]}}


@pytest.mark.data
@pytest.mark.skipif(not SAMPLES.is_dir(), reason="AMALGAM_DATA is not set")
def test_a_real_series_without_identity_is_refused_at_once(toy_bundle, tmp_path):
    with pytest.raises(DataError, match=r"(?s)no SeriesInstanceUID and no StudyInstanceUID.*--result nifti"):
        segment(toy_bundle, SAMPLES / "ct_jpeg2000_20slices", tmp_path)  # its anonymiser emptied them
    assert files(tmp_path) == [f for f in files(tmp_path) if "bundle" in f]


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not SAMPLES.is_dir(), reason="AMALGAM_DATA is not set")
def test_real_ct_series(toy_bundle, tmp_path):
    found = segment(toy_bundle, SAMPLES / "ct_3slice_liver", tmp_path, result="both", **WIDE)["ct_3slice_liver"]
    expected = np.asarray(nib.load(found).dataobj)
    assert 0.001 < expected.mean() < 0.9
    assert np.array_equal(label_of(tmp_path / "ct_3slice_liver.dcm", SAMPLES / "ct_3slice_liver"), expected)
    found = segment(toy_bundle, SAMPLES / "ct_jpeg2000_20slices", tmp_path, result="nifti", **WIDE)
    assert nib.load(found["ct_jpeg2000_20slices"]).shape == (512, 512, 20)


@pytest.mark.parametrize(
    "told",
    [[], {"network_data_format": []}, {"network_data_format": {"outputs": [1]}}, 5, "x", [1],
     {"0": "background", "x": "liver"}, {"0": "background", "1": 5}, {"0": "background", "1": "a\x1b[2J"},
     {"0": "background", "1": "$x"}, {"0": "background", "\u00b2": "liver"}],
)  # fmt: skip
def test_metadata_that_name_nothing_name_nothing(tmp_path, told):
    (tmp_path / "configs").mkdir()
    whole = (isinstance(told, list) and not told) or (isinstance(told, dict) and "0" not in told)
    meta = told if whole else {"network_data_format": {"outputs": {"pred": {"channel_def": told}}}}
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps(meta))
    assert structure_names(ConfigParser({}), tmp_path) == ()
