"""Kept features change nothing but the time."""

import pytest
import torch
from torch import nn

from common.engine.inference.kept_windows import KeptWindowInferer
from common.engine.inference.windows import WindowInferer
from common.errors import ConfigError
from common.methods.ka2er.student import KA2ERStudent


class Counted(nn.Module):
    """Counts how often windows are encoded; boxes shift the logits."""

    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Conv3d(1, 4, 3, padding=1), 0

    def features(self, image):
        self.calls += len(image)
        return self.layer(image)

    def mask_head(self, features, boxes=None):
        return features[:, :3] + (0 if boxes is None else boxes.nan_to_num().sum())

    def forward(self, image, boxes=None):
        return self.mask_head(self.features(image), boxes)


OPTIONS = {"roi_size": (8, 8, 8), "overlap": 0.25, "sw_batch_size": 2, "with_prompts": True}
IMAGE = torch.randn(1, 1, 16, 12, 8, generator=torch.Generator().manual_seed(0))
BOX = torch.tensor([[[1.0, 1, 1], [5, 5, 5]]])


@torch.no_grad()
def test_the_same_answers_and_one_encoding():
    network = Counted().eval()
    prompts = (None, BOX, BOX + 2, None)
    wanted = [WindowInferer(**OPTIONS)(IMAGE, network, boxes=boxes) for boxes in prompts]
    network.calls = 0
    found = [KeptWindowInferer(**OPTIONS)(IMAGE, network, boxes=prompts[0])]
    once = network.calls
    # a new inferer each time, as after a configuration is read again
    found += [KeptWindowInferer(**OPTIONS)(IMAGE, network, boxes=boxes) for boxes in prompts[1:]]
    assert network.calls == once > 0
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert not torch.equal(found[0], found[1])


@torch.no_grad()
def test_another_scan_or_other_weights_are_encoded_again():
    network, inferer = Counted().eval(), KeptWindowInferer(**OPTIONS)
    inferer(IMAGE, network)
    first = network.calls
    inferer(IMAGE, network)
    assert network.calls == first > 0
    inferer(IMAGE + 1, network)
    assert network.calls == 2 * first
    network.load_state_dict(network.state_dict())
    inferer(IMAGE + 1, network)
    assert network.calls == 3 * first


@torch.no_grad()
def test_without_room_nothing_is_kept():
    network, inferer = Counted().eval(), KeptWindowInferer(cache_gb=0, **OPTIONS)
    inferer(IMAGE, network)
    first = network.calls
    inferer(IMAGE, network)
    assert network.calls == 2 * first


def test_gradients_pass():
    network = Counted()
    KeptWindowInferer(**OPTIONS)(IMAGE, network).sum().backward()
    assert network.layer.weight.grad is not None


@torch.no_grad()
def test_ka2ers_two_parts_are_the_whole():
    torch.manual_seed(0)
    student = KA2ERStudent(num_structures=2, feature_size=12, num_heads=(1, 2, 4, 8)).eval()
    image, boxes = torch.randn(1, 1, 64, 32, 32), torch.tensor([[[[2.0, 2, 2], [20, 20, 20]], [[torch.nan] * 3] * 2]])
    assert torch.equal(student.mask_head(student.features(image), boxes), student(image, boxes))


def test_a_negative_room_is_refused():
    with pytest.raises(ConfigError, match="cache_gb"):
        KeptWindowInferer(cache_gb=-1, **OPTIONS)
