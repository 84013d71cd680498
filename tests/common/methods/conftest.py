from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from common.data.datasets.datalist import Collection
from common.data.datasets.dataset import Dataset
from common.data.datasets.dataset_json import SPLITS, Case
from common.experts.expert_set import ExpertSet
from common.experts.features import Heard
from common.labels import LabelSpace
from common.methods.ka2er.network import KA2ER
from common.methods.ka2er.student import KA2ERStudent

STRUCTURES = ("liver", "spleen", "tumour")
SIZE = (32, 32, 64)


class FakeExpert(nn.Module):
    """A frozen network with two feature maps and logits, in the interface of an expert."""

    def __init__(self, *, name, names, role="task", widths=(4, 6), exclusive=True):
        super().__init__()
        labels = LabelSpace(tuple(names), exclusive=exclusive)
        self.spec = SimpleNamespace(name=name, task=name if role == "task" else "", role=role, labels=labels)
        self.channels_of_features, self.calls, self.seen = list(widths), 0, []
        self.first = nn.Sequential(nn.AvgPool3d(16), nn.Conv3d(1, widths[0], 1), nn.BatchNorm3d(widths[0]))
        self.second = nn.Sequential(nn.AvgPool3d(2), nn.Conv3d(widths[0], widths[-1], 1))
        self.out = nn.Conv3d(1, len(labels) + exclusive, 1)
        self.requires_grad_(False).eval()

    def features(self, raw, stats, spacing, axcodes="RAS"):
        self.calls += 1
        self.seen.append((len(raw), tuple(spacing), axcodes))
        shallow = self.first(raw - stats[:, :1, :1, None, None])
        return [shallow, self.second(shallow)][-len(self.channels_of_features) :]

    def logits(self, raw, stats, spacing, axcodes="RAS"):
        self.calls += 1
        return self.out(raw)

    def both(self, raw, stats, spacing, axcodes="RAS"):
        return Heard(self.features(raw, stats, spacing, axcodes), self.out(raw))


def fake_experts():
    return ExpertSet(
        [
            FakeExpert(name="ct", names=("liver", "spleen")),
            FakeExpert(name="mr", names=("tumour", "elsewhere"), widths=(5, 7)),
            FakeExpert(name="any", names=("thing",), role="external", widths=(3, 8)),
        ]
    )


def tiny_student(**options):
    given = {"num_structures": 3, "feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 4), **options}
    return KA2ERStudent(**given)


def tiny_ka2er(*, student=None, experts=None, **options):
    experts = fake_experts() if experts is None else experts
    return KA2ER(
        student=student or tiny_student(), experts=experts or None, tasks=("ct", "mr"), structures=STRUCTURES, **options
    )


def tiny_batch(tasks=(0, 1)):
    n = len(tasks)
    label = torch.zeros(n, 1, *SIZE)
    annotated = torch.tensor([[True, True, True, False], [True, False, False, True]])[list(tasks)]
    for b, task in enumerate(tasks):
        label[b, 0, 4:12, 6:20, 10:40] = 3 if task else 1
    raw = label * 0.7 + torch.randn(n, 1, *SIZE) * 0.1
    stats = torch.zeros(n, 1, 10)
    return {
        "image": raw - raw.mean(),
        "raw": raw,
        "stats": stats,
        "task_id": torch.tensor(tasks),
        "annotated": annotated,
        "label": label,
    }


def of_modality(modality, channel="image"):
    """A collection of one task and one case of a modality; no file is there."""
    cases = {**dict.fromkeys(SPLITS, ()), "training": (Case("c", (Path("c.nii"),), Path("l.nii"), "c"),)}
    labels = LabelSpace(("liver", "spleen", "liver tumour"))
    return Collection("all", Path(), (Dataset("task", Path(), (channel,), labels, cases, 3, modality),))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def make():
    """Builders of tiny networks, experts and batches."""
    return SimpleNamespace(
        student=tiny_student, ka2er=tiny_ka2er, batch=tiny_batch, experts=fake_experts, expert=FakeExpert
    )
