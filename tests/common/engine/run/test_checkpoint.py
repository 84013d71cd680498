"""What a run checkpoint stores, checks and refuses (the kills are in tests/robustness)."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from torch import nn

from common.card import ModelCard
from common.engine.run.best import KeepBest
from common.engine.run.checkpoint import RunCheckpoint
from common.engine.run.plain import bare, plain, read_plain
from common.errors import CheckpointError, ConfigError
from common.integrity import verify
from common.labels import LabelSpace
from common.weights import read_card, read_state_dict

CARD = ModelCard(LabelSpace(("a", "b")), ("CT",), "toy", "1", "c" * 64)


def make_trainer(max_epochs=2, handlers=(), seed=0):
    torch.manual_seed(seed)
    network = nn.Conv2d(1, 2, 1)
    data = [{"image": torch.full((1, 2, 2), float(i)), "label": torch.zeros(2, 2, 2)} for i in range(4)]
    return SupervisedTrainer(
        device="cpu",
        max_epochs=max_epochs,
        train_data_loader=DataLoader(Dataset(data), batch_size=2),
        network=network,
        optimizer=torch.optim.Adam(network.parameters(), lr=0.1),
        loss_function=nn.MSELoss(),
        train_handlers=list(handlers),
    )


def train(folder, *, card=CARD, epochs=2, every=1, resume=True, extra=None, seed=0):
    trainer = make_trainer(epochs, seed=seed)
    objects = {"network": trainer.network, "optimizer": trainer.optimizer, **(extra or {})}
    handler = RunCheckpoint(folder=folder, save_dict=objects, card=card, every=every, resume=resume)
    handler.attach(trainer)
    trainer.run()
    return trainer


def test_everything_is_restored(tmp_path) -> None:
    first = train(tmp_path, epochs=2)
    second = train(tmp_path, epochs=2, seed=1)
    assert torch.equal(first.network.weight, second.network.weight)
    assert second.state.epoch == 2 and second.state.iteration == 4
    a, b = first.optimizer.state_dict()["state"][0], second.optimizer.state_dict()["state"][0]
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert torch.equal(
        train(tmp_path, epochs=5, seed=2).network.weight, train(tmp_path / "new", epochs=5).network.weight
    )


def test_the_last_epoch_is_saved_whatever_every_says(tmp_path) -> None:
    train(tmp_path, epochs=5, every=3)
    assert read_plain(tmp_path / "last.pth")["trainer"]["epoch"] == 5
    assert read_plain(tmp_path / "previous.pth")["trainer"]["epoch"] == 3


def test_it_saves_after_all_other_handlers_of_the_epoch(tmp_path) -> None:
    trainer = make_trainer(1)
    RunCheckpoint(folder=tmp_path, save_dict={"network": trainer.network}).attach(trainer)

    @trainer.on(Events.EPOCH_COMPLETED)
    def change(_engine: Engine) -> None:
        with torch.no_grad():
            trainer.network.weight.fill_(7.0)

    trainer.run()
    saved = read_plain(tmp_path / "last.pth")["objects"]["network"]["weight"]
    assert torch.equal(saved, torch.full((2, 1, 1, 1), 7.0))


def test_a_flipped_bit_in_a_checkpoint_costs_an_epoch_and_changes_nothing(tmp_path) -> None:
    train(tmp_path / "run", epochs=3)
    last, previous = tmp_path / "run" / "last.pth", tmp_path / "run" / "previous.pth"
    assert verify(last) and verify(previous) and verify(last) != verify(previous)
    weight = read_plain(last)["objects"]["network"]["weight"]
    content = bytearray(last.read_bytes())
    content[content.index(weight.numpy().tobytes())] ^= 1
    last.write_bytes(bytes(content))
    assert not torch.equal(read_plain(last)["objects"]["network"]["weight"], weight)  # torch says nothing
    on = train(tmp_path / "run", epochs=5, seed=1)
    assert torch.equal(on.network.weight, train(tmp_path / "new", epochs=5).network.weight)
    for path in (last, previous):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"(?s)previous\.pth.*not what was saved.*--resume False"):
        train(tmp_path / "run", epochs=6)


def test_best_metric_and_scaler_travel(tmp_path) -> None:
    trainer = make_trainer(1)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    handler = RunCheckpoint(folder=tmp_path, save_dict={"network": trainer.network})
    trainer.state.best_metric, trainer.state.best_metric_epoch = torch.tensor(0.75), 1
    trainer.state.epoch = 1
    handler.save(trainer)
    other = make_trainer(3)
    other.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    RunCheckpoint(folder=tmp_path, save_dict={"network": other.network})._continue(other)
    assert other.scaler.get_scale() == 8.0 and float(other.state.best_metric) == 0.75 and other.state.epoch == 1


@pytest.mark.parametrize(
    ("card", "word"),
    [
        (ModelCard(LabelSpace(("a", "c")), ("CT",), "toy", "1", "c" * 64), "other labels"),
        (ModelCard(LabelSpace(("a", "b")), ("T2",), "toy", "1", "c" * 64), "other channels"),
        (ModelCard(LabelSpace(("a", "b")), ("CT",), "toy", "1", "d" * 64), "another configuration"),
    ],
)
def test_another_run_is_refused(tmp_path, card, word) -> None:
    train(tmp_path)
    with pytest.raises(CheckpointError, match=word) as caught:
        train(tmp_path, card=card)
    assert "--resume False" in str(caught.value) and "last.pth" in str(caught.value)
    train(tmp_path, card=card, resume=False)
    assert (tmp_path.with_name(tmp_path.name + "_1") / "last.pth").exists()


def test_other_experts_are_refused_wherever_they_lie(tmp_path) -> None:
    def of(*hashes):
        return CARD.with_extra(settings={"expert_hashes": list(hashes)})

    train(tmp_path, card=of("1a", "2b"))
    train(tmp_path, card=of("1a", "2b"))
    with pytest.raises(CheckpointError, match="other experts"):
        train(tmp_path, card=of("1a", "3c"))


def test_other_objects_or_shapes_are_refused(tmp_path) -> None:
    train(tmp_path)
    with pytest.raises(CheckpointError, match="other objects"):
        train(tmp_path, extra={"second": nn.Linear(1, 1)})
    trainer = make_trainer()
    wrong = {"network": nn.Conv2d(1, 3, 1), "optimizer": trainer.optimizer}
    handler = RunCheckpoint(folder=tmp_path, save_dict=wrong, card=CARD)
    with pytest.raises(CheckpointError, match="network does not fit"):
        handler._continue(trainer)


def test_foreign_files_are_refused(tmp_path) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}}, tmp_path / "last.pth")
    with pytest.raises(CheckpointError, match="no checkpoint of a run"):
        train(tmp_path)


@pytest.mark.parametrize("arguments", [{"every": 0}, {"save_dict": {"x": 3}}, {"save_dict": {}}])
def test_impossible_settings(tmp_path, arguments) -> None:
    with pytest.raises(CheckpointError):
        RunCheckpoint(**{"folder": tmp_path, "save_dict": {"network": nn.Linear(1, 1)}, **arguments})


def test_only_plain_values_are_stored() -> None:
    import numpy as np

    value = plain({"a": np.float64(0.5), "b": np.arange(3), "c": (1, "x", None, True)}, "here")
    assert value["a"] == 0.5 and type(value["a"]) is float and torch.equal(value["b"], torch.arange(3))
    assert value["c"] == [1, "x", None, True]
    with pytest.raises(CheckpointError, match=r"here\['a'\]\[1\]"):
        plain({"a": [1, object()]}, "here")


def test_wrapped_networks_are_stored_bare() -> None:
    network = nn.Linear(1, 1)
    assert bare(nn.DataParallel(network)) is network and bare(network) is network
    assert bare(torch.compile(network)) is network
    assert bare(3) == 3


# -- KeepBest -----------------------------------------------------------------------------------------------------


class Scripted:
    """An evaluator's key metric whose values are given in advance."""

    def __init__(self, values) -> None:
        self.values = list(values)

    def attach(self, engine, name) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report, name)

    def report(self, engine, name) -> None:
        engine.state.metrics[name] = self.values.pop(0)


