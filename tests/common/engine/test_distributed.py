"""A distributed run starts where torchrun started it, and says so where it did not."""

import socket

import pytest
import torch.distributed as dist

from common.engine.distributed import start
from common.errors import ConfigError


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
