"""Packing a bundle of its own: what travels, what is rewritten, what is refused."""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.bundle.scripts import download_large_files

from common.card import ModelCard, save_weights
from common.errors import AmalgamationError, ConfigError, WeightError
from common.integrity import file_hash, seal_of
from common.labels import LabelSpace
from tests.nnunet_folders import tiny_plans
from tools.bundle.checks import check_bundle
from tools.bundle.command import Bundle
from tools.bundle.docs import NOTHING_SHIPPED, missing_sections
from tools.bundle.pack import _describe, _shape, pack_bundle
from tools.bundle.vendor import leftovers, rewritten_config, verify_vendored

ROOT = Path(__file__).resolve().parents[3]
SIZES = {"levels": "bottleneck", "prompt_fuse": "add_norm", "fuse_at": "token", "num_heads": [1, 2, 4, 8]}
README = "# A toy\n" + "".join(
    f"## {s}\nText of `common.errors`.\n\n"
    for s in ("Authors", "Tags", "Model Description", "Data", "Performance", "Commands", "System Configuration")
)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A small bundle whose network is one layer."""
    root = tmp_path / "bundles" / "toy"
    (root / "docs").mkdir(parents=True)
    (root / "eval").mkdir()
    (root / "eval" / "old.txt").write_text("a result")
    (root / "LICENSE").write_text("free")
    (root / "docs" / "README.md").write_text(README)
    (root / "docs" / "data_license.txt").write_text(f"{NOTHING_SHIPPED}\nMore.\n")
    shutil.copytree(ROOT / "bundles" / "ka2er" / "configs", root / "configs")
    for extra in set((root / "configs").glob("*.json")) - {
        root / "configs" / f"{n}.json" for n in ("metadata", "inference", "chain")
    }:
        extra.unlink()
    config = {
        "bundle_root": "$'bundles/toy' if __import__('os').path.isdir('bundles/toy') else '.'",
        "dataset_dir": "data/phantom",
        "output_dir": "runs/toy/predictions",
        "ckpt_dir": "runs/toy",
        "model_path": "$@ckpt_dir + '/model.pt'",
        "device": "cpu",
        "model": {
            "_target_": "common.engine.run.settings.model_settings",
            "path": "@model_path",
            "defaults": {"structures": ["a", "b"], "channels": ["image"], "exclusive": True, "roi_size": [8, 8, 8]},
        },
        "network_def": {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": "$len(@model['labels']) + 1",
                        "kernel_size": 1},
        "network": "@network_def",
        "weights": {"_target_": "common.weights.load_weights", "module": "@network", "source": "@model_path"},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "$@model['roi_size']"},
        "preprocessing": {"_target_": "Identityd", "keys": "image"},
        "dataset": {"_target_": "Dataset", "data": [], "transform": {"_target_": "Compose", "transforms": []}},
        "evaluator": {"_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": "@dataset",
                      "network": "@network"},
        "run": ["$@weights"],
    }  # fmt: skip
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    train = {**config, "train": {"trainer": {"_target_": "SupervisedTrainer", "max_epochs": 1, "device": "@device",
             "train_data_loader": "@dataset", "network": "@network", "optimizer": None, "loss_function": None},
             "dataset": [], "inferer": {"_target_": "SimpleInferer"}, "handlers": ["@some"]},
             "some": {"_target_": "StatsHandler"}}  # fmt: skip
    (root / "configs" / "train.json").write_text(json.dumps(train))
    return root


def trained(path: Path, outputs: int = 4, card: bool = True) -> Path:
    torch.manual_seed(0)
    names = tuple(f"structure {i}" for i in range(1, outputs))
    settings = {"roi_size": [16, 8, 4]}
    told = ModelCard(LabelSpace(names), ("image",), "toy", "1.0", extra={"settings": settings}) if card else None
    return save_weights(path, torch.nn.Conv3d(1, outputs, 1).state_dict(), told)


def test_the_window_of_a_model_is_its_own() -> None:
    plans = tiny_plans()
    (name,) = plans["configurations"]
    plans["configurations"][name]["patch_size"] = [16, 24, 32]  # nnU-Net counts z, y, x
    assert _shape([1, 1, 1], {}, {"plans": plans, "configuration": name}) == [32, 24, 16]
    assert _shape([1, 1, 1], {}, {"roi_size": [8, 9, 10]}) == [8, 9, 10]
    assert _shape([224, 224], {"image_size": 224}, {"image_size": 96}) == [96, 96]
    assert _shape([5, 6], {}, {}) == [5, 6]


def test_what_travels(toy: Path, tmp_path: Path) -> None:
    done = pack_bundle(toy, tmp_path / "out")
    there = {p.relative_to(done.folder).as_posix() for p in done.folder.rglob("*") if p.is_file()}
    own = {n for n in there if not n.startswith("toy_bundle/")}
    assert own == {"LICENSE", "docs/README.md", "docs/data_license.txt", "docs/VENDORED.json"} | {
        f"configs/{n}" for n in ("inference.json", "train.json", "metadata.json", "logging.conf")
    }
    assert "toy_bundle/common/weights.py" in there and "toy_bundle/common/methods/ka2er/network.py" not in there
    record = verify_vendored(done.folder)
    assert record["package"] == "toy_bundle" and len(record["modules"]) == done.modules
    assert leftovers(done.folder) == [] and "no weights" in done.weights
    assert f"toy_v{json.loads((toy / 'configs' / 'metadata.json').read_text())['version']}.zip" == done.zip.name
    text = (done.folder / "docs" / "README.md").read_text()
    assert "toy_bundle.common.errors" in text and "## Commands in the collection" in text


def test_configurations_are_at_home(toy: Path, tmp_path: Path) -> None:
    done = pack_bundle(toy, tmp_path / "out")
    inference = json.loads((done.folder / "configs" / "inference.json").read_text())
    assert inference["bundle_root"] == "." and inference["ckpt_dir"] == "$@bundle_root + '/models'"
    assert inference["output_dir"] == "$@bundle_root + '/eval/predictions'"
    assert inference["weights"]["_target_"] == "toy_bundle.common.weights.load_weights"
    assert inference["dataset"]["transform"] == "$@dataset_transform"
    train = json.loads((done.folder / "configs" / "train.json").read_text())
    parser = ConfigParser(train)
    assert type(parser.get_parsed_content("train::handlers")[0]).__name__ == "StatsHandler"


SCAN = "--dataset::data \"[{'image': 'scan.nii.gz'}]\""
CLICK = "--prompts \"{'liver': {'inside': [[120, 80, 40]]}}\""


@pytest.mark.parametrize(
    ("keys", "shape", "options"),
    [
        ((), 3, [SCAN]),
        ((), 2, [SCAN.replace("scan.nii.gz", "picture.png")]),
        (("modality", "head"), 3, [f"{SCAN} --modality MODALITY --head HEAD"]),
        (("prompts",), 3, [f"{SCAN} {CLICK}"]),
        (("no labels",), 3, []),
    ],
)
def test_the_document_says_how_one_scan_is_segmented(
    toy: Path, tmp_path: Path, keys: tuple[str, ...], shape: int, options: list[str]
) -> None:
    inference, metadata = (toy / "configs" / f"{n}.json" for n in ("inference", "metadata"))
    inference.write_text(json.dumps({**json.loads(inference.read_text()), **dict.fromkeys(keys)}))
    content = json.loads(metadata.read_text())
    content["network_data_format"]["inputs"]["image"]["spatial_shape"] = [8] * shape
    if "no labels" in keys:
        content["network_data_format"]["outputs"]["pred"]["format"] = "magnitude"
    metadata.write_text(json.dumps(content))
    text = (pack_bundle(toy, tmp_path / "out").folder / "docs" / "README.md").read_text()
    start = "python -m monai.bundle run --config_file configs/inference.json"
    assert [line for line in text.splitlines() if "dataset::data" in line] == [f"{start} {o}" for o in options]
    assert ("takes scans where they lie" in text) == bool(options) and "`DATASET` is a folder" in text


def test_rewriting() -> None:
    def changed(content: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = rewritten_config(content, "b_bundle")
        return found

    assert changed({"x": "$common.data.io.f() + 1"}) == {"x": "$b_bundle.common.data.io.f() + 1"}
    assert changed({"note": "common.data.io"}) == {"note": "common.data.io"}  # no code
    assert changed({"output_dir": "$'runs/b/' + @level"}) == {"output_dir": "$@bundle_root + '/eval/' + @level"}
    assert changed({"output_dir": "runs/b"}) == {"output_dir": "$@bundle_root + '/eval'"}
    assert changed({"experts": "runs/b/experts.json"}) == {"experts": "runs/b/experts.json"}
    nested = changed({"train": {"dataset": {"transform": {"a": 1}}}})["train"]
    assert nested == {"dataset_transform": {"a": 1}, "dataset": {"transform": "$@train::dataset_transform"}}


def test_same_input_same_bytes(toy: Path, tmp_path: Path) -> None:
    weights = trained(tmp_path / "w.pt")
    first, second = (pack_bundle(toy, tmp_path / n, weights=weights).zip.read_bytes() for n in ("one", "two"))
    assert first == second


def test_weights_bring_their_labels_window_and_licence(toy: Path, tmp_path: Path) -> None:
    weights = trained(tmp_path / "w.pt")
    done = pack_bundle(toy, tmp_path / "out", weights=weights, weights_licence="CC BY 4.0")
    packed = done.folder / "models" / "model.pt"
    assert packed.read_bytes() == weights.read_bytes()
    assert seal_of(packed).read_text() == f"{file_hash(weights)}  model.pt\n"
    meta = json.loads((done.folder / "configs" / "metadata.json").read_text())
    image, pred = (meta["network_data_format"][k][n] for k, n in (("inputs", "image"), ("outputs", "pred")))
    assert pred["num_channels"] == 4 and pred["channel_def"]["3"] == "structure 3"
    assert image["spatial_shape"] == pred["spatial_shape"] == [16, 8, 4]
    assert meta["licenses"]["weights"] == "CC BY 4.0"
    assert "CC BY 4.0" in (done.folder / "docs" / "data_license.txt").read_text()
    assert "structure 1, structure 2, structure 3" in (done.folder / "docs" / "README.md").read_text()
    assert [f.where for f in check_bundle(done.folder)] == ["configs/evaluate.json"]  # the toy has none
    packed.write_bytes(packed.read_bytes()[:-1])
    assert [f.where for f in check_bundle(done.folder) if f.severity == "error"] == ["models/model.pt"]


def test_words_of_a_card_that_look_like_our_modules_are_words(toy: Path, tmp_path: Path) -> None:
    names = ("common.labels.LabelSpace", "`tools.chain.command.Chain`", "`", "common.errors`")
    data = [{"name": "`common.labels` common.card", "licence": "tools.workflow", "description": "`common.errors`"}]
    card = ModelCard(LabelSpace(names), ("common.geometry",), "toy", "1.0",
                     extra={"settings": {"roi_size": [8, 8, 8]}, "contract": {"format": 1, "data": data}})  # fmt: skip
    weights = save_weights(tmp_path / "w.pt", torch.nn.Conv3d(1, 5, 1).state_dict(), card)
    done = pack_bundle(toy, tmp_path / "out", weights=weights, weights_licence="as common.labels says")
    assert leftovers(done.folder) == []
    meta = json.loads((done.folder / "configs" / "metadata.json").read_text())
    assert list(meta["network_data_format"]["outputs"]["pred"]["channel_def"].values())[1:] == list(names)
    inference = (done.folder / "configs" / "inference.json").read_text()
    assert '"common.labels.LabelSpace"' in inference and "toy_bundle.common.labels.LabelSpace" not in inference


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"settings": {"roi_size": "abc"}}, "roi_size"), ({"settings": {"roi_size": [8, 8]}}, "roi_size"),
     ({"settings": {"roi_size": [8, 8, -1]}}, "roi_size"), ({"settings": {"plans": {}}}, r"settings\."),
     ({"contract": {"format": 1, "data": [{"name": "$x"}]}}, r"contract\.data"),
     ({"contract": {"format": 1, "data": [{"name": "d", "modalities": ["@x"]}]}}, r"contract\.data")],
)  # fmt: skip
def test_a_card_that_no_training_wrote_is_not_packed(
    toy: Path, tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    card = ModelCard(LabelSpace(("a",)), ("image",), "toy", "1.0", extra=changes)
    weights = save_weights(tmp_path / "w.pt", torch.nn.Conv3d(1, 2, 1).state_dict(), card)
    with pytest.raises(AmalgamationError, match=word):
        pack_bundle(toy, tmp_path / "out", weights=weights)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("version", ["../../x", "a/b", "x" * 300, "", "a\nb"])
def test_a_version_is_a_part_of_a_file_s_name(toy: Path, tmp_path: Path, version: str) -> None:
    file = toy / "configs" / "metadata.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": version}))
    with pytest.raises(ConfigError, match="version"):
        pack_bundle(toy, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.zip"))


@pytest.mark.parametrize("name", ['a""" b', "a-b", "1a"])
def test_a_name_that_is_no_package_is_refused(toy: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="package of Python"):
        pack_bundle(toy.rename(toy.with_name(name)), tmp_path / "out")