def validate(tmp_path, values, **options):
    network = nn.Conv2d(1, 2, 1)
    keep = KeepBest(path=tmp_path / "model.pt", network=network, card=CARD, **options)
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=[{"image": torch.zeros(1, 1, 2, 2), "label": torch.zeros(1, 2, 2, 2)}],
        network=network,
        key_val_metric={"dice": Scripted(values)},
        val_handlers=[keep],
    )
    kept = []
    for epoch in range(1, len(values) + 1):
        with torch.no_grad():
            network.weight.fill_(float(epoch))
        evaluator.run(epoch)
        kept.append(float(read_state_dict(tmp_path / "model.pt")[0]["weight"][0]))
    return kept, keep


@pytest.mark.parametrize(
    ("mode", "values", "kept"),
    [
        ("max", [0.1, 0.3, 0.2, 0.3, 0.4], [1, 2, 2, 2, 5]),
        ("min", [0.3, 0.4, 0.2], [1, 1, 3]),
        ("max", [float("nan"), 0.1, float("nan"), 0.05], [1, 2, 2, 2]),
        ("max", [0.0, 0.0], [1, 1]),
    ],
)
def test_the_best_is_kept(tmp_path, mode, values, kept) -> None:
    assert validate(tmp_path, values, mode=mode)[0] == kept


def test_the_card_says_why(tmp_path) -> None:
    validate(tmp_path, [0.25, 0.5])
    card = read_card(tmp_path / "model.pt")
    assert card.extra == {"epoch": 2, "metric": "dice", "value": 0.5} and card.config_hash == CARD.config_hash


def test_state_round_trip(tmp_path) -> None:
    _, keep = validate(tmp_path, [0.5])
    other = KeepBest(path=tmp_path / "model.pt", network=nn.Conv2d(1, 2, 1))
    other.load_state_dict(keep.state_dict())
    assert other.best == 0.5 and not other._improves(0.4) and other._improves(0.6)
    (tmp_path / "model.pt").unlink()
    fresh = KeepBest(path=tmp_path / "model.pt", network=nn.Conv2d(1, 2, 1))
    fresh.load_state_dict(keep.state_dict())
    assert fresh.best is None and fresh._improves(0.1)


@pytest.mark.parametrize(("select", "written"), [("best", 1), ("last", 3)])
def test_on_a_trainer_without_validation(tmp_path, select, written, monkeypatch) -> None:
    trainer = make_trainer(3)
    keep = KeepBest(path=tmp_path / "model.pt", network=trainer.network, select=select)
    keep.attach(trainer)
    calls, write = [], keep._write
    monkeypatch.setattr(keep, "_write", lambda *a: (calls.append(a), write(*a)))
    trainer.run()
    assert len(calls) == written
    assert torch.equal(read_state_dict(tmp_path / "model.pt")[0]["weight"], trainer.network.weight)


def test_illegal_options_and_metrics(tmp_path) -> None:
    for wrong in ({"mode": "median"}, {"select": "all"}):
        with pytest.raises(ConfigError):
            KeepBest(path=tmp_path / "model.pt", network=nn.Linear(1, 1), **wrong)
    with pytest.raises(ConfigError, match="does not compute"):
        validate(tmp_path, [0.1], metric="hd95")
