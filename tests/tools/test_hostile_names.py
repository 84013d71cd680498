"""Text from data is never code, option or path: hostile names go through every command, and nothing of them happens."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser

from tests.hostile import VALUES
from tests.monai_words import arguments_of, told_by
from tests.tools.empty_dataset import empty_dataset
from tools.__main__ import main
from tools.chain.plan import plan
from tools.chain.step import ChainSettings

RUNS = "__import__('os').system('touch PWN')"
NAMES = (
    f"${RUNS}",
    "@dataset_dir",
    "%bundles/ka2er/configs/train.json",
    f"x::${RUNS}",
    "../../outside",
    "a\x1b[2Jb",
    "a\u202eb",
    "--device",
)
# what file systems allow and configurations or command lines would obey
FILES = (
    f"${RUNS}",
    "@x",
    "%x",
    "a#b",
    "12345",
    "2024_01",
    "a,b",
    "[x]",
    "{'a': 1}",
    "a::b",
    "None",
    "=1+2",
    "x y",
    "it's",
    "-x",
)


@pytest.fixture(autouse=True)
def nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder three deep, and see afterwards that nothing ran and nothing was written above."""
    place = tmp_path / "a" / "b" / "work"
    place.mkdir(parents=True)
    for name in ("bundles", "common", "tools"):
        (place / name).symlink_to(Path(__file__).resolve().parents[2] / name)
    monkeypatch.chdir(place)
    yield
    assert list(tmp_path.rglob("PWN*")) == []
    above = {p.name for folder in (tmp_path, tmp_path / "a", tmp_path / "a" / "b") for p in folder.iterdir()}
    assert above <= {"a", "b", "work", "töy bundle"}
    assert not (Path(__file__).resolve().parents[2] / "PWN").exists()


def edited(folder: Path, **changes: Any) -> Path:
    file = folder / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def hostile_sets(name: str, root: Path) -> dict[str, Path]:
    """A dataset for each place where a ``dataset.json`` holds a name."""
    made = {
        w: empty_dataset(root / w, {"liver": 1})
        for w in ("task", "structure", "msd", "channel", "modality", "one", "case")
    }
    edited(made["task"], name=name)
    edited(made["structure"], labels={"background": 0, name: 1})
    edited(made["msd"], labels={"0": "background", "1": name})
    edited(made["channel"], channel_names={"0": name})
    edited(made["one"], channel_names=name)
    entry = {**json.loads((made["modality"] / "dataset.json").read_text())["training"][0], "modality": name}
    edited(made["modality"], training=[entry])
    del made["case"]
    return made


def refused(words: list[str], capsys: pytest.CaptureFixture[str], status: int = 2) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "400")
        try:
            found = main(words)
        except SystemExit as ended:
            found = ended.code
    told = capsys.readouterr()
    assert found == status, (words, told)
    assert "Traceback" not in told.err
    assert not set("\x1b\u202e") & set(told.err + told.out)
    return told.out + told.err


@pytest.mark.parametrize("name", NAMES)
def test_every_command_refuses_a_data_set_with_such_a_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for what, folder in hostile_sets(name, Path("data")).items():
        place = str(folder)
        shown = ascii(name)[1:-1][:20]
        told = refused(["data", "check", place, "--quiet"], capsys, status=1)
        assert "cannot be the name of a" in told and shown in told, (what, told)
        good = str(empty_dataset(Path("good") / what / "ct", {"liver": 1}))
        for words in (
            ["data", "list", place], ["data", "split", place], ["data", "merge", place, good, "--out", "merged"],
            ["data", "collection", place, good, "--out", "joined"],
            ["chain", "run", "ka2er", "--dataset_dir", place, "--dry_run"],
            ["compare", "methods", "--dataset_dir", place],
            ["compare", "run", "--dataset_dir", place, "--methods", "ka2er,m4oe", "--preset", "smoke", "--dry_run"],
        ):  # fmt: skip
            assert "cannot be the name of a" in refused(words, capsys), words
        assert not Path("merged").exists() and not Path("joined/collection.json").exists()


