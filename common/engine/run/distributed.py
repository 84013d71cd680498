"""The process group of a `torchrun` launch, with a time limit instead of a hang."""

from __future__ import annotations

import atexit
import datetime
import os
import time

import torch
import torch.distributed as dist
from torch import nn

from ...errors import AmalgamationError, ConfigError

__all__ = ["end", "shared_norms", "start"]

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def start(device: torch.device | str, minutes: float = 10.0) -> int:
    """Join the process group that `torchrun` describes: NCCL on GPUs, gloo on CPUs.

    Args:
        device: this process's device; a GPU becomes the current one.
        minutes: how long a collective call waits for the others before the run ends with an error, > 0.

    Returns:
        The rank of this process.

    Raises:
        ConfigError: when the process was not started by `torchrun`.
    """
    missing = [name for name in _NEEDED if name not in os.environ]
    if missing:
        raise ConfigError(
            "several processes are asked for, but this one was started alone",
            where="multi_gpu_train.json",
            got=f"no {', '.join(missing)} in the environment",
            hint="start it with: torchrun --nproc_per_node=2 -m monai.bundle run --config_file ...",
        )
    if minutes <= 0:
        raise ConfigError("a time limit is positive", where="minutes", got=minutes)
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=datetime.timedelta(minutes=minutes))
        if backend == "gloo":
            atexit.register(_let_go)
    return dist.get_rank()


def _let_go(seconds: float = 0.5) -> None:
    """Let gloo's threads drop the tensors of the last collective call while there still is an interpreter.

    A thread that asks for the interpreter's lock during its shutdown aborts the process, after all work was done
    (https://github.com/pytorch/pytorch/pull/179291). Nothing tells when a thread has let go; it takes microseconds
    once it runs, and sleeping gives it both the lock and the core.
    """
    time.sleep(seconds)


def end(network: nn.Module) -> None:
    """Leave the process group, after making sure that all processes trained the same network.

    Args:
        network: that every process trained, wrapped or not.

    Raises:
        AmalgamationError: when the parameters differ: gradients were not exchanged, and what was saved is one
            process's own.
    """
    own = [float(p.detach().double().sum()) for p in network.parameters()]
    every: list[list[float]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(every, own)
    dist.destroy_process_group()
    apart = [rank for rank, sums in enumerate(every) if sums != every[0]]
    if apart:
        raise AmalgamationError(
            "the processes have trained different networks",
            where="torchrun",
            got=f"ranks {apart} differ from rank 0",
            expected="equal parameters",
            hint="wrap the network that the trainer updates in DistributedDataParallel",
        )


def shared_norms(network: nn.Module, device: torch.device | str) -> nn.Module:
    """The network, whose batch norms see the batches of all processes on GPUs; on a CPU each process has its own.

    Args:
        network: changed in place; norms whose parameters are frozen stay as they are.
        device: of this process.
    """
    if torch.device(device).type != "cuda":
        return network
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            frozen = not any(p.requires_grad for p in child.parameters())
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and not frozen:
                setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
    return network
