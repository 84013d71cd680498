"""Signals, locks, full disks, misspelt options and tracking, through ``python -m monai.bundle run``."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import time

import pytest
import torch


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_with_a_complete_checkpoint(toy_bundle, number, code) -> None:
    pid = toy_bundle.start("--max_epochs", "5000", "--num_workers", "0")
    toy_bundle.wait_for(lambda: toy_bundle.epoch() > 1)
    os.kill(pid, number)
    assert toy_bundle.wait(pid) == code, toy_bundle.text()
    reached = toy_bundle.epoch()
    assert reached > 1
    assert toy_bundle.run("--max_epochs", str(reached + 1)) == 0, toy_bundle.text()
    assert f"continuing after epoch {reached}" in toy_bundle.text()


def test_ctrl_c_while_saving_finishes_the_file_first(toy_bundle) -> None:
    def interrupt_in_save() -> None:
        save = torch.save

        def slow_save(content, file, *args, **kwargs):
            if "last.pth" in str(file):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
            save(content, file, *args, **kwargs)

        torch.save = slow_save

    assert toy_bundle.run(before=interrupt_in_save) == 130
    assert "the checkpoint is being written" in toy_bundle.text()
    assert toy_bundle.epoch() == 1


def test_second_ctrl_c_ends_at_once_and_loses_nothing(toy_bundle) -> None:
    def interrupt_twice() -> None:
        save, calls = torch.save, []

        def stuck_save(content, file, *args, **kwargs):
            save(content, file, *args, **kwargs)
            if "last.pth" in str(file):
                calls.append(file)
                if len(calls) == 2:
                    os.kill(os.getpid(), signal.SIGINT)
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(60)

        torch.save = stuck_save

    assert toy_bundle.run(before=interrupt_twice) == 130
    assert toy_bundle.epoch() == 1


def test_a_second_run_in_the_same_folder_refuses(toy_bundle) -> None:
    first = toy_bundle.start("--max_epochs", "5000")
    toy_bundle.wait_for(lambda: toy_bundle.epoch() > 0)
    log, toy_bundle.log = toy_bundle.log, toy_bundle.root / "second.txt"
    assert toy_bundle.run() == 1
    assert "another run is using this output folder" in toy_bundle.text()
    assert f"process {first} on" in toy_bundle.text()
    toy_bundle.log = log
    os.kill(first, signal.SIGKILL)
    assert toy_bundle.wait(first) == -signal.SIGKILL
    assert (toy_bundle.output / "run.lock").exists()
    assert toy_bundle.run("--max_epochs", "1") == 0, "the lock of a dead process is taken over"


def test_a_full_disk_is_one_error_and_the_previous_file_stays(toy_bundle) -> None:
    assert toy_bundle.run("--max_epochs", "2") == 0
    before = toy_bundle.last.read_bytes()

    def small_files_only() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, len(before) // 2))

    assert toy_bundle.run(before=small_files_only) == 1
    text = toy_bundle.text()
    assert "CheckpointError" in text and "the disk is full" in text and "last.pth" in text, text
    assert "the previous file is intact" in text
    assert toy_bundle.last.read_bytes() == before
    assert not list(toy_bundle.root.rglob("*.tmp"))
    assert toy_bundle.run() == 0 and toy_bundle.epoch() == 4


def test_a_nearly_full_disk_is_refused_before_the_first_epoch(toy_bundle) -> None:
    assert toy_bundle.run("--run::0::free_gb", "1e9") == 1
    assert "not enough free disk space" in toy_bundle.text()
    assert not toy_bundle.last.exists()


def test_the_real_command_refuses_a_misspelt_override(toy_bundle) -> None:
    result = toy_bundle.command("--max_epoch", "1")
    assert result.returncode == 1
    assert "did you mean --max_epochs?" in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    assert not toy_bundle.output.exists()


def test_the_real_command_merges_overlays_and_tracks_with_mlflow(make_toy) -> None:
    toy_bundle = make_toy("tracked")  # MONAI quotes the artifact folder twice when its path has spaces
    overlay = toy_bundle.root / "configs" / "smoke.json"
    overlay.write_text(json.dumps({"max_epochs": 7, "learning_rate": 0.02}))
    files = f"['{toy_bundle.config}','{overlay}']"
    result = toy_bundle.command("--config_file", files, "--train::trainer::max_epochs", "2", "--tracking", "mlflow")
    assert result.returncode == 0, result.stderr[-3000:]
    assert toy_bundle.epoch() == 2
    with sqlite3.connect(toy_bundle.output / "mlruns.db") as store:
        params = dict(store.execute("select key, value from params"))
        metrics = {name for (name,) in store.execute("select distinct key from metrics")}
        steps = [s for (s,) in store.execute("select step from metrics where key = 'epoch_loss' order by step")]
    assert params["learning_rate"] == "0.02" and params["seed"] == "3"
    assert len(params["config_hash"]) == 64
    assert {"train_loss", "dice", "epoch_loss", "epoch_val_dice", "epoch_lr"} <= metrics
    assert steps == [1, 2]
    artifacts = {p.name for p in (toy_bundle.output / "mlruns").rglob("*") if p.is_file()}
    assert {"history.csv", "curves.png", "val_0.png", "config.json"} <= artifacts
    assert json.loads(next((toy_bundle.output / "mlruns").rglob("config.json")).read_text())["learning_rate"] == 0.02


def test_not_finite_loss_names_the_cases(toy_bundle) -> None:
    config = json.loads(toy_bundle.config.read_text())
    data = config["train"]["dataset"]["data"]
    config["train"]["dataset"]["data"] = data.replace("/ 64 + i", "/ 64 + (i if i != 3 else float('nan'))", 1)
    toy_bundle.write(config)
    assert toy_bundle.run() == 1
    assert "DataError" in toy_bundle.text() and "case_3" in toy_bundle.text()
    assert not toy_bundle.last.exists()
