"""Seeds per epoch and one run per folder."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.transforms import RandGaussianNoised
from torch import nn

from common.engine.run.lock import RunLock
from common.engine.run.seeding import SeedEachEpoch, epoch_seed
from common.errors import ConfigError


def test_seeds_differ_and_fit_numpy() -> None:
    seeds = {epoch_seed(s, e, r) for s in range(8) for e in range(50) for r in range(4)}
    assert len(seeds) == 8 * 50 * 4 and all(0 <= s < 2**32 for s in seeds)
    assert epoch_seed(3, 5) == epoch_seed(3, 5, 0)


def record(epochs, *, first=0, seed=1, epoch_length=None, workers=0):
    """Noise and order of every epoch, as an engine sees them that starts after ``first`` epochs."""
    data = [{"image": torch.zeros(1, 2) + i} for i in range(8)]
    dataset = Dataset(data, RandGaussianNoised(keys="image", prob=1.0))
    loader = DataLoader(dataset, batch_size=2, shuffle=True, num_workers=workers)
    network = nn.Linear(1, 1)
    seen = {}

    def step(engine, batch):
        seen.setdefault(engine.state.epoch, []).append(
            torch.cat([batch["image"].flatten(), torch.rand(1), torch.tensor([random.random(), np.random.rand()])])
        )

    trainer = SupervisedTrainer(
        device="cpu", max_epochs=epochs, train_data_loader=loader, network=network, epoch_length=epoch_length,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0), loss_function=nn.MSELoss(), iteration_update=step,
        train_handlers=[SeedEachEpoch(seed=seed)], decollate=False,
    )  # fmt: skip
    trainer.state.epoch = first
    trainer.state.iteration = first * trainer.state.epoch_length
    trainer.run()
    return {epoch: torch.stack(parts) for epoch, parts in seen.items()}


@pytest.mark.parametrize("epoch_length", [None, 3, 5])
def test_an_epoch_is_the_same_wherever_a_run_starts(epoch_length) -> None:
    whole, late = record(4, epoch_length=epoch_length), record(4, first=2, epoch_length=epoch_length)
    assert sorted(late) == [3, 4]
    for epoch in late:
        assert torch.equal(whole[epoch], late[epoch])
    assert not torch.equal(whole[1], whole[2])
    assert not torch.equal(whole[1], record(1, seed=2, epoch_length=epoch_length)[1])


def test_workers_are_seeded_too() -> None:
    assert torch.equal(record(2, workers=2)[2], record(2, first=1, workers=2)[2])


def test_kept_workers_are_forbidden() -> None:
    class Loader:
        persistent_workers = True

    engine = Engine(lambda e, b: None)
    engine.data_loader = Loader()
    with pytest.raises(ConfigError, match="persistent_workers"):
        SeedEachEpoch(seed=0).attach(engine)
    with pytest.raises(ConfigError, match="seed"):
        SeedEachEpoch(seed=-1)


def test_any_engine_can_be_seeded() -> None:
    values = []
    engine = Engine(lambda e, b: values.append(float(torch.rand(()))))
    SeedEachEpoch(seed=0).attach(engine)
    engine.run([0], max_epochs=2)
    assert values[0] != values[1]


# -- lock ---------------------------------------------------------------------------------------------------------


def test_lock_is_taken_and_released(tmp_path) -> None:
    folder = tmp_path / "a run"
    with RunLock(folder) as lock:
        holder = json.loads(lock.path.read_text())
        assert holder["pid"] == os.getpid() and holder["host"] == socket.gethostname()
        assert lock.acquire() is lock
    assert not lock.path.exists()


def test_a_living_process_keeps_its_lock(tmp_path) -> None:
    script = f"""
from common.engine.run.lock import RunLock
RunLock({str(tmp_path)!r}).acquire()
print('ok', flush=True)
input()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True) as child:
        assert child.stdout.readline() == "ok\n"
        with pytest.raises(ConfigError, match="another run") as caught:
            RunLock(tmp_path).acquire()
        assert str(child.pid) in str(caught.value) and "--output_dir" in str(caught.value)
        child.communicate("\n")
    assert not (tmp_path / "run.lock").exists()
    RunLock(tmp_path).acquire().release()


def holder(**changes) -> str:
    return json.dumps({"host": socket.gethostname(), "pid": 2**22 + 5, "started": 1, "since": "then", **changes})


@pytest.mark.parametrize("text", [holder(), holder(pid=os.getppid(), started=1)])
def test_stale_locks_are_taken_over(tmp_path, text) -> None:
    (tmp_path / "run.lock").write_text(text)
    RunLock(tmp_path).acquire().release()


def test_an_empty_lock_of_a_killed_run_is_taken_over(tmp_path) -> None:
    for text in (b"", b"\0" * 64, b"\n"):
        (tmp_path / "run.lock").write_bytes(text)
        os.utime(tmp_path / "run.lock", (0, 0))
        RunLock(tmp_path).acquire().release()


def test_the_lock_of_another_machine_is_respected(tmp_path) -> None:
    (tmp_path / "run.lock").write_text(holder(host="elsewhere"))
    with pytest.raises(ConfigError, match="on elsewhere") as caught:
        RunLock(tmp_path).acquire()
    assert "delete run.lock" in str(caught.value)


NO_LOCKS = (
    "[]",
    "5",
    "\N{REPLACEMENT CHARACTER}",
    "{}",
    "words",
    '{"host": 1, "pid": 2}',
    holder(pid="12"),
    holder(pid=-1),
    holder(pid=2**70),
    "[" * 4000,
)


@pytest.mark.parametrize("text", NO_LOCKS, ids=range(len(NO_LOCKS)))
def test_what_is_no_lock_is_refused_and_kept(tmp_path, text) -> None:
    (tmp_path / "run.lock").write_text(text)
    os.utime(tmp_path / "run.lock", (0, 0))
    with pytest.raises(ConfigError, match="not the lock of a run") as caught:
        RunLock(tmp_path).acquire()
    assert "delete run.lock" in str(caught.value) and (tmp_path / "run.lock").read_text() == text


def contender(folder, start: float, hold: float, pause: float = 0.0) -> int:
    """A process that takes the folder's lock, and rests just before it removes a stale one; status 7 is a refusal."""
    pid = os.fork()
    if pid:
        return pid
    code = 9
    try:
        unlink = Path.unlink
        Path.unlink = lambda path, **more: (time.sleep(pause), unlink(path, **more))[1]
        time.sleep(start)
        RunLock(folder).acquire()
        time.sleep(hold)
        code = 0
    except ConfigError:
        code = 7
    finally:
        os._exit(code)


def test_of_two_that_take_over_a_stale_lock_one_has_it(tmp_path) -> None:
    (tmp_path / "run.lock").write_text(holder())
    both = [contender(tmp_path, 0.0, 0.8, pause=0.4), contender(tmp_path, 0.1, 0.8)]
    assert sorted(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in both) == [0, 7]
