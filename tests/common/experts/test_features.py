"""Features and logits of one pass are those of two, whatever follows the features' module."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from common.errors import ExpertError
from common.experts.features import FoldMean, Part, Tap, check_module_path


class Network(nn.Module):
    """A module whose output the next one changes in place, and that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 2, 1)
        self.act = nn.LeakyReLU(-3.0, inplace=True)
        self.last = nn.Conv3d(2, 3, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        result: Tensor = self.last(self.act(self.first(x)))
        self.first(x + 1)
        return result, result


X = torch.randn(2, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_tap_hears_both() -> None:
    torch.manual_seed(0)
    network = Network()
    tap = Tap(network, "first")
    heard = tap.both(X)
    assert torch.equal(heard.logits, network(X)[0])
    assert [t.shape for t in heard.features] == [(2, 2, 4, 4, 4)]
    assert torch.equal(heard.features[0], network.first(X))
    assert torch.equal(tap(X)[0], network.first(X)) and not network.first._forward_hooks


@torch.no_grad()
def test_folds_are_the_mean_of_logits_and_the_first_ones_features() -> None:
    torch.manual_seed(0)
    networks = [Network() for _ in range(3)]
    mean = FoldMean(networks)
    wanted = sum(n(X)[0] for n in networks) / 3
    heard = Tap(mean, "first").both(X)
    torch.testing.assert_close(mean(X), wanted)
    torch.testing.assert_close(heard.logits, wanted)
    assert torch.equal(heard.features[0], networks[0].first(X))
    check_module_path(mean, "first", where="e")


@torch.no_grad()
def test_a_part_of_scripted_code() -> None:
    torch.manual_seed(0)
    network = torch.jit.script(nn.Sequential(nn.Conv3d(1, 2, 1), nn.Conv3d(2, 3, 1)))
    heard = Part(network, "0").both(X)
    assert torch.equal(heard.logits, network(X)) and heard.features[0].shape == (2, 2, 4, 4, 4)


def test_what_is_no_feature_map() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat = nn.Flatten()

        def forward(self, x: Tensor) -> Tensor:
            self.flat(x)
            return x

    for ask in (Tap(Flat(), "flat"), Tap(Flat(), "flat").both):
        with pytest.raises(ExpertError, match="does not return feature maps"):
            ask(X)
    with pytest.raises(ExpertError, match="no module of this name"):
        check_module_path(Flat(), "flatt", where="e")
