"""The zoo's own checks and ours for every bundle of the collection, and that each check can fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from tools.bundle.checks import SCHEMA, check_bundle
from tools.bundle.command import verify_network

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(p.parent for p in (ROOT / "bundles").glob("*/configs"))
every_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda p: p.name)
Edit = Callable[[Path], None]


@every_bundle
def test_no_errors(bundle: Path) -> None:
    assert [f for f in check_bundle(bundle) if f.severity == "error"] == []


@every_bundle
def test_no_advice(bundle: Path) -> None:
    assert [f for f in check_bundle(bundle) if f.severity == "advice"] == []


@every_bundle
def test_zoo_verify_metadata(bundle: Path, tmp_path: Path) -> None:
    """MONAI's own command, with the schema put where it would download it to."""
    from monai.bundle import verify_metadata

    schema = tmp_path / "schema.json"
    shutil.copy(SCHEMA, schema)
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(schema))


@every_bundle
def test_zoo_verify_net_in_out(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a small window; nothing trained and nothing downloaded is needed to build the network."""
    monkeypatch.chdir(ROOT)
    bundle = copy(bundle, tmp_path)
    shape = window(bundle)
    prefix = "_meta_::network_data_format::{}::spatial_shape"
    verify_network(bundle, **{prefix.format("inputs::image"): shape, prefix.format("outputs::pred"): shape})


@pytest.mark.slow
@every_bundle
def test_zoo_verify_net_in_out_at_full_size(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    verify_network(copy(bundle, tmp_path))


@every_bundle
def test_verify_net_in_out_can_fail(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    broken = copy(bundle, tmp_path)
    edit_json("metadata", lambda m: m["network_data_format"]["outputs"]["pred"].update(num_channels=97))(broken)
    shape = window(broken)
    with pytest.raises(ConfigError, match="metadata"):
        verify_network(broken, **{"_meta_::network_data_format::inputs::image::spatial_shape": shape})


@every_bundle
def test_properties_that_apps_ask_for(bundle: Path) -> None:
    """The ids that MONAI's workflows, the zoo and MONAI Label look up (as literal keys)."""
    train = json.loads((bundle / "configs" / "train.json").read_text())
    inference = json.loads((bundle / "configs" / "inference.json").read_text())
    assert {"bundle_root", "device", "dataset_dir", "train", "run"} <= train.keys()
    assert {"trainer", "dataset", "inferer", "handlers", "preprocessing"} <= train["train"].keys()
    assert "max_epochs" in train["train"]["trainer"]
    assert "data" in train["train"]["dataset"]
    assert isinstance(train["train"]["handlers"], list)
    wanted = {"bundle_root", "device", "dataset_dir", "dataset", "evaluator", "network_def", "inferer", "run"}
    assert wanted | {"preprocessing", "postprocessing"} <= inference.keys()
    for config in (train, inference):
        assert "initialize" not in config
        assert next(iter(config)) == "bundle_root"


def window(bundle: Path) -> list[int]:
    """The input to verify a network with: small, or its own where it takes crops of one size only."""
    meta = json.loads((bundle / "configs" / "metadata.json").read_text())
    image = meta["network_data_format"]["inputs"]["image"]
    inference = json.loads((bundle / "configs" / "inference.json").read_text())
    network = inference.get("model", {}).get("defaults", {}).get("network", {})
    fixed = image["is_patch_data"] and isinstance(network, dict) and "image_size" in network
    return [n if fixed else min(32, n) for n in image["spatial_shape"]]


def copy(bundle: Path, folder: Path) -> Path:
    target = folder / bundle.name
    ignored = shutil.ignore_patterns("*.pt", "*.pth", "eval")
    shutil.copytree(bundle, target, ignore=ignored)
    return target


def edit_json(name: str, change: Callable[[dict[str, Any]], object]) -> Edit:
    def edit(bundle: Path) -> None:
        path = bundle / "configs" / f"{name}.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return edit


def write(name: str, text: str) -> Edit:
    def edit(bundle: Path) -> None:
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_text(text, encoding="utf-8")

    return edit


OUTPUT = ("network_data_format", "outputs", "pred")


def output(meta: dict[str, Any]) -> dict[str, Any]:
    for key in OUTPUT:
        meta = meta[key]
    return meta


BROKEN: dict[str, tuple[str, Edit]] = {
    "no licence": ("directory", lambda b: (b / "LICENSE").unlink()),
    "no readme": ("directory", lambda b: (b / "docs" / "README.md").unlink()),
    "a scripts package": ("directory", write("scripts/__init__.py", "")),
    "a second .pt": ("directory", write("models/expert.pt", "")),
    "a link out of the bundle": ("directory", lambda b: (b / "docs" / "link").symlink_to(b.parent)),
    "no schema": ("metadata", edit_json("metadata", lambda m: m.pop("schema"))),
    "no authors": ("metadata", edit_json("metadata", lambda m: m.pop("authors"))),
    "supported_apps is a list": ("metadata", edit_json("metadata", lambda m: m.update(supported_apps=[]))),
    "version not in changelog": ("metadata", edit_json("metadata", lambda m: m.update(version="9.9.9"))),
    "a range for a version": ("metadata", edit_json("metadata", lambda m: m.update(numpy_version=">=1.26"))),
    "a changelog that is a number": ("metadata", edit_json("metadata", lambda m: m.update(changelog=5))),
    "channel names by letter": ("metadata", edit_json("metadata", lambda m: output(m).update(channel_def={"a": 1}))),
    "channel names in a list": ("metadata", edit_json("metadata", lambda m: output(m).update(channel_def=["a"]))),
    "a format in a list": ("metadata", edit_json("metadata", lambda m: m.update(network_data_format=[1]))),
    "too few channel names": ("metadata", edit_json("metadata", lambda m: output(m)["channel_def"].popitem())),
    "one-hot called segmentation": (
        "metadata",
        edit_json("metadata", lambda m: output(m).update(format="segmentation")),
    ),
    "not JSON": ("metadata", write("configs/metadata.json", "{")),
    "a key twice": ("metadata", write("configs/metadata.json", '{"version": "1", "version": "2"}')),
    "a hash sign": ("strings", edit_json("train", lambda c: c.update(note="see page #3"))),
    "a macro": ("strings", edit_json("train", lambda c: c.update(note="%other.json::a"))),
    "broken Python": ("expressions", edit_json("train", lambda c: c.update(note="$1 +"))),
    "a lambda": ("expressions", edit_json("train", lambda c: c.update(note="$lambda x: x"))),
    "an import and a reference": (
        "expressions",
        edit_json("train", lambda c: c.update(note="$__import__('os').getcwd() + @output_dir")),
    ),
    "initialize": ("expressions", edit_json("train", lambda c: c.update(initialize=["$1"]))),
    "a missing reference": ("references", edit_json("train", lambda c: c.update(note="@nothing::here"))),
    "a reference in an expression": ("references", edit_json("train", lambda c: c.update(note="$@nothing + 1"))),
    "metadata at run time": ("references", edit_json("train", lambda c: c.update(note="@_meta_::version"))),
    "a missing class": ("targets", edit_json("train", lambda c: c.update(note={"_target_": "common.errors.Nothing"}))),
    "a missing component": ("targets", edit_json("train", lambda c: c.update(note={"_target_": "NoSuchTransformd"}))),
    "a wrong argument": (
        "targets",
        edit_json("train", lambda c: c.update(note={"_target_": "Orientationd", "keys": "image", "axcode": "RAS"})),
    ),
    "a missing argument": ("targets", edit_json("train", lambda c: c.update(note={"_target_": "LoadImaged"}))),
}


@pytest.fixture(scope="module")
def found_in_intact(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[Any, ...]]:
    """What the checks say of a copy that nothing was done to."""
    return {f[:3] for f in check_bundle(copy(BUNDLES[0], tmp_path_factory.mktemp("intact")))}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_copy_is_noticed(case: str, tmp_path: Path, found_in_intact: set[tuple[Any, ...]]) -> None:
    """Each broken copy has an error of the expected check that the intact bundle has not."""
    check, edit = BROKEN[case]
    broken = copy(BUNDLES[0], tmp_path / "broken")
    edit(broken)
    new = {f[:3] for f in check_bundle(broken) if f.severity == "error"} - found_in_intact
    assert check in {name for name, _, _ in new}


def test_a_broken_overlay_is_noticed(tmp_path: Path) -> None:
    bundle = copy(BUNDLES[0], tmp_path)
    write("configs/mine.json", '{"train::nothing::here": 1}')(bundle)
    assert any("do not merge" in f.problem and "mine.json" in f.where for f in check_bundle(bundle))


def test_checking_runs_nothing(tmp_path: Path) -> None:
    """Neither a ``$`` expression nor a module of the bundle is executed."""
    bundle = copy(BUNDLES[0], tmp_path)
    trace = tmp_path / "trace"
    expression = f"$open({str(trace)!r}, 'w')"
    edit_json("train", lambda c: c.update(note=expression, other={"_target_": "os.mkdir", "path": str(trace)}))(bundle)
    findings = check_bundle(bundle)
    assert not trace.exists()
    assert any(f.severity == "advice" and "os.mkdir" in f.problem for f in findings)