def test_other_files_become_flat(toy: Path, tmp_path: Path) -> None:
    network, card = torch.nn.Conv3d(1, 3, 1), ModelCard(LabelSpace(("a", "b")), ("image",), extra={"settings": {}})
    path = save_weights(
        tmp_path / "w.safetensors", network.state_dict(), card.with_extra(settings={"roi_size": [8] * 3})
    )
    done = pack_bundle(toy, tmp_path / "out", weights=path)
    state = torch.load(done.folder / "models" / "model.pt", weights_only=True)
    assert isinstance(state, OrderedDict) and torch.equal(state["weight"], network.weight)


def test_weights_that_say_nothing_of_their_labels(toy: Path, tmp_path: Path) -> None:
    torch.save({"model": torch.nn.Conv3d(1, 3, 1).state_dict(), "epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(WeightError, match="how they were trained"):
        pack_bundle(toy, tmp_path / "out", weights=tmp_path / "w.pt")


def test_large_files(toy: Path, tmp_path: Path) -> None:
    weights = trained(tmp_path / "w.pt")
    done = pack_bundle(toy, tmp_path / "out", weights=weights, weights_url=weights.as_uri())
    assert not (done.folder / "models").exists() or not list((done.folder / "models").iterdir())
    assert "roi_size" in (done.folder / "configs" / "inference.json").read_text()
    shutil.copyfile(weights, done.folder / "model.pt")
    (done.folder / "models").mkdir(exist_ok=True)
    (done.folder / "model.pt").rename(done.folder / "models" / "model.pt")
    download_large_files(bundle_path=str(done.folder))  # an existing file is only compared with the hash
    (done.folder / "models" / "model.pt").write_bytes(b"another")
    with pytest.raises(Exception, match=r"(?i)hash|sha256|md5"):
        download_large_files(bundle_path=str(done.folder))


def test_torchscript_travels_with_its_metadata(toy: Path, tmp_path: Path) -> None:
    from monai.data import load_net_with_metadata

    done = pack_bundle(toy, tmp_path / "out", weights=trained(tmp_path / "w.pt"), torchscript=True)
    network, meta, _ = load_net_with_metadata(str(done.folder / "models" / "model.ts"))
    assert network(torch.zeros(1, 1, 16, 8, 4)).shape[1] == 4 and meta["version"]
    assert "script, any window size" in (done.folder / "docs" / "README.md").read_text()


def test_weights_that_do_not_fit(toy: Path, tmp_path: Path) -> None:
    state = {"weight": torch.zeros(9, 1, 1, 1, 1), "bias": torch.zeros(9)}
    wrong = save_weights(
        tmp_path / "w.pt", state, ModelCard(LabelSpace(("a",)), extra={"settings": {"roi_size": [8] * 3}})
    )
    with pytest.raises(WeightError):
        pack_bundle(toy, tmp_path / "out", weights=wrong)
    assert list((tmp_path / "out").iterdir()) == []


def test_refusals(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = pack_bundle(toy, tmp_path / "out")
    with pytest.raises(ConfigError, match="--force"):
        pack_bundle(toy, tmp_path / "out")
    pack_bundle(toy, tmp_path / "out", force=True)
    with pytest.raises(ConfigError, match="packed bundle already"):
        pack_bundle(done.folder, tmp_path / "again")
    for given in ({"torchscript": True}, {"weights_url": "https://x"}, {"weights_licence": "x"}):
        with pytest.raises(ConfigError, match="no weights"):
            pack_bundle(toy, tmp_path / "other", **given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="one bundle"):
        Bundle().pack("all", out=str(tmp_path / "all"), weights="x")
    Bundle().pack(str(toy), out=str(tmp_path / "third"))
    Bundle().unpack(str(next((tmp_path / "third").glob("*.zip"))), str(tmp_path / "fourth"))
    assert "bundle check" in capsys.readouterr().out and (tmp_path / "fourth" / "toy").is_dir()


def test_documents_without_a_section(toy: Path, tmp_path: Path) -> None:
    (toy / "docs" / "README.md").write_text(README.replace("## Performance", "## Speed"))
    assert missing_sections(README.replace("## Performance", "## Speed")) == ["Performance"]
    with pytest.raises(ConfigError, match="Performance"):
        pack_bundle(toy, tmp_path / "out")
    assert "documents" in {f.check for f in check_bundle(toy)}


def test_code_that_was_touched_is_noticed(toy: Path, tmp_path: Path) -> None:
    folder = pack_bundle(toy, tmp_path / "out").folder
    code = folder / "toy_bundle" / "common" / "weights.py"
    for change in (lambda: code.write_text("import os\n"), code.unlink, (code.parent / "more.py").touch):
        change()
        with pytest.raises(ConfigError, match="not what the packer wrote"):
            verify_vendored(folder)
        assert "vendored" in {f.check for f in check_bundle(folder)}
    with pytest.raises(ConfigError, match="was not packed"):
        verify_vendored(toy)


def test_a_reference_that_is_left_is_an_error(toy: Path, tmp_path: Path) -> None:
    folder = pack_bundle(toy, tmp_path / "out").folder
    path = folder / "configs" / "train.json"
    path.write_text(path.read_text().replace("toy_bundle.common", "common"))
    assert "vendored" in {f.check for f in check_bundle(folder)}
    path.write_text(path.read_text().replace("common.weights", "toy_bundle.common.nothing"))
    assert any("defines no" in f.problem or "no module" in f.problem for f in check_bundle(folder))


def test_checking_a_packed_bundle_runs_none_of_its_code(toy: Path, tmp_path: Path) -> None:
    folder = pack_bundle(toy, tmp_path / "out").folder
    for path in folder.rglob("toy_bundle/**/*.py"):
        path.write_text(
            "raise SystemExit('run')\n" + path.read_text().replace("from __future__ import annotations", "")
        )
    found = check_bundle(folder)
    assert {f.check for f in found if f.severity == "error"} == {"vendored"}  # the code was changed, nothing else


def test_a_transform_of_another_name() -> None:
    given = {"train": {"dataset": {"transform": "@train::random"}}, "dataset": {"transform": "@preprocessing"}}
    found = rewritten_config(given, "b_bundle")
    assert found["train"]["dataset"]["transform"] == "$@train::random"
    assert found["dataset"]["transform"] == "@preprocessing"


@pytest.mark.parametrize(
    ("before", "exclusive", "after"),
    [
        ({"0": "background", "1": "a"}, True, {"0": "background", "1": "x", "2": "y"}),
        ({"0": "background", "1": "a"}, False, {"0": "background", "1": "a"}),  # the card's has another form
        ({"0": "prompted"}, True, {"0": "prompted"}),
        ({}, True, {}),
    ],
)
def test_metadata_name_the_structures_where_they_are_named(
    toy: Path, before: dict[str, str], exclusive: bool, after: dict[str, str]
) -> None:
    file = toy / "configs" / "metadata.json"
    meta = json.loads(file.read_text())
    pred = meta["network_data_format"]["outputs"]["pred"]
    pred["channel_def"], pred["num_channels"] = before, 99
    file.write_text(json.dumps(meta))
    card = ModelCard(LabelSpace(("x", "y"), exclusive=exclusive), ("image",), "toy", "1.0")
    _describe(toy, card, [])
    pred = json.loads(file.read_text())["network_data_format"]["outputs"]["pred"]
    assert (pred["channel_def"], pred["num_channels"]) == (after, 3 if after != before else 99)
    told = json.loads((toy / "configs" / "inference.json").read_text())["model"]["defaults"]
    assert (told["structures"], told["exclusive"], told["roi_size"]) == (["x", "y"], exclusive, [8, 8, 8])
