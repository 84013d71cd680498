"""Weights that are found by trying."""

import builtins
import json
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from common.errors import ConfigError
from common.methods.samora.stage_two.weight_search import SearchWeights, minimise

GOAL = torch.tensor([0.5, -0.25, 1.0])


class Network:
    levels, training = ("image", "patch", "pixel"), True

    def __init__(self):
        self.weights, self.modes = torch.zeros(3), []

    def set_weights(self, weights):
        self.weights = torch.tensor(weights)

    def train(self, mode=True):
        self.training = mode
        self.modes.append(mode)

    def __call__(self, image):
        return ((self.weights - GOAL) ** 2).sum() + image.mean() * 0


def search(network, folder, **options):
    loader = DataLoader([{"image": torch.rand(1)} for _ in range(6)], batch_size=2, shuffle=True)
    return SearchWeights(
        network=network, loader=loader, output_dir=folder, loss=lambda out, _: {"loss": out},
        prepare_batch=lambda batch, *_: (batch["image"], None, (), {}), **options,
    )  # fmt: skip


def engine(epoch=0):
    return SimpleNamespace(state=SimpleNamespace(epoch=epoch, device=torch.device("cpu")))


def test_the_best_weights_are_found_kept_and_written(tmp_path):
    pytest.importorskip("nevergrad")
    found = []
    for _ in range(2):
        network = Network()
        search(network, tmp_path, budget=60)(engine())
        assert network.modes == [False, True] and float((network.weights - GOAL).abs().max()) < 0.3
        found.append(network.weights)
    assert torch.equal(*found)
    written = json.loads((tmp_path / "weights.json").read_text())
    assert list(written["weights"]) == list(Network.levels) and len(written["tried"]) == 60
    first = written["tried"][0]
    assert first["weights"] == [0, 0, 0] and first["value"] == pytest.approx(float((GOAL**2).sum()))
    w = torch.tensor(written["tried"][7]["weights"])
    assert written["tried"][7]["value"] == pytest.approx(float(((w - GOAL) ** 2).sum() + 0.05 * w.abs().mean()))
    assert all(max(map(abs, t["weights"])) <= 1.5 for t in written["tried"])


def test_a_continued_training_does_not_search_again(tmp_path):
    network = Network()
    search(network, tmp_path)(engine(epoch=3))
    assert network.modes == [] and not list(tmp_path.iterdir())


def test_what_other_fusers_do_with_it():
    calls = []
    search(Network(), "nowhere", enabled=False).attach(SimpleNamespace(add_event_handler=lambda *a: calls.append(a)))
    assert calls == []


def test_impossible_searches_are_refused(monkeypatch, tmp_path):
    for wrong in ({"batches": 0}, {"penalty": -1}):
        with pytest.raises(ConfigError):
            search(Network(), tmp_path, **wrong)
    for wrong in ({"budget": 0, "bound": 1.0}, {"budget": 1, "bound": 0.0}):
        with pytest.raises(ConfigError, match="search_budget"):
            minimise(lambda w: 0.0, size=1, **wrong)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "nevergrad":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="pip install nevergrad"):
        minimise(lambda w: 0.0, size=1, budget=1, bound=1.0)
