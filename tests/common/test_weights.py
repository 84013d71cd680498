"""Weights: read without code, loaded with a report, refused when they do not fit."""

from __future__ import annotations

import argparse
import contextlib
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle.scripts import load as bundle_load
from monai.handlers import CheckpointLoader
from monai.networks import copy_model_state
from torch import nn

from common.card import ModelCard, save_weights, tensor_bytes
from common.errors import AmalgamationError, WeightError
from common.labels import LabelSpace
from common.weights import Coverage, load_weights, read_card, read_state_dict

CARD = ModelCard(LabelSpace(("liver", "left kidney")), ("CT",), "toy", "0.1.0", "ab" * 32, {"epoch": 3})


def net(classes: int = 3, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(OrderedDict(body=nn.Conv2d(1, 4, 3), norm=nn.BatchNorm2d(4), head=nn.Conv2d(4, classes, 1)))


class Hostile:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


@pytest.mark.parametrize("suffix", ["pt", "pth", "safetensors"])
def test_round_trip_with_card(tmp_path, suffix) -> None:
    source, target = net(), net(seed=1)
    path = save_weights(tmp_path / f"model.{suffix}", source.state_dict(), CARD)
    coverage = load_weights(target, path)
    assert coverage.fraction == 1.0 and not coverage.missing and not coverage.unexpected
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values()))
    assert read_card(path) == CARD
    save_weights(path, source.state_dict())
    assert read_card(path) is None


def test_plain_readers_see_a_flat_state_dict(tmp_path) -> None:
    source = net()
    path = save_weights(tmp_path / "model.pt", source.state_dict(), CARD)
    content = torch.load(path, weights_only=True)
    assert list(content) == list(source.state_dict()), "the card must not be one of the keys"
    strict = net(seed=1)
    strict.load_state_dict(content, strict=True)

    by_handler = net(seed=1)
    from ignite.engine import Engine

    engine = Engine(lambda e, b: None)
    CheckpointLoader(load_path=str(path), load_dict={"model": by_handler}, strict=True).attach(engine)
    engine.run([0], max_epochs=1)
    copied = net(seed=1)
    _, changed, unchanged = copy_model_state(copied, content)
    assert len(changed) == len(content) and not unchanged
    for module in (strict, by_handler, copied):
        assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), module.state_dict().values()))


def test_monai_bundle_load_reads_it(tmp_path) -> None:
    models = tmp_path / "toy" / "models"
    save_weights(models / "model.pt", net().state_dict(), CARD)
    content = bundle_load("toy", bundle_dir=str(tmp_path), workflow_type="missing", source="github", repo="a/b/c")
    assert list(content) == list(net().state_dict())


@pytest.mark.parametrize("key", ["state_dict", "model", "network_weights", "model_state_dict"])
def test_wrappers_are_taken_off(tmp_path, key) -> None:
    torch.save({key: net().state_dict(), "epoch": 4}, tmp_path / "w.pth")
    assert set(read_state_dict(tmp_path / "w.pth")[0]) == set(net().state_dict())


def test_state_dicts_side_by_side_become_one(tmp_path) -> None:
    torch.save({"resnet": {"a.w": torch.ones(2)}, "head": {"w": torch.zeros(1)}}, tmp_path / "two.pth")
    assert {k: v.tolist() for k, v in read_state_dict(tmp_path / "two.pth")[0].items()} == {
        "resnet.a.w": [1.0, 1.0],
        "head.w": [0.0],
    }


def test_numpy_scalars_of_nnunet_are_admitted(tmp_path) -> None:
    content = {
        "network_weights": net().state_dict(),
        "_best_ema": np.float64(0.7),
        "n": np.int64(3),
        "f": np.float32(1),
    }
    torch.save(content, tmp_path / "checkpoint_final.pth")
    assert len(read_state_dict(tmp_path / "checkpoint_final.pth")[0]) == len(net().state_dict())


def test_the_command_line_in_sam_med3ds_files_is_admitted(tmp_path) -> None:
    line = argparse.Namespace(task_name="a", gpu_ids=[0, 1], lr=8e-4, resume=False, device=torch.device("cpu"))
    torch.save({"epoch": 3, "model_state_dict": net().state_dict(), "args": line}, tmp_path / "sam_model_latest.pth")
    assert set(read_state_dict(tmp_path / "sam_model_latest.pth")[0]) == set(net().state_dict())


def test_a_namespace_hides_nothing_hostile(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(1), "args": argparse.Namespace(x=Hostile())}, tmp_path / "m.pth")
    with pytest.raises(WeightError, match="could execute code"):
        read_state_dict(tmp_path / "m.pth")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_hostile_pickles_are_refused_and_not_executed(tmp_path, monkeypatch, protocol) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps({"a": Hostile()}, protocol=protocol))
    torch.save({"state_dict": {"a": torch.ones(1)}, "args": Hostile()}, tmp_path / "zip.pt", pickle_protocol=protocol)
    for name in ("raw.pt", "zip.pt"):
        with pytest.raises(WeightError, match=name) as caught:
            read_state_dict(tmp_path / name)
        assert "could execute code" in str(caught.value)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("keep", [0, 5, 200, 900])
