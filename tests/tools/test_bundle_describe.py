"""Metadata, documents and viewers say what weights were trained on, by their card, and name no phantom that was not."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from common.card import ModelCard
from common.contract import Contract
from common.engine.evaluation.score_record import scores_file
from common.errors import AmalgamationError, ConfigError, DataError, WeightError
from common.labels import LabelSpace
from tools.bundle.checks import check_metadata
from tools.bundle.pack import pack_bundle
from tools.bundle_describe import (
    check_metadata_text,
    conditions,
    data_lines,
    describe_weights,
    score_lines,
    tiles_told,
    trained_on,
)
from tools.label.config import Model, served_metadata

from .bundle.test_pack import ROOT, toy, trained

__all__ = ["toy"]

DATA: list[dict[str, Any]] = [
    {"name": "btcv", "licence": "Synapse terms", "description": "13 organs | <b>x</b>\n$exit()",
     "reference": "Landman 2015", "modalities": ["CT"],
     "cases": {"training": {"number": 14, "sha256": "ab" * 32}, "test": {"number": 4}}},
    {"name": "chaos", "modalities": ["T2 MR"], "cases": {"training": {"number": 8, "sha256": "`evil`"}}},
]  # fmt: skip
CONTRACT = {
    "modalities": {"CT": {"kind": "CT", "channels": ["CT"]}, "T2 MR": {"kind": "MR", "channels": ["T2 MR"]}},
    "taught": {"CT": ["liver", "spleen"]},
    "data": DATA,
}


def card(**extra: Any) -> ModelCard:
    return ModelCard(LabelSpace(("liver", "spleen")), ("CT | T2 MR",), "toy", "1.0", extra=extra)


def test_whose_tiles_a_pass_takes_over() -> None:
    assert tiles_told(card()) == tiles_told(card(settings={"roi_size": [8, 8, 8]})) == ""
    told = {"overlap": 0.2, "overlap_from": ["organs", "ribs"]}
    own = tiles_told(card(settings=told))
    assert own == "tiles overlap by 0.2 of their size and step by 0.8, as at home those of organs, ribs"
    assert tiles_told(card(settings={"overlap": 0.5, "overlap_from": []})).endswith("step by 0.5, as nnU-Net's")
    with pytest.raises(WeightError, match=r"w\.pt, settings\.overlap"):
        tiles_told(card(settings={"overlap": 7}), "w.pt")


def measured(value: float | None) -> dict[str, Any]:
    return {"mean": value, "median": value, "low": 0.5, "high": 0.9, "n": 3}


def entry(split: str, dice: float, **changes: Any) -> dict[str, Any]:
    block = {"dice": measured(dice), "hd95": measured(None)}
    return {"tasks": ["btcv"], "split": split, "ignore_card": False, "cases": 3, "mean": block,
            "structures": {"liver": block}, **changes}  # fmt: skip


SCORES = [entry("validation", 0.9), entry("test", 0.6), entry("test", 0.8, tasks=["btcv", "chaos"]),
          entry("test", 0.3), entry("test", 1.0, ignore_card=True, tasks=["a", "b", "c"])]  # fmt: skip


@pytest.mark.parametrize("bundle", sorted(p.parent.name for p in (ROOT / "bundles").glob("*/configs")))
def test_no_bundle_names_the_phantom_for_weights_of_other_data(bundle: str) -> None:
    meta = json.loads((ROOT / "bundles" / bundle / "configs" / "metadata.json").read_text())
    assert "phantom" in json.dumps(meta)
    describe_weights(meta, card(contract=CONTRACT), SCORES)
    assert "phantom" not in json.dumps({k: v for k, v in meta.items() if k != "changelog"})
    assert meta["data_source"] == "btcv (CT; cases: 14 training, 4 test); chaos (T2 MR; cases: 8 training)"
    assert meta["data_source"] in meta["description"] and "liver, spleen" in meta["description"]
    assert meta["licenses"]["data"] == "btcv: Synapse terms (Landman 2015); chaos: licence not stated"
    metrics = meta["eval_metrics"]
    assert (metrics["mean_dice"], metrics["mean_dice_interval"], metrics["split"]) == (0.8, [0.5, 0.9], "test")
    assert metrics["liver_dice"] == 0.8 and "liver_hd95" not in metrics
    image = next(iter(meta["network_data_format"]["inputs"].values()))
    assert image["modality"] == "CT, MR" and image["channel_def"] == {"0": "CT | T2 MR"} and image["num_channels"] == 1
    old: dict[str, Any] = json.loads((ROOT / "bundles" / bundle / "configs" / "metadata.json").read_text())
    describe_weights(old, card())
    assert "not recorded" in old["data_source"] and "not recorded" in old["licenses"]["data"]
    assert old["eval_metrics"] == {} and "phantom" not in old["description"]


def test_lines_of_documents_hold_no_signs_from_data() -> None:
    contract = Contract.of_card(card(contract=CONTRACT))
    text = "\n".join(data_lines(contract))
    assert "| btcv | CT | 14 training, 4 test | Synapse terms | `" + "ab" * 32 + "` |" in text
    assert "evil" not in text and "<b>" not in text and "$" not in text and "- taught on CT: liver, spleen" in text
    assert text.count("\n") == 6 and "13 organs / (b)x(/b) exit() (Landman 2015)" in text
    assert "not recorded" in trained_on(Contract()) == conditions(Contract()) and len(data_lines(Contract())) == 1
    lines = score_lines(SCORES)
    assert "split test of btcv, chaos: 3 cases" in lines[0] and "| liver | 0.800 [0.500, 0.900] | – |" in lines
    assert score_lines([]) == [] == score_lines([entry("test", 1.0, ignore_card=True)])


def test_a_packed_bundle_says_it(toy: Path, tmp_path: Path) -> None:
    weights = trained(tmp_path / "w.pt", card=False)
    from common.card import save_weights
    from common.weights import read_state_dict

    told = ModelCard(
        LabelSpace(("a", "b", "c")),
        ("T1",),
        "toy",
        "1.0",
        extra={"settings": {"roi_size": [8, 8, 8], "overlap": 0.2, "overlap_from": ["ribs"]}, "contract": CONTRACT},
    )
    save_weights(weights, read_state_dict(weights)[0], told)
    import hashlib

    found = {"weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(), "evaluations": SCORES}
    scores_file(weights).write_text(json.dumps(found))
    done = pack_bundle(toy, tmp_path / "out", weights=weights)
    text = (done.folder / "docs" / "README.md").read_text()
    assert "A pass: tiles overlap by 0.2 of their size and step by 0.8, as at home those of ribs." in text
    assert "trained on: btcv (CT" in text and "| liver | 0.800" in text and "measured with other weights" in text
    assert "Synapse terms" in (done.folder / "docs" / "data_license.txt").read_text()
    meta = json.loads((done.folder / "configs" / "metadata.json").read_text())
    assert meta["eval_metrics"]["mean_dice"] == 0.8 and meta["data_source"].startswith("btcv")
    assert sorted(p.name for p in (done.folder / "models").iterdir()) == ["model.pt", "model.pt.sha256"]


def test_viewers_are_told(tmp_path: Path) -> None:
    model = Model(ROOT / "bundles" / "ka2er", tmp_path / "model.pt", card(settings={}, contract=CONTRACT))
    meta = served_metadata(model)
    assert meta["data_source"].startswith("btcv") and "phantom" not in meta["description"]


EVIL = "$import evilmod"


@pytest.fixture
def evilmod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a statement in metadata would run; gives the file that it would leave."""
    (tmp_path / "evilmod.py").write_text(f"open({str(tmp_path / 'PWN')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "evilmod", raising=False)
    return tmp_path / "PWN"


def run_all(meta: dict[str, Any]) -> None:
    """What MONAI makes of a bundle's metadata."""
    parser = ConfigParser(json.loads(json.dumps(meta)))
    parser.parse()
    parser.get_parsed_content("version")


def ours() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "bundles" / "ka2er" / "configs" / "metadata.json").read_text())
    return found


