"""`stored.json` of ka2er: the experts answer once, a step decodes once, and a continued run is the same run."""

from __future__ import annotations

import json

import pytest
import torch
from ignite.engine import Events

from common.data.store.place import listed
from common.errors import ConfigError, cause_of
from common.experts.answers.ask import AskExpertd
from common.experts.spec import write_manifest
from common.weights import read_state_dict
from tests.bundles.commands import ROOT, parsed
from tests.bundles.test_data_path import assert_equal, epochs
from tests.common.experts.answers.easy import expert

CONFIGS = ROOT / "bundles" / "ka2er" / "configs"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    experts = [
        expert(folder, "ct", "liver", "spleen", value=60.0, role="task", task="phantom_ct"),
        expert(folder, "mr", "liver", value=300.0, channels=("T2 MR",)),
    ]
    return write_manifest(folder / "experts.json", experts)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def configured(manifest, store, phantom_dir, output_dir, **given):
    own = {"bundle_root": ROOT / "bundles" / "ka2er", "dataset_dir": phantom_dir, "experts": manifest, "quiet": True}
    small = {"batch_size": 1, "iterations_per_epoch": 1, "val_interval": 1000, "select": "last", "labels_used": 1}
    return parsed("ka2er", ["train", "smoke", "stored"], **own, **small, store_dir=store, output_dir=output_dir,
                  ckpt_dir=output_dir, device="cpu", **given)  # fmt: skip


def test_workers_change_nothing_and_experts_are_asked_once(manifest, store, phantom_dir, tmp_path, monkeypatch):
    first = configured(manifest, store, phantom_dir, tmp_path, num_workers=0)
    wanted = epochs(first)
    batch = wanted[0]
    assert batch["answers"].shape == (1, 10, 64, 32, 32) and batch["answers"].dtype == torch.uint8
    assert {"answered", "labelled", "annotated", "label"} <= batch.keys() and "raw" not in batch
    monkeypatch.setattr(AskExpertd, "_opened", lambda self: pytest.fail("asked again"))
    assert_equal(epochs(configured(manifest, store, phantom_dir, tmp_path, num_workers=2)), wanted)
    told = [k.chain[0] for k in listed(store)]
    assert {"answers of ct (liver, spleen)", "answers of mr (liver)"} < set(told)


def test_a_run_that_is_cut_goes_on_as_if_nothing_had_been(manifest, store, phantom_dir, tmp_path):
    def run(folder, cut):
        torch.manual_seed(0)
        trainer = configured(manifest, store, phantom_dir, folder).get_parsed_content("train::trainer")
        if cut:

            @trainer.on(Events.EPOCH_STARTED(once=2))
            def stop():
                raise InterruptedError

        with pytest.raises(InterruptedError) if cut else torch.enable_grad():
            trainer.run()
        return trainer

    whole = run(tmp_path / "whole", False)
    assert {"kl", "dice", "loss"} <= whole.state.output[0].keys()
    assert whole.network.experts is None and not whole.network.amalgamation, "no expert is there while it trains"
    run(tmp_path / "cut", True)
    run(tmp_path / "cut", False)
    (first, card), (second, _) = (read_state_dict(tmp_path / n / "model.pt") for n in ("whole", "cut"))
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    taught, settings = card.extra["contract"]["taught"], card.extra["settings"]
    assert (settings["overlap"], settings["overlap_from"]) == (0.5, ["ct", "mr"])
    used = json.loads((phantom_dir / "phantom_lge" / "dataset.json").read_text())["labels"]
    assert set(taught) == {"CT", "T2 MR", "LGE MR"} and {"liver", "spleen"} <= set(taught["CT"])
    assert set(taught["LGE MR"]) <= set(used)
    assert card.extra["contract"]["modalities"]["CT"]["cases"] == 5  # unlabelled scans are learned from, too


@pytest.mark.parametrize("preset", ["smoke", "demo", "laptop", "abdomen_cpu", "atrium_cpu", "multi_gpu_train"])
def test_presets_and_stored_answers_say_nothing_about_each_other(preset):
    own, stored = (json.loads((CONFIGS / f"{n}.json").read_text()).keys() for n in (preset, "stored"))
    assert not own & stored


def test_an_nnunet_student_learns_from_answers_where_stored_is_last():
    config = parsed("ka2er", ["train", "laptop", "nnunet", "stored"])
    assert config["train::loss::_target_"].endswith(".AnswersLoss") and "answers" in config["volumes"]
    assert {"answers", "answered", "taught"} <= set(config["train::trainer::prepare_batch::targets"])
    assert config["network_def::_target_"].endswith(".nnunet_student") and config["student"] == "nnunet"
    assert config["validate::inferer::_target_"].endswith(".NNUNetTiles")


@pytest.mark.parametrize("files", [["train", "stored", "nnunet"], ["train", "laptop", "stored", "nnunet"]])
def test_answers_that_a_later_file_takes_out_are_missed(files, manifest, store, phantom_dir, tmp_path):
    """Labels alone would be learned from, without a word."""
    own = {"bundle_root": ROOT / "bundles" / "ka2er", "dataset_dir": phantom_dir, "experts": manifest}
    config = parsed("ka2er", files, **own, store_dir=store, output_dir=tmp_path, ckpt_dir=tmp_path, device="cpu")
    config["train::dataset::reading"] = config["train::dataset::transform"] = None  # nothing is planned for this
    config["train::dataset::preprocessing"] = None
    with pytest.raises(RuntimeError) as error:
        config.get_parsed_content("train::dataset")
    why = cause_of(error.value, ConfigError)
    assert why is not None and "takes the answers out" in why.problem and "stored.json last" in str(why.hint)