def test_truncated_files_are_refused_by_name(tmp_path, suffix, keep) -> None:
    path = save_weights(tmp_path / f"model.{suffix}", net().state_dict(), CARD)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(WeightError, match=path.name):
        read_state_dict(path)


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_changed_byte_never_raises_another_error(tmp_path_factory, position, value) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "model.pt"
    save_weights(path, net().state_dict(), CARD)
    data = bytearray(path.read_bytes())
    data[position % len(data)] = value
    path.write_bytes(bytes(data))
    with contextlib.suppress(WeightError):
        read_state_dict(path)


def test_missing_file_and_files_without_weights(tmp_path) -> None:
    with pytest.raises(WeightError, match=r"nothing\.pt"):
        read_state_dict(tmp_path / "nothing.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    with pytest.raises(WeightError, match="holds no weights"):
        read_state_dict(tmp_path / "empty.pt")


def test_wrong_prefix_is_refused_with_the_remedy() -> None:
    source = {f"module.{k}": v for k, v in net().state_dict().items()}
    target = net(seed=1)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(WeightError, match="nothing would be loaded") as caught:
        load_weights(target, source, where="expert liver", minimum=0.0)
    assert "strip=('module.',) would match 9 tensors" in str(caught.value)
    assert str(caught.value).startswith("expert liver")
    assert all(torch.equal(before[k], v) for k, v in target.state_dict().items()), "a refusal changes nothing"
    assert load_weights(target, source, strip="module.").fraction == 1.0


def test_another_head_is_refused_unless_allowed() -> None:
    source, target = net(classes=5), net(classes=3, seed=1)
    with pytest.raises(WeightError) as caught:
        load_weights(target, source.state_dict())
    assert "head.weight" in str(caught.value) and "3x4x1x1" in str(caught.value) and "5x4x1x1" in str(caught.value)
    head = target.head.weight.clone()
    coverage = load_weights(target, source.state_dict(), allow_missing=("head.*",))
    assert [n for n, *_ in coverage.mismatched] == ["head.weight", "head.bias"]
    assert torch.equal(target.head.weight, head) and torch.equal(target.body.weight, source.body.weight)


def test_unused_and_missing_tensors_are_refused_unless_allowed() -> None:
    extra = {**net().state_dict(), "decoder.weight": torch.ones(2)}
    with pytest.raises(WeightError, match="1 tensors of the file have no place"):
        load_weights(net(), extra)
    assert len(load_weights(net(), extra, allow_unexpected=("decoder.*",)).unexpected) == 1
    fewer = {k: v for k, v in net().state_dict().items() if k != "head.bias"}
    with pytest.raises(WeightError, match=r"88\.9% of the network's tensors fit, 100.0% are required"):
        load_weights(net(), fewer)
    assert load_weights(net(), fewer, minimum=0.8).fraction == pytest.approx(8 / 9)
    with pytest.raises(WeightError, match="matches no tensor"):
        load_weights(net(), fewer, allow_missing=("haed.*",))
    with pytest.raises(WeightError, match="fraction"):
        load_weights(net(), fewer, minimum=2)


def test_rename_by_expression_or_function_and_collisions() -> None:
    source = {k.replace("body", "conv1"): v for k, v in net().state_dict().items()}
    assert load_weights(net(), source, rename={r"^conv1\.": "body."}).fraction == 1.0
    assert load_weights(net(), source, rename=lambda name: name.replace("conv1", "body")).fraction == 1.0
    with pytest.raises(WeightError, match="same name"):
        load_weights(net(), source, rename={r".*": "body.weight"})


def test_not_finite_weights_are_refused() -> None:
    source = net().state_dict()
    source["body.weight"][0] = float("nan")
    with pytest.raises(WeightError, match=r"NaN.*\n.*body.weight"):
        load_weights(net(), source)


def test_table_lists_everything_once_and_cuts_long_ones() -> None:
    coverage = Coverage(("a",), (("b", (2,)),), (("c", ()),), (("d", (1, 2), (3,)),))
    table = coverage.table()
    assert [line.split() for line in table.splitlines()[1:]] == [
        ["status", "tensor", "network", "file"],
        ["shape", "d", "1x2", "3"],
        ["missing", "b", "2", "-"],
        ["unused", "c", "-", "scalar"],
    ]
    assert "1 of 3 tensors loaded, 1 missing, 1 with another shape, 1 unused" in table
    assert "and 2 more" in coverage.table(limit=1)
    assert coverage.fraction == pytest.approx(1 / 3)


def test_saving_refuses_what_is_no_tensor_and_unknown_formats(tmp_path) -> None:
    with pytest.raises(WeightError, match="only tensors"):
        save_weights(tmp_path / "a.pt", {"a": 1})
    with pytest.raises(WeightError, match="unknown weights format"):
        save_weights(tmp_path / "a.npz", {"a": torch.ones(1)})
    assert list(tmp_path.iterdir()) == []


def test_card_is_plain_and_round_trips() -> None:
    assert ModelCard.from_json(CARD.to_json()) == CARD
    assert CARD.with_extra(best=0.5).extra == {"epoch": 3, "best": 0.5}
    with pytest.raises(WeightError, match="plain values"):
        ModelCard(LabelSpace(("a",)), extra={"x": object()})
    for text in ("{", "{}", '{"labels": {"names": []}}'):
        with pytest.raises(AmalgamationError):
            ModelCard.from_json(text)


def test_tensor_bytes_counts_nested_tensors() -> None:
    assert tensor_bytes({"a": torch.zeros(3), "b": {"c": torch.zeros(2, dtype=torch.int64)}, "d": "x"}) == 28