@pytest.mark.parametrize("name", NAMES)
def test_collections_and_given_names_pass_the_same_gate(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = empty_dataset(Path("data") / "ct", {"liver": 1})
    for option in ({"labels": {"liver": name}}, {"modality": name}):
        Path("data/collection.json").write_text(json.dumps({"datasets": ["ct"], "tasks": {"ct": option}}))
        assert "cannot be the name of a" in refused(["data", "list", "data"], capsys)
    given = {"structures": "liver=1", "channels": "CT", "name": "new"}
    for option in ({"name": name}, {"structures": f"{name}=1"}, {"channels": name}):
        words = ["data", "convert", f"{folder}/imagesTr", "new", "--labels", f"{folder}/labelsTr"]
        words += [f"--{key}={value}" for key, value in {**given, **option}.items()]
        assert "cannot be the name of a" in refused(words, capsys)
        assert not Path("new/dataset.json").exists()


@pytest.mark.parametrize("identity", ["../../x", "a/b", "a\\b", "a\nb", "..", "a\u202eb"])
def test_a_case_cannot_lead_out_of_a_folder(identity: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = empty_dataset(Path("data") / "ct", {"liver": 1})
    edited(folder, training=[{**json.loads((folder / "dataset.json").read_text())["training"][0], "id": identity}])
    assert "cannot be the name of a case" in refused(["data", "check", str(folder), "--quiet"], capsys, status=1)
    assert "cannot be the name of a case" in refused(
        ["chain", "run", "ka2er", "--dataset_dir", str(folder), "--dry_run"], capsys
    )


def run_as_monai(argv: tuple[str, ...]) -> dict[str, Any]:
    """The knobs of a printed command, as Fire and MONAI's configuration read them."""
    found = arguments_of(argv[argv.index("monai.bundle") + 1 :])
    assert set(found) == {key[2:] for key in told_by(argv)}
    files = found.pop("config_file")
    assert all(Path(f).is_file() for f in ([files] if isinstance(files, str) else files))
    parser = ConfigParser(dict(found))
    return {key: parser.get_parsed_content(key) for key in found}


@pytest.mark.parametrize("bundle", ["ka2er", "m4oe", "sam_med3d_moe"])
@pytest.mark.parametrize(
    "name", [*(f for f in FILES if "::" not in f and f[0] not in "$@%-" and "#" not in f), "liver+", "a (b)"]
)
def test_ordinary_but_odd_names_reach_every_step_of_a_chain_as_they_are(bundle: str, name: str) -> None:
    """The task, its folder, its structure and its modality all have the name; the output folder, too."""
    made = edited(empty_dataset(Path("data") / name, {"liver": 1, "liver+": 2}), name=name,
                  labels={"background": 0, name: 1, "other": 2}, channel_names={"0": name})  # fmt: skip
    other = edited(empty_dataset(Path("data") / "second", {"liver": 1}), channel_names={"0": "MR"})
    out = Path("runs") / name
    structures, phase1 = (name,) if bundle[:3] == "sam" else (), "separate" if bundle == "m4oe" else None
    settings = ChainSettings(bundle, Path("data"), out, preset="smoke", structures=structures, phase1=phase1)
    steps = plan(settings)
    folders = [s.output_dir for s in steps if s.kind == "expert"]
    assert len({str(f).casefold() for f in folders}) == len(folders)
    assert all(f.resolve().is_relative_to(out.resolve()) for f in folders)
    seen = [run_as_monai(s.argv) for s in steps if s.argv]
    assert {k["output_dir"] for k in seen} <= {str(s.output_dir) for s in steps}
    assert all(k["dataset_dir"] in ("data", str(made), str(other)) for k in seen)
    if bundle == "ka2er":
        assert name in {k.get("name") for k in seen}
    if bundle == "m4oe":
        assert {name, "MR"} == {k["modality"] for k in seen if "modality" in k}
    if bundle == "sam_med3d_moe":
        assert [name] in [k.get("structures") for k in seen]


CHAINS = sorted(p.parent.parent.name for p in Path(__file__).resolve().parents[2].glob("bundles/*/configs/chain.json"))


@pytest.mark.parametrize("bundle", CHAINS)
def test_a_name_that_passed_the_gate_would_be_no_option_either(bundle: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the gate, which refuses many of these, stand the words: the gate is open here."""
    monkeypatch.setattr("common.literals._checked", lambda text, *rest, **more: str(text))
    root, content = Path("-data"), json.loads(Path(f"bundles/{bundle}/configs/chain.json").read_text())
    made = edited(empty_dataset(root / "--one", {"liver": 1}), dim=content.get("dim", 3))
    edited(empty_dataset(root / "-two", {"liver": 1}), channel_names={"0": "MR"}, dim=content.get("dim", 3))
    structures, phase1 = bundle[:3] == "sam" and bundle != "samora", "separate" if bundle == "m4oe" else None
    told = {"ka2er": "name", "m4oe": "modality", "sam_med3d_moe": "structures"}.get(bundle)
    for name in [v for v in VALUES if v.startswith("-")][:: 1 if told else 6]:
        edited(made, name=name, labels={"background": 0, name: 1, "other": 2}, channel_names={"0": name})
        steps = plan(ChainSettings(bundle, root, Path("-out"), preset="smoke", phase1=phase1,
                                   structures=(name,) if structures else ()))  # fmt: skip
        seen = [run_as_monai(s.argv) for s in steps if s.argv]
        assert {k["output_dir"] for k in seen} <= {str(s.output_dir) for s in steps}
        assert all(k["dataset_dir"] in ("-data", "-data/--one", "-data/-two") for k in seen)
        assert all(shlex.split(s.command)[1:] == list(s.argv[1:]) for s in steps if s.argv)
        if told is not None:
            assert ([name] if told == "structures" else name) in [k.get(told) for k in seen], name


@pytest.mark.parametrize("name", ["@x", "%x", "a#b", f"${RUNS}", "50% of me@home", "-x", "--dry_run", "-"])
def test_folders_may_be_called_as_they_like(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(name)
    empty_dataset(root / "ct", {"liver": 1})
    steps = plan(ChainSettings("ka2er", root, root / "runs", preset="smoke", tracking="mlflow"))
    for step in (s for s in steps if s.argv):
        knobs = run_as_monai(step.argv)
        assert knobs["output_dir"] == str(step.output_dir) and knobs["dataset_dir"].startswith(name)
        assert knobs.get("experiment_name", "runs") == "runs"
        assert knobs.get("tracking_uri", f"sqlite:///{(root / 'runs' / 'mlruns.db').resolve()}").endswith("mlruns.db")
    words = ["--dataset_dir", f"./{name}", "--output_dir", f"./{name}/r", "--preset", "smoke", "--dry_run"]
    assert main(["chain", "run", "ka2er", *words]) == 0
    assert main(["data", "list", f"./{name}"]) == 0
    capsys.readouterr()


def test_predict_takes_the_names_of_files_as_names(toy_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans = Path(f"in ${RUNS} #1")
    scans.mkdir()
    voxels = np.zeros((12, 10, 8), np.float32)
    voxels[3:9, 3:8, 2:6] = 100
    for name in FILES:
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), scans / f"{name}.nii.gz")
    out = Path("@out %x #2")
    assert main(["predict", str(toy_bundle), f"./{scans}", f"./{out}"]) == 0
    assert sorted(p.name for p in out.iterdir()) == sorted(f"{name}.nii.gz" for name in FILES)
    for name in FILES:
        assert np.asarray(nibabel.load(out / f"{name}.nii.gz").dataobj).any()
    (scans / "12345.nii.gz").rename("12345")
    capsys.readouterr()
    assert main(["predict", str(toy_bundle), "12345", "2024_01"]) == 2
    assert "12345: not an image" in capsys.readouterr().err