def test_metadata_that_run_code_do_so(evilmod: Path) -> None:
    """Otherwise the tests below would prove nothing."""
    run_all({**ours(), "eval_metrics": {"split": EVIL}})
    assert evilmod.exists()


@pytest.mark.parametrize(
    "data",
    [{"name": EVIL}, {"name": "", "modalities": [EVIL]}, {"name": "", "cases": {"test": {"number": EVIL}}},
     {"name": "x", "licence": EVIL, "reference": "@network"}, {"name": "%x.json", "cases": {EVIL: {"number": 1}}},
     {"name": "x", "cases": 5}, {"name": "x", "modalities": 5}, {"name": "x", "cases": {"test": {"number": [1]}}}],
)  # fmt: skip
def test_a_card_runs_nothing_through_metadata(evilmod: Path, data: dict[str, Any]) -> None:
    meta = ours()
    with contextlib.suppress(AmalgamationError):
        describe_weights(meta, card(contract={**CONTRACT, "data": [data]}), SCORES)
        run_all(meta)
        assert meta["data_source"] != trained_on(Contract())
    for told in ({EVIL: {"channels": ["CT"]}}, {"CT": {"channels": ["CT"], "kind": EVIL}}):
        with pytest.raises(WeightError, match="weights rename"):
            describe_weights(ours(), card(contract={"modalities": told}))
    assert not evilmod.exists()


