"""A run that is killed at any moment and started again ends with the weights of an undisturbed one, bit by bit."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial

import pytest
import torch

from common.weights import read_card, read_state_dict


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), f"{name} differs by {(a[name].double() - b[name].double()).abs().max()}"


def test_same_seed_twice_is_identical_and_another_seed_is_not(undisturbed, make_toy) -> None:
    twice, other = make_toy("twice"), make_toy("other")
    assert twice.run() == 0, twice.text()
    assert_same(twice.weights(), undisturbed.weights())
    assert other.run("--seed", "4") == 0
    assert not torch.equal(other.weights()["model.0.conv.weight"], undisturbed.weights()["model.0.conv.weight"])


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_no_weight(undisturbed, toy_bundle, workers) -> None:
    assert toy_bundle.run("--num_workers", str(workers)) == 0, toy_bundle.text()
    assert_same(toy_bundle.weights(), undisturbed.weights())


@pytest.mark.parametrize(
    ("call", "name", "workers", "afterwards"),
    [
        (1, "last.pth", 0, 0),
        (3, "last.pth", 0, 2),
        (3, "last.pth", 2, 1),
        (1, "model.pt", 2, 2),
        (2, "model.pt", 0, 0),
        (2, "model.pt", 1, 0),
    ],
)
def test_killed_while_saving(undisturbed, toy_bundle, kill_in_save, call, name, workers, afterwards) -> None:
    """Whatever the number of workers (which stay between epochs) was before and is afterwards."""
    before = toy_bundle.epoch()
    code = toy_bundle.run("--num_workers", str(workers), before=partial(kill_in_save, call, name))
    assert code == -signal.SIGKILL, toy_bundle.text()
    folder = toy_bundle.last.parent if name == "last.pth" else toy_bundle.model.parent
    assert list(folder.glob(".*.tmp")), "the kill hit the middle of the writing"
    if call > 1:  # what was there before is whole
        assert toy_bundle.epoch() > before
        read_state_dict(toy_bundle.last if name == "last.pth" else toy_bundle.model)
    assert toy_bundle.run("--num_workers", str(afterwards)) == 0, toy_bundle.text()
    assert not list(toy_bundle.root.rglob("*.tmp"))
    assert_same(toy_bundle.weights(), undisturbed.weights())
    assert_same(read_state_dict(toy_bundle.model)[0], read_state_dict(undisturbed.model)[0])


def test_killed_between_epochs_with_other_epoch_counts(undisturbed, toy_bundle) -> None:
    assert toy_bundle.run("--max_epochs", "1") == 0, toy_bundle.text()
    assert toy_bundle.epoch() == 1
    assert toy_bundle.run("--max_epochs", "3") == 0, toy_bundle.text()
    assert "continuing after epoch 1" in toy_bundle.text()
    assert toy_bundle.run() == 0
    assert_same(toy_bundle.weights(), undisturbed.weights())
    rows = (toy_bundle.output / "history.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3", "4"]


@pytest.mark.slow
def test_kill_sweep(make_toy) -> None:
    options = ("--num_workers", "2", "--max_epochs", "25")
    whole, swept = make_toy("whole"), make_toy("swept")
    assert whole.run(*options) == 0, whole.text()
    generator, kills = random.Random(0), 0
    for _ in range(60):
        pid = swept.start(*options)
        time.sleep(generator.uniform(0.2, 2.0))
        os.kill(pid, signal.SIGKILL)
        if swept.wait(pid) == 0:
            break
        kills += 1
    assert swept.run(*options) == 0, swept.text()
    assert kills > 2
    assert_same(swept.weights(), whole.weights())
    assert_same(read_state_dict(swept.model)[0], read_state_dict(whole.model)[0])


def test_a_finished_run_says_so_and_changes_nothing(undisturbed, toy_bundle) -> None:
    assert toy_bundle.run("--max_epochs", "2") == 0
    before = (toy_bundle.last.read_bytes(), toy_bundle.model.read_bytes())
    assert toy_bundle.run("--max_epochs", "2") == 0
    assert "nothing to do" in toy_bundle.text()
    assert toy_bundle.run("--max_epochs", "1") == 0
    assert (toy_bundle.last.read_bytes(), toy_bundle.model.read_bytes()) == before


def test_unreadable_last_falls_back_to_previous(undisturbed, toy_bundle) -> None:
    assert toy_bundle.run("--max_epochs", "3") == 0
    toy_bundle.last.write_bytes(toy_bundle.last.read_bytes()[:1000])
    assert toy_bundle.run() == 0, toy_bundle.text()
    assert "previous.pth instead" in toy_bundle.text()
    assert "continuing after epoch 2" in toy_bundle.text()
    assert_same(toy_bundle.weights(), undisturbed.weights())


def test_both_unreadable_is_an_error_that_names_the_file(toy_bundle) -> None:
    assert toy_bundle.run("--max_epochs", "2") == 0
    for name in ("last.pth", "previous.pth"):
        (toy_bundle.last.parent / name).write_bytes(b"")
    assert toy_bundle.run() == 1
    assert "CheckpointError" in toy_bundle.text() and "previous.pth" in toy_bundle.text()


def test_other_configuration_is_refused_with_the_difference(toy_bundle) -> None:
    assert toy_bundle.run("--max_epochs", "1") == 0
    kept = toy_bundle.last.read_bytes()
    assert toy_bundle.run("--learning_rate", "0.5") == 1
    text = toy_bundle.text()
    assert "learning_rate: 0.01 -> 0.5" in text and "--resume False" in text
    assert "Traceback" not in text.split("CheckpointError")[-1]
    assert toy_bundle.last.read_bytes() == kept
    assert toy_bundle.run("--learning_rate", "0.5", "--resume", "False", "--max_epochs", "1") == 0, toy_bundle.text()
    moved = toy_bundle.output / "checkpoints_1" / "last.pth"
    assert moved.read_bytes() == kept
    assert (toy_bundle.output / "history_previous.csv").exists()


def test_a_foreign_model_is_kept(toy_bundle) -> None:
    toy_bundle.model.parent.mkdir()
    toy_bundle.model.write_bytes(b"somebody's weights")
    assert toy_bundle.run("--max_epochs", "1") == 0, toy_bundle.text()
    kept = list((toy_bundle.model.parent / "previous").iterdir())
    assert [p.read_bytes() for p in kept] == [b"somebody's weights"]
    assert kept[0].suffix == ".pth" and len(kept[0].stem) == len("model_") + 8
    card = read_card(toy_bundle.model)
    assert card is not None and card.labels.names == ("ball",) and card.extra["metric"] == "dice"
    assert len(card.config_hash) == 64
    assert toy_bundle.run("--max_epochs", "2") == 0
    assert len(list((toy_bundle.model.parent / "previous").iterdir())) == 1, "a continued run owns its file"


def test_everything_written_reads_back_without_code(undisturbed) -> None:
    for path in (undisturbed.last, undisturbed.last.with_name("previous.pth"), undisturbed.model):
        torch.load(path, weights_only=True)
