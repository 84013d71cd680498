"""A distributed run starts where torchrun started it, and says so where it did not."""

import os
import socket
import subprocess
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from common.engine.monitor.history import read_history
from common.engine.run.distributed import shared_norms, start
from common.errors import ConfigError
from tests.warm_python import python

ROOT = Path(__file__).resolve().parents[4]


def test_without_torchrun_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="torchrun"):
        start("cpu")


def test_one_process_makes_a_group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ConfigError, match="minutes"):
        start("cpu", minutes=0)
    try:
        assert start("cpu") == 0 and start("cpu") == 0
        assert dist.get_backend() == "gloo" and dist.get_world_size() == 1
    finally:
        dist.destroy_process_group()


WORK = """
import sys
import torch
from torch import nn
from common.engine.run.distributed import end, start
rank, wrapped = start("cpu"), sys.argv[1] == "True"
torch.manual_seed(0)
network = nn.Linear(3, 2)
trained = nn.parallel.DistributedDataParallel(network) if wrapped else network
trained(torch.full((1, 3), float(rank + 1))).sum().backward()
torch.optim.SGD(network.parameters(), lr=0.1).step()
end(network)
"""


HISTORY = """
import sys
from ignite.engine import Engine
from common.engine.run.distributed import start
from common.engine.monitor.history import History
rank = start("cpu")
engine = Engine(lambda engine, batch: {"loss": float(rank + batch), **({"own": 4.0} if rank else {})})
History(output_dir=sys.argv[1]).attach(engine)
engine.run([1, 3], max_epochs=2)
"""


def launch(folder: Path, code: str, *words: object) -> subprocess.CompletedProcess[str]:
    (folder / "work.py").write_text(code)
    launcher = [python(), "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [*launcher, str(folder / "work.py"), *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_history_is_of_all_processes(tmp_path: Path) -> None:
    done = launch(tmp_path, HISTORY, tmp_path / "out")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = read_history(tmp_path / "out" / "history.csv")
    assert [r["epoch"] for r in rows] == [1, 2]
    assert all(r["loss"] == 2.5 and r["own"] == 2.0 for r in rows)  # (1 + 3 + 2 + 4) / 4, (4 + 4) / 4


@pytest.mark.parametrize("wrapped", [True, False])
def test_processes_that_trained_different_networks_are_noticed(wrapped: bool, tmp_path: Path) -> None:
    done = launch(tmp_path, WORK, wrapped)
    assert (done.returncode == 0) == wrapped, done.stderr[-2000:]
    assert wrapped or "ranks [1] differ from rank 0" in done.stderr


def test_norms_that_learn_are_shared_between_gpus_and_only_those() -> None:
    def network() -> nn.Module:
        made = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4)))
        made[2][0].requires_grad_(False)
        made[1].running_mean.fill_(3.0)
        return made

    on_cpu = shared_norms(network(), "cpu")
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in on_cpu.modules())
    plain = network()
    names = list(plain.state_dict())
    shared = shared_norms(plain, torch.device("cuda", 0))
    assert isinstance(shared[1], nn.SyncBatchNorm) and not isinstance(shared[2][0], nn.SyncBatchNorm)
    assert list(shared.state_dict()) == names and bool((shared[1].running_mean == 3.0).all())