@pytest.mark.parametrize(
    "change", [{"split": EVIL}, {"cases": EVIL}, {"cases": [EVIL]}, {"tasks": 5}, {"structures": {EVIL: {}}},
               {"mean": {"dice": measured(None) | {"mean": EVIL}, "hd95": measured(None)}}, {"mean": 5}],
)  # fmt: skip
def test_scores_run_nothing_through_metadata(evilmod: Path, change: dict[str, Any]) -> None:
    bad = [{**entry("test", 0.5), **change}]
    for use in (lambda: describe_weights(ours(), card(), bad), lambda: score_lines(bad)):
        with pytest.raises(DataError, match="evaluations"):
            use()
    assert not evilmod.exists()


@pytest.mark.parametrize(
    "text", [EVIL, "$1+1", "@version", "%x.json::a", "see @::version", "see @##version", {"_target_": "os.getcwd"}],
)  # fmt: skip
def test_metadata_hold_plain_text_alone(text: Any) -> None:
    for meta in ({"a": text}, {"a": [{"b": text}]}, {"a": {"_target_": 1}}, *([{text: 1}] if text == EVIL else [])):
        with pytest.raises(ConfigError, match="plain text alone"):
            check_metadata_text(meta)
    with pytest.raises(ConfigError, match="plain text alone"):
        describe_weights({**ours(), "changelog": {"1": text}}, card())
    check_metadata_text({"a": "costs 5 $, 50 % off # me@home", "b": [1, None, 0.5]})


def test_viewers_and_packed_bundles_ask_the_gate(tmp_path: Path, toy: Path) -> None:
    copied = tmp_path / "evil" / "configs"
    copied.mkdir(parents=True)
    (copied / "metadata.json").write_text(json.dumps({**ours(), "copyright": EVIL}))
    with pytest.raises(ConfigError, match="copyright"):
        served_metadata(Model(copied.parent, tmp_path / "model.pt", card(settings={}, contract=CONTRACT)))
    with pytest.raises(ConfigError, match="licenses::weights"):
        pack_bundle(toy, tmp_path / "out", weights=trained(tmp_path / "w.pt"), weights_licence=EVIL)
    assert list((tmp_path / "out").iterdir()) == []
    assert any(f.problem.startswith("metadata hold plain") for f in check_metadata(copied.parent))
