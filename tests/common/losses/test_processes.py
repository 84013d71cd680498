"""A loss over a batch is the same, gradient and all, when two processes have half of the batch each."""

import os
import subprocess
from pathlib import Path

import torch

from common.losses.batch_dice import batch_dice_ce
from common.losses.processes import over_processes
from common.losses.segmentation import annotated_dice_ce
from tests.warm_python import python

ROOT = Path(__file__).resolve().parents[3]

WORK = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from common.engine.run.distributed import start
from tests.common.losses.test_processes import losses, network, batch
rank = start("cpu")
wrapped = DistributedDataParallel(network())
found = losses(wrapped, [part[rank * 2 : rank * 2 + 2] for part in batch()])
sum(found).backward()
with torch.no_grad():
    alone = losses(wrapped.module, [part[rank * 2 : rank * 2 + 2] for part in batch()])
if rank == 0:
    torch.save([torch.stack(found).detach(), torch.stack(alone), wrapped.module.weight.grad], sys.argv[1])
dist.destroy_process_group()
"""


def network():
    torch.manual_seed(0)
    return torch.nn.Conv2d(1, 4, 3, padding=1)


def batch():
    """Four slices; one class is annotated in one half of them alone, another in none."""
    g = torch.Generator().manual_seed(1)
    annotated = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]]).bool()
    label = torch.stack([torch.randint(0, k, (1, 8, 8), generator=g) for k in (2, 2, 3, 3)])
    return [torch.randn(4, 1, 8, 8, generator=g), label, annotated]


def losses(net, parts):
    image, label, annotated = parts
    logits = net(image)
    volume = annotated_dice_ce(logits[..., None], label[..., None], annotated, over="batch")
    return [batch_dice_ce(logits, label, annotated).dice, volume.dice]


def test_two_processes_have_the_loss_and_gradient_of_the_whole_batch(tmp_path):
    (tmp_path / "work.py").write_text(WORK)
    launch = [python(), "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([*launch, str(tmp_path / "work.py"), str(tmp_path / "found.pt")], env=environment, check=True)
    found, alone, gradient = torch.load(tmp_path / "found.pt", weights_only=True)
    whole = network()
    wanted = losses(whole, batch())
    sum(wanted).backward()
    torch.testing.assert_close(found, torch.stack(wanted).detach())
    torch.testing.assert_close(gradient, whole.weight.grad)
    assert not torch.allclose(found, alone), "without gradients each process has its own"


def test_one_process_has_its_own():
    sums = torch.rand(3)
    assert over_processes(sums) is sums
