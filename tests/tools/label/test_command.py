"""Bundles laid out for MONAI Label, without a server: names, files, settings, and what is refused."""

import json
import re
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from common.card import save_weights
from common.errors import ConfigError, DataError, WeightError
from tests.label.toys import STRUCTURES, toy_weights
from tools.bundle.closure import named_modules
from tools.label import config as label_config
from tools.label import refine as label_refine
from tools.label.command import Label
from tools.label.config import kinds_of, read_model
from tools.label.layout import copy_app, folder_name, lay_out
from tools.label.server import Server, check_studies, find_python

BUNDLES = Path(__file__).resolve().parents[3] / "bundles"
GIVEN = {"m4oe": {"modality": "CT", "head": "abdomen"}}
ALL = [(b, k) for b in ("ka2er", "m4oe", "samora", "sam_med3d_moe", "ic_moe") for k in kinds_of(BUNDLES / b)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return {bundle: toy_weights(bundle, folder) for bundle in dict(ALL)}


@pytest.fixture
def laid_out(weights, tmp_path):
    def make(bundle, kind="segmentation", **options):
        model = read_model(BUNDLES / bundle, weights[bundle])
        return lay_out(model, tmp_path / "model", kind, given=options.pop("given", GIVEN.get(bundle, {})), **options)

    return make


def config(folder, name="inference"):
    return json.loads((folder / "configs" / f"{name}.json").read_text())


def test_what_each_bundle_can_be():
    assert [k for b, k in ALL if b == "ka2er"] == ["segmentation", "deepgrow", "deepedit"]
    assert [k for b, k in ALL if b == "sam_med3d_moe"] == ["deepgrow", "deepedit"]
    assert all(k == "segmentation" for b, k in ALL if b in ("m4oe", "samora", "ic_moe"))


@pytest.mark.parametrize(("bundle", "kind"), ALL)
def test_the_folder_is_what_the_server_reads(laid_out, weights, bundle, kind):
    folder = laid_out(bundle, kind)
    assert folder.name == f"{bundle}_{kind}"
    assert {p.name for p in (folder / "models").glob("*.pt")} == {"model.pt"}
    assert {p.name for p in (folder / "configs").iterdir()} == {
        "inference.json",
        "train.json",
        "metadata.json",
        "logging.conf",
    }
    data = config(folder, "metadata")["network_data_format"]
    assert list(data["inputs"]) == ["image"] and list(data["outputs"]) == ["pred"]
    assert list(data["outputs"]["pred"]["channel_def"].values()) == ["background", *STRUCTURES]
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser.config.update(bundle_root=str(folder), device="cpu")
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    steps = parser.get_parsed_content("postprocessing").transforms
    assert (
        not [s for s in steps if type(s).__name__.startswith("Save")] and type(steps[-1]).__name__ == "DescribeAnswerd"
    )
    assert parser.get_parsed_content("preprocessing").transforms and parser.get_parsed_content("inferer") is not None


@pytest.mark.parametrize(("bundle", "kind"), ALL)
def test_a_training_without_data_builds_but_for_its_loader(laid_out, bundle, kind):
    train = config(laid_out(bundle, kind), "train")
    assert all(isinstance(h, dict) and "_target_" in h for h in train["train"]["handlers"])
    assert "displayable_configs" not in train and train["run"] == ["$@train::trainer.run()"]
    parser = ConfigParser(train)
    for part in ("network", "train::dataset", "train::optimizer", "train::loss", "validate::evaluator", "card"):
        assert parser.get_parsed_content(part) is not None
    assert len(parser.get_parsed_content("validate::dataset")) == 0


def test_weights_of_a_servers_training_stay_until_they_are_not_wanted(laid_out, weights):
    folder = laid_out("samora")
    file = folder / "models" / "model.pt"
    state = torch.load(file, weights_only=True)
    save_weights(file, {k: v + 1 if v.is_floating_point() else v for k, v in state.items()})
    trained = file.read_bytes()
    assert laid_out("samora") == folder and file.read_bytes() == trained
    laid_out("samora", fresh=True)
    assert file.read_bytes() == weights["samora"].read_bytes()
    assert [p.read_bytes() for p in (folder / "models" / "previous").glob("*.pth")] == [trained]


def test_other_weights_take_the_place_of_those_before(laid_out, weights, tmp_path):
    folder = laid_out("samora")
    other = tmp_path / "other.pt"
    state = torch.load(weights["samora"], weights_only=True)
    card = read_model(BUNDLES / "samora", weights["samora"]).card
    save_weights(other, {k: v * 2 if v.is_floating_point() else v for k, v in state.items()}, card)
    lay_out(read_model(BUNDLES / "samora", other), folder.parent, "segmentation", given={})
    assert (folder / "models" / "model.pt").read_bytes() == other.read_bytes()


def test_choices_are_offered_the_given_one_first(laid_out):
    shown = config(laid_out("m4oe", given={"modality": "T2 MR", "head": "kidneys"}))["displayable_configs"]
    assert shown["modality"] == ["T2 MR", "CT"] and shown["head"] == ["kidneys", "abdomen"]
    assert "modality" not in config(laid_out("samora")).get("displayable_configs", {})


def test_a_model_of_several_modalities_wants_to_be_told(laid_out):
    with pytest.raises(ConfigError, match="--modality"):
        laid_out("m4oe", given={"head": "abdomen"})
    with pytest.raises(ConfigError, match="no such head"):
        laid_out("m4oe", given={"modality": "CT", "head": "heart"})


def test_a_folders_name_decides_what_it_is(weights):
    model = read_model(BUNDLES / "ka2er", weights["ka2er"])
    assert folder_name(model, "deepgrow", "mine") == "mine_deepgrow"
    assert folder_name(model, "segmentation", "my_segmentation") == "my_segmentation"
    for name in ("my_deepedit", "detection_of"):
        with pytest.raises(ConfigError, match="something else"):
            folder_name(model, "segmentation", name)
    with pytest.raises(ConfigError, match="cannot be offered"):
        lay_out(read_model(BUNDLES / "samora", weights["samora"]), Path("nowhere"), "deepgrow", given={})


def test_a_self_contained_bundle_brings_its_own_code(weights, tmp_path):
    import shutil

    bundle = tmp_path / "samora"
    shutil.copytree(BUNDLES / "samora", bundle)
    (bundle / "samora_bundle" / "common").mkdir(parents=True)
    (bundle / "samora_bundle" / "common" / "x.py").write_text("")
    folder = lay_out(read_model(bundle, weights["samora"]), tmp_path / "model", "segmentation", given={})
    text = (folder / "configs" / "inference.json").read_text() + (folder / "configs" / "train.json").read_text()
    assert (
        '"samora_bundle.common.data.transforms.loading' in text.replace("transforms.LoadCased", "loading")
        and '"common.' not in text
    )
    assert (folder / "samora_bundle" / "common" / "x.py").is_file()


def test_weights_are_needed_and_must_say_what_they_are(tmp_path):
    with pytest.raises(WeightError, match="no weights to serve"):
        read_model(BUNDLES / "ka2er", tmp_path / "model.pt")
    save_weights(tmp_path / "model.pt", {"a": torch.zeros(1)})
    with pytest.raises(WeightError, match="how they were trained"):
        read_model(BUNDLES / "ka2er", tmp_path / "model.pt")


def test_without_the_servers_environment_the_way_to_it_is_said(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="make label"):
        find_python(tmp_path / "python")
    monkeypatch.setenv("AMALGAM_LABEL_PYTHON", str(tmp_path / "elsewhere"))
    with pytest.raises(ConfigError, match="elsewhere"):
        Label().start("ka2er", str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text("")
    with pytest.raises(ConfigError, match="no MONAI Label"):
        find_python(tmp_path / "bin" / "python")
    with pytest.raises(ConfigError, match="no app"):
        copy_app(tmp_path, tmp_path / "app")


@pytest.fixture
def environment(tmp_path):
    """An interpreter that passes for the server's, and ends at once or says nothing."""

    def make(script):
        root = tmp_path / "label env"
        (root / "bin").mkdir(parents=True)
        (root / "lib" / "python3.11" / "site-packages" / "monailabel").mkdir(parents=True)
        (root / "lib" / "python3.11" / "site-packages" / "monailabel" / "main.py").write_text("")
        (root / "bin" / "python").write_text(f"#!/bin/sh\n{script}\n")
        (root / "bin" / "python").chmod(0o755)
        return find_python(root / "bin" / "python")

    return make


def server(python, tmp_path, **options):
    (tmp_path / "app").mkdir()
    return Server(python=python, app=tmp_path / "app", models=["a_segmentation"], studies="s", code=tmp_path, port=9,
                  log=tmp_path / "log", **options)  # fmt: skip


def test_a_server_that_ends_shows_its_last_words(environment, tmp_path):
    with pytest.raises(ConfigError, match="the server ended") as caught:
        server(environment("echo out of luck; exit 3"), tmp_path).start(20)
    assert "status 3" in str(caught.value) and "out of luck" in str(caught.value)


def test_a_server_that_says_nothing_is_ended(environment, tmp_path):
    found = server(environment("exec sleep 60"), tmp_path)
    with pytest.raises(ConfigError, match="does not answer"):
        found.start(1)
    assert found.process.poll() is not None


def test_the_settings_that_work_offline(environment, tmp_path):
    found = server(environment("exit 0"), tmp_path)
    words = " ".join(found.command)
    for wanted in ("zoo_source local", "sam2 false", "--host=127.0.0.1", "models a_segmentation"):
        assert wanted in words
    assert (
        found.environment["PYTHONPATH"].startswith(str(tmp_path))
        and "," not in found.environment["CUDA_VISIBLE_DEVICES"]
    )


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.png", "a.jpg", "a.tif"])
def test_studies_that_the_server_lists(tmp_path, name):
    (tmp_path / "series").mkdir()
    (tmp_path / name).write_bytes(b"x")
    assert check_studies(tmp_path) is None


@pytest.mark.parametrize("name", ["a.mha", "a.NII", "a.dcm", "a.jpeg", "series/a.nii.gz"])
def test_studies_that_the_server_would_not_list(environment, tmp_path, name):
    studies = tmp_path / "s"
    (studies / name).parent.mkdir(parents=True)
    (studies / name).write_bytes(b"x")
    with pytest.raises(DataError, match="would list nothing") as caught:
        Label().start("ka2er", str(studies), python=str(environment("exit 0")))
    assert caught.value.got == name.replace("series/a.nii.gz", "series/")
    assert ".nrrd" in caught.value.expected and "dicom-web" in caught.value.hint


def test_an_empty_folder_of_studies_is_allowed_and_said(tmp_path):
    assert "is empty" in check_studies(tmp_path)
    (tmp_path / "labels" / "final").mkdir(parents=True)
    for own in ("datastore_v2.json", ".lock"):
        (tmp_path / own).write_text("{}")
    assert "is empty" in check_studies(tmp_path)


def test_studies_must_be_there(environment, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        Label().start("ka2er", str(tmp_path / "none"), python=str(environment("exit 0")))


def test_what_a_server_names_travels_with_packed_bundles():
    sources = [Path(m.__file__).read_text(encoding="utf-8") for m in (label_config, label_refine)]
    named = named_modules(re.findall(r'"(common\.[\w.]+)"', "\n".join(sources)))
    methods = {n for n in named if n.startswith("common.methods.")}  # in the bundle's own configurations
    assert named - methods - set(label_refine.SERVED_TARGETS) == set()
    assert set(label_refine.SERVED_TARGETS) <= named
    assert {n.split(".")[2].split("_")[0] for n in methods} == {"sam"}
