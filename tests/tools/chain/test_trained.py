"""Which chains put their model into the bundle, and what is said where there is none."""

import json
import shlex
from pathlib import Path

import pytest

from common.card import save_weights
from common.errors import ConfigError, WeightError
from common.integrity import file_hash, verify
from tools.chain.command import Chain
from tools.chain.step import ChainSettings, Step
from tools.chain.trained import found_models, install_model, installs, model_hint
from tools.evaluate import run_evaluation
from tools.label.config import read_model
from tools.predict.command import segment

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "bundle", sorted(p.parent.parent.name for p in (ROOT / "bundles").glob("*/configs/chain.json"))
)
def test_only_the_papers_size_installs_by_itself(bundle: str) -> None:
    presets = json.loads((ROOT / "bundles" / bundle / "configs" / "chain.json").read_text())["presets"]
    assert [p for p in presets if installs(None, p)] == ["paper"]
    assert all(installs(True, p) and not installs(False, p) for p in presets)


@pytest.mark.parametrize("answer", ["yes", "true", 1, "", "None"])
def test_other_answers_are_refused(answer: object) -> None:
    with pytest.raises(ConfigError, match="--install True"):
        installs(answer, "paper")  # type: ignore[arg-type]


@pytest.fixture
def chain(tmp_path: Path) -> tuple[list[Step], ChainSettings]:
    out = tmp_path / "runs" / "a chain"
    settings = ChainSettings("ka2er", tmp_path, out, bundles=tmp_path / "bundles")
    save_weights(out / "amalgamated" / "seed0" / "model.pt", {})
    folders = [out / "amalgamated" / f"seed{i}" for i in range(2)]
    return [Step(f"amalgamated:seed{i}", "amalgamated", "", f) for i, f in enumerate(folders)], settings


def test_the_model_in_use_is_kept_and_named(chain: tuple[list[Step], ChainSettings], tmp_path: Path) -> None:
    steps, settings = chain
    source, target = steps[0].output_dir / "model.pt", tmp_path / "bundles" / "ka2er" / "models" / "model.pt"
    assert install_model(steps, settings, install=True) == f"The model is installed as {target}"
    assert target.read_bytes() == source.read_bytes() and verify(target) == file_hash(source)
    assert install_model(steps, settings, install=True) == f"The model is installed already, as {target}"
    assert not (target.parent / "previous").exists()

    target.write_bytes(b"somebody's own model")
    kept = target.parent / "previous" / f"model_{file_hash(target)[:8]}.pth"
    said = install_model(steps, settings, install=True)
    assert said == f"The model is installed as {target} (the one before is {kept})"
    assert kept.read_bytes() == b"somebody's own model" and verify(target) == file_hash(source)


def test_what_is_not_installed_is_named(chain: tuple[list[Step], ChainSettings], tmp_path: Path) -> None:
    steps, settings = chain
    said = install_model(steps, settings, install=False)
    words = shlex.split(said.partition("use ")[2])
    assert words[:2] == ["--weights", f"{steps[0].output_dir / 'model.pt'},"] and said.endswith("add --install True")
    assert not (tmp_path / "bundles").exists()


def test_a_damaged_model_is_not_installed(chain: tuple[list[Step], ChainSettings], tmp_path: Path) -> None:
    steps, settings = chain
    install_model(steps, settings, install=True)
    target = tmp_path / "bundles" / "ka2er" / "models" / "model.pt"
    before = target.read_bytes()
    source = steps[0].output_dir / "model.pt"
    source.write_bytes(source.read_bytes() + b"x")
    with pytest.raises(WeightError, match="not those that were saved"):
        install_model(steps, settings, install=True)
    assert target.read_bytes() == before


@pytest.mark.parametrize(("more", "copied"), [({}, False), ({"install": False}, False), ({"install": True}, True)])
def test_a_chain_says_what_became_of_its_model(
    collection: Path, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch, more, copied: bool
) -> None:
    (tmp_path / "bundles").symlink_to(ROOT / "bundles")
    placed: list[bool] = []
    real = install_model

    def watched(steps, settings, *, install):  # type: ignore[no-untyped-def]
        placed.append(install)
        return real(steps, settings, install=False)

    monkeypatch.setattr("tools.chain.command.install_model", watched)
    said = Chain().run("ka2er", dataset_dir=str(collection), output_dir=str(tmp_path / "out"), preset="smoke",
                       report=False, external=None, tracking="none", **more)  # fmt: skip
    assert placed == [copied] and "use --weights" in said and f"Everything is in {tmp_path / 'out'}" in said


def test_an_answer_that_is_none_is_refused_before_anything_is_done(
    collection: Path, tmp_path: Path, calls: list[str]
) -> None:
    with pytest.raises(ConfigError, match="install"):
        Chain().run("ka2er", dataset_dir=str(collection), output_dir=str(tmp_path / "out"), install="no")  # type: ignore[arg-type]
    assert not calls and not (tmp_path / "out").exists()


def _record(folder: Path, bundle: str, status: str = "done") -> Path:
    model = save_weights(folder / "amalgamated" / "seed0" / "model.pt", {})
    row = {"id": "amalgamated:seed0", "kind": "amalgamated", "status": status, "output_dir": "amalgamated/seed0"}
    (folder / "chain.json").write_text(json.dumps({"bundle": bundle, "steps": [row]}))
    return model


def test_models_of_runs_are_found(tmp_path: Path) -> None:
    assert found_models("toy", tmp_path) == [] and "chain run toy" in model_hint("toy", tmp_path)
    mine = _record(tmp_path / "my run", "toy")
    _record(tmp_path / "other", "m4oe")
    _record(tmp_path / "open", "toy", "running")
    compared = _record(tmp_path / "compare" / "toy", "toy")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "chain.json").write_text("[")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "chain.json").write_text('["x"]')
    away = _record(tmp_path / "away", "toy").parents[2] / "chain.json"
    for place in ("../my run/amalgamated/seed0", str(mine.parent)):
        data = json.loads(away.read_text())
        data["steps"][0]["output_dir"] = place
        away.write_text(json.dumps(data))
        assert sorted(found_models("toy", tmp_path)) == sorted([mine, compared])
    told = model_hint("toy", tmp_path)
    assert f"--weights {shlex.quote(str(mine))}" in told and str(compared) in told and "--install True" in told


def test_a_bundle_without_a_model_says_which_runs_have_one(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_weights
) -> None:
    (toy_bundle / "models" / "model.pt").unlink()
    monkeypatch.chdir(tmp_path)
    scan = tmp_path / "scan.nii.gz"
    scan.write_bytes(b"not read")
    calls = [lambda: segment(str(toy_bundle), scan, tmp_path / "out"),
             lambda: run_evaluation(str(toy_bundle), output_dir=tmp_path / "out"),
             lambda: read_model(toy_bundle)]  # fmt: skip
    for call in calls:
        with pytest.raises(WeightError, match=r"(?s)model\.pt: .*train one: python -m tools chain run 'töy bundle'"):
            call()
    _record(tmp_path / "runs" / "mine", toy_bundle.name)
    for call in calls:
        with pytest.raises(WeightError, match=r"--weights runs/mine/amalgamated/seed0/model\.pt"):
            call()
    assert not (tmp_path / "out").exists()
