"""The chain keeps what is finished, redoes what changed, and never deletes a result."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

from common.errors import AmalgamationError, ConfigError, ExpertError
from tests.monai_words import told_by
from tests.tools.empty_dataset import empty_dataset
from tools.chain import run as chain_run
from tools.chain.command import Chain, typed_overrides
from tools.chain.plan import plan
from tools.chain.record import Record
from tools.chain.step import ChainSettings, fingerprint

ROOT = Path(__file__).parents[3]


@pytest.fixture
def settings(collection: Path, tmp_path: Path) -> ChainSettings:
    return ChainSettings("ka2er", collection, tmp_path / "out", preset="smoke", bundles=ROOT / "bundles")


def _run(collection: Path, tmp_path: Path, **more: object) -> str:
    arguments = {"preset": "smoke", "install": False, "report": False, "external": None, "tracking": "none"} | more
    return Chain().run("ka2er", dataset_dir=str(collection), output_dir=str(tmp_path / "out"), **arguments)  # type: ignore[arg-type]


def test_plan_orders_experts_before_students(settings: ChainSettings) -> None:
    steps = plan(settings)
    ids = [s.id for s in steps]
    assert ids[:3] == ["expert:a", "expert:b", "manifest"]
    assert ids.index("amalgamated:seed0") < ids.index("evaluate:amalgamated:seed0")
    for step in steps:
        assert all(ids.index(need) < ids.index(step.id) for need in step.needs)


def test_experts_alone_end_with_their_list(settings: ChainSettings) -> None:
    steps = plan(dataclasses.replace(settings, students=False))
    whole = plan(settings)
    assert [s for s in whole if s.id in {t.id for t in steps}] == steps, "the same steps, so that students may follow"
    left = {s.id for s in whole} - {s.id for s in steps}
    assert "manifest" in {s.id for s in steps} and left and all("amalgamated" in n or "alone" in n for n in left)


@pytest.mark.parametrize("given", [{"install": True}, {"variants": "ensemble"}])
def test_experts_alone_refuse_what_is_a_students(given: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="experts alone have no student"):
        Chain().run("ka2er", dataset_dir="nowhere", students=False, **given)


def test_one_run_of_each_kind_per_seed_and_none_alone_on_request(settings: ChainSettings) -> None:
    three = plan(dataclasses.replace(settings, seeds=(0, 1, 2), alone=False))
    assert [s.id for s in three if s.kind == "amalgamated"] == [f"amalgamated:seed{i}" for i in range(3)]
    assert not [s for s in three if s.kind == "alone"]


def test_external_dataset_becomes_a_task_agnostic_expert(settings: ChainSettings, tmp_path: Path) -> None:
    general = empty_dataset(tmp_path / "general", {"liver": 1})
    steps = plan(dataclasses.replace(settings, external=general))
    step = next(s for s in steps if s.kind == "external")
    assert "--role=external" in step.argv and "evaluate:external:general" not in [s.id for s in steps]


def test_without_an_external_expert_the_student_asks_its_task_expert_only(
    settings: ChainSettings, tmp_path: Path
) -> None:
    general = empty_dataset(tmp_path / "general", {"liver": 1})
    both = dataclasses.replace(settings, external=general)
    configs = {
        name: next(s for s in plan(chosen) if s.kind == "amalgamated").command
        for name, chosen in {"without": settings, "with": both}.items()
    }
    assert "task_only.json" in configs["without"]
    assert "task_only.json" not in configs["with"]


def test_unknown_preset_names_the_known_ones(settings: ChainSettings) -> None:
    with pytest.raises(ConfigError, match="demo"):
        plan(dataclasses.replace(settings, preset="fast"))


def test_unknown_bundle_names_the_known_ones(settings: ChainSettings) -> None:
    with pytest.raises(ConfigError, match="ka2er"):
        plan(dataclasses.replace(settings, bundle="kaer"))


def test_fingerprint_follows_the_content_of_the_inputs(settings: ChainSettings, collection: Path) -> None:
    step = plan(settings)[0]
    before = fingerprint(step)
    assert fingerprint(plan(settings)[0]) == before
    label = collection / "a" / "labelsTr" / "a_0.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), label)
    assert fingerprint(plan(settings)[0]) != before
    assert fingerprint(plan(settings)[1]) == fingerprint(plan(settings)[1])


def test_second_run_does_nothing(collection: Path, tmp_path: Path, calls: list[str]) -> None:
    _run(collection, tmp_path)
    first = list(calls)
    assert "expert:a" in first and "alone:seed0" in first
    _run(collection, tmp_path)
    assert calls == first


def test_dry_run_writes_nothing(collection: Path, tmp_path: Path, calls: list[str]) -> None:
    text = _run(collection, tmp_path, dry_run=True)
    assert "python -m monai.bundle run" in text and not (tmp_path / "out").exists() and not calls


def test_changed_expert_data_redoes_what_depends_on_it(collection: Path, tmp_path: Path, calls: list[str]) -> None:
    _run(collection, tmp_path)
    calls.clear()
    label = collection / "b" / "labelsTr" / "b_0.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)), label)
    _run(collection, tmp_path)
    assert "expert:b" in calls and "amalgamated:seed0" in calls and "expert:a" not in calls
    aside = list((tmp_path / "out" / "experts").glob("b.before-*"))
    assert len(aside) == 1 and (aside[0] / "model.pt").is_file()


def test_failed_step_is_named_and_done_again(
    collection: Path, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend = chain_run._call

    def fail(step, processes):  # type: ignore[no-untyped-def]
        if step.id == "expert:b":
            raise ExpertError("broken", where=step.title)
        pretend(step, processes)

    monkeypatch.setattr(chain_run, "_call", fail)
    with pytest.raises(ExpertError, match="Expert b"):
        _run(collection, tmp_path)
    record = Record.read(tmp_path / "out")
    assert record is not None
    assert {s["id"]: s["status"] for s in record.data["steps"]}["expert:b"] == "failed"
    monkeypatch.setattr(chain_run, "_call", pretend)
    _run(collection, tmp_path)
    assert calls.count("expert:a") == 1 and calls.count("expert:b") == 1


def test_manifest_paths_are_relative_to_the_manifest(collection: Path, tmp_path: Path, calls: list[str]) -> None:
    _run(collection, tmp_path)
    manifest = json.loads((tmp_path / "out" / "experts.json").read_text())
    assert [e["path"] for e in manifest["experts"]] == ["experts/a/model.pt", "experts/b/model.pt"]


def test_a_command_that_fails_says_where_its_output_is(tmp_path: Path, settings: ChainSettings) -> None:
    step = dataclasses.replace(plan(settings)[0], argv=(sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(ExpertError, match=r"exit code 3[\s\S]*no output|expert\.log"):
        chain_run._call(step, chain_run.Processes(1))
    assert issubclass(ExpertError, AmalgamationError)


@pytest.mark.parametrize("whole_group", [True, False])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_no_process_outlives_the_chain_and_each_may_finish_what_it_writes(
    tmp_path: Path, number: int, whole_group: bool
) -> None:
    saved, ready = tmp_path / "saved", tmp_path / "ready"
    work = (
        "import os, pathlib, signal, sys, time\n"
        "seen = []\n"
        "def stop(*_):\n"
        "    seen.append(1)\n"
        "    if len(seen) > 1: os._exit(9)\n"
        "    time.sleep(0.5)\n"
        f"    pathlib.Path({str(saved)!r}).write_text('all')\n"
        "    sys.exit(143)\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(number, stop)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "time.sleep(60)"
    )
    chain = (
        "import os, signal, sys, threading, time\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in what a shell starts with &
        "from tools.chain.run import Processes\n"
        "processes = Processes(1)\n"
        "with ThreadPoolExecutor(1) as pool, processes.ended_with_us():\n"
        f"    job = pool.submit(processes.run, [sys.executable, '-c', {work!r}], dict(os.environ), sys.stderr)\n"
        "    while not job.done(): time.sleep(0.05)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", chain], cwd=ROOT, stderr=subprocess.PIPE, process_group=0)
    deadline = time.monotonic() + 300
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ready.exists(), "the chain did not start its process in time"
    (os.killpg if whole_group else os.kill)(process.pid, number)  # a terminal signals the whole group
    process.communicate(timeout=30)
    assert process.returncode == (-signal.SIGINT if number == signal.SIGINT else 128 + number)
    assert saved.read_text() == "all"


def test_an_ended_chain_starts_nothing() -> None:
    processes = chain_run.Processes(1)
    processes.end()
    assert processes.run([sys.executable, "-c", "raise SystemExit(0)"], {}, sys.stderr) == -signal.SIGTERM


@pytest.mark.parametrize("text", ["--a", "a 1", "--a 1 --b"])
def testtyped_overrides_must_be_pairs(text: str) -> None:
    with pytest.raises(ConfigError, match="pairs"):
        typed_overrides(text)
    assert typed_overrides("--a 1 --b::c x") == (("a", "1"), ("b::c", "x"))


def test_status_of_nothing_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chain run"):
        Chain().status(str(tmp_path))


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_needs_are_respected_however_many_run_at_a_time(
    collection: Path, tmp_path: Path, calls: list[str], jobs: int
) -> None:
    _run(collection, tmp_path, jobs=jobs)
    record = Record.read(tmp_path / "out")
    assert record is not None and all(s["status"] == "done" for s in record.data["steps"])
    assert calls.index("amalgamated:seed0") > max(calls.index("expert:a"), calls.index("expert:b"))
    assert calls.index("evaluate:alone:seed0") > calls.index("alone:seed0")


def test_two_experts_really_run_at_the_same_time(
    collection: Path, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    pretend, meeting = chain_run._call, threading.Barrier(2, timeout=20)

    def meet(step, processes):  # type: ignore[no-untyped-def]
        if step.kind == "expert":
            meeting.wait()
        pretend(step, processes)

    monkeypatch.setattr(chain_run, "_call", meet)
    _run(collection, tmp_path, jobs=2)
    assert {"expert:a", "expert:b"} <= set(calls)


def test_no_job_is_refused_and_a_gpu_is_not_shared(collection: Path, tmp_path: Path, calls: list[str]) -> None:
    with pytest.raises(ConfigError, match="jobs"):
        _run(collection, tmp_path, jobs=0)
    assert chain_run.default_jobs(gpus=1, cores=64) == 1
    assert chain_run.default_jobs(gpus=0, cores=64) == 2 and chain_run.default_jobs(gpus=0, cores=1) == 1


def test_the_latest_progress_is_found_at_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "expert.log"
    assert chain_run.last_progress(log) == ""
    log.write_text("x\nepoch 1/9: loss 2.0, 01:00 left\n... INFO - epoch 2/9: loss 1.5, 00:50 left\nother\n")
    assert chain_run.last_progress(log) == "epoch 2/9: loss 1.5, 00:50 left"


def test_the_tracking_store_is_there_before_the_runs_that_share_it(settings: ChainSettings) -> None:
    from mlflow.tracking import MlflowClient

    from tools.chain.record import prepare_tracking

    settings.output_dir.mkdir()
    prepare_tracking(settings)
    prepare_tracking(settings)
    client = MlflowClient(tracking_uri=settings.tracking_uri)
    assert client.get_experiment_by_name(settings.output_dir.name) is not None
    assert all("--tracking_uri" in told_by(s.argv) for s in plan(settings) if s.kind in ("expert", "amalgamated"))
