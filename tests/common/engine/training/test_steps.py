"""One iteration: what goes in, gradient accumulation, guards."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils import set_determinism
from torch import nn

from common.engine.training.steps import NonFiniteGuard, PrepareKeys, TermsStep, _in_32_bits
from common.errors import ConfigError, DataError


class Out(NamedTuple):
    logits: torch.Tensor
    gate: torch.Tensor


class Net(nn.Module):
    def __init__(self, named: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(1, 2, 3, padding=1)
        self.named = named

    def forward(self, x, scale=None):
        y = self.layer(x) if scale is None else self.layer(x) * scale[:, None, None, None]
        return Out(y, y.mean()) if self.named else y


def mean_loss(prediction, target):
    logits = prediction.logits if isinstance(prediction, Out) else prediction
    label = target["label"] if isinstance(target, dict) else target
    main = ((logits - label) ** 2).flatten(1).mean(1).mean()
    return {"loss": main + 0.1 * logits.flatten(1).mean(1).mean(), "main": main}


def items(count=6):
    generator = torch.Generator().manual_seed(1)
    return [
        {"image": torch.randn(1, 5, 5, generator=generator), "label": torch.randn(2, 5, 5, generator=generator),
         "scale": float(i + 1), "weight": torch.tensor([float(i)]), "case": f"case_{i}"}
        for i in range(count)
    ]  # fmt: skip


def trainer(step, *, loss=mean_loss, data=None, named=False, batch=6, handlers=(), prepare=None, **kwargs):
    network = Net(named)
    return SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=DataLoader(Dataset(items() if data is None else data), batch_size=batch),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=loss,
        prepare_batch=prepare or PrepareKeys(kwargs=("scale",), targets=("weight",)),
        iteration_update=step,
        train_handlers=list(handlers),
        **kwargs,
    )


def run(step, **kwargs):
    engine = trainer(step, **kwargs)
    engine.run()
    return engine


@pytest.fixture
def double():
    """Everything in double precision: sums in another order differ by no more than that of the numbers."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("micro", [1, 2, 4, 5, 6, 100])
@pytest.mark.parametrize("named", [False, True])
def test_micro_batches_equal_the_whole_batch(micro, named, double) -> None:
    whole, parts = run(TermsStep(), named=named), run(TermsStep(micro_batch=micro), named=named)
    for a, b in zip(whole.network.parameters(), parts.network.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    for name in ("loss", "main"):
        assert whole.state.output[0][name] == pytest.approx(parts.state.output[0][name], rel=1e-10)
    torch.testing.assert_close(whole.state.output[3]["pred"], parts.state.output[3]["pred"])


def test_equals_monais_own_iteration() -> None:
    def plain_loss(prediction, label):
        return mean_loss(prediction, label)["loss"]

    prepare = PrepareKeys()
    own, stock = run(TermsStep(), prepare=prepare, loss=plain_loss), run(None, prepare=prepare, loss=plain_loss)
    for a, b in zip(own.network.parameters(), stock.network.parameters()):
        assert torch.equal(a, b)
    assert float(own.state.output[0]["loss"]) == pytest.approx(float(stock.state.output[0]["loss"]))


def test_clipping_equals_torch() -> None:
    engine = run(TermsStep(max_norm=0.01))
    grads = [p.grad for p in engine.network.parameters()]
    assert torch.nn.utils.get_total_norm(grads) == pytest.approx(0.01, rel=1e-3)
    free = run(TermsStep())
    torch.nn.utils.clip_grad_norm_(free.network.parameters(), 0.01)
    for a, b in zip(grads, [p.grad for p in free.network.parameters()]):
        torch.testing.assert_close(a, b)


def test_amp_on_a_cpu_trains() -> None:
    engine = run(TermsStep(micro_batch=3), amp=True, amp_kwargs={"dtype": torch.bfloat16})
    reference = run(TermsStep())
    assert engine.state.output[0]["loss"] == pytest.approx(reference.state.output[0]["loss"], rel=0.05)


def test_in_16_bits_the_network_computes_and_the_loss_and_weights_do_not() -> None:
    seen = {}

    def loss(prediction, target):
        seen.update(logits=prediction.logits.dtype, gate=prediction.gate.dtype, label=target["label"].dtype)
        seen["product"] = (prediction.gate[None, None] @ prediction.gate[None, None]).dtype
        return mean_loss(prediction, target)

    step = TermsStep(micro_batch=3, dtype=torch.bfloat16)
    engine = trainer(step, named=True, loss=loss)
    engine.network.layer.register_forward_hook(lambda *call: seen.update(layer=call[2].dtype))
    engine.run()
    assert seen.pop("layer") == torch.bfloat16 and set(seen.values()) == {torch.float32}
    assert {p.dtype for p in engine.network.parameters()} == {torch.float32} and engine.scaler is None
    reference = run(TermsStep(), named=True)
    assert engine.state.output[0]["loss"] == pytest.approx(reference.state.output[0]["loss"], rel=0.05)
    assert engine.state.output[0]["loss"] != reference.state.output[0]["loss"]


def test_32_bits_reach_every_tensor_of_an_output() -> None:
    half = torch.ones(2, dtype=torch.bfloat16)
    found = _in_32_bits(Out(half, {"a": [half, (half, torch.ones(1, dtype=torch.long), None)]}))
    assert isinstance(found, Out) and found.logits.dtype == found.gate["a"][0].dtype == torch.float32
    assert found.gate["a"][1][0].dtype == torch.float32 and found.gate["a"][1][1].dtype == torch.long


def test_events_of_monai_are_fired() -> None:
    fired = []
    engine = trainer(TermsStep())
    for event in ("FORWARD_COMPLETED", "LOSS_COMPLETED", "BACKWARD_COMPLETED", "MODEL_COMPLETED"):
        engine.add_event_handler(getattr(IterationEvents, event), lambda e, name=event: fired.append(name))
    engine.run()
    assert fired == ["FORWARD_COMPLETED", "LOSS_COMPLETED", "BACKWARD_COMPLETED", "MODEL_COMPLETED"]


@pytest.mark.parametrize("step", [TermsStep(), None])
def test_a_nan_voxel_stops_training_with_the_cases(step) -> None:
    set_determinism(0)
    data = items()
    data[4]["image"][0, 2, 2] = float("nan")

    def loss(prediction, label):
        return mean_loss(prediction, label)["loss"]

    with pytest.raises(DataError, match="the loss is not finite") as caught:
        run(step, data=data, batch=2, loss=loss, handlers=[NonFiniteGuard()], prepare=PrepareKeys())
    assert "case_4" in str(caught.value) and "case_5" in str(caught.value) and "case_0" not in str(caught.value)


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change() -> None:
    def loss(prediction, target):
        return torch.sqrt((prediction * 0.0).pow(2).sum())  # derivative 0 / 0

    engine = trainer(TermsStep(), loss=loss, prepare=PrepareKeys())
    with pytest.raises(DataError, match="the gradient is not finite"):
        engine.run()
    assert all(bool(p.isfinite().all()) for p in engine.network.parameters())


@pytest.mark.parametrize(
    "result", [{"main": torch.ones(())}, {"loss": 1.0}, 3.0, {"loss": torch.ones(()), "pred": torch.ones(())}]
)
def test_losses_must_return_tensors(result) -> None:
    with pytest.raises(ConfigError):
        run(TermsStep(), loss=lambda p, t: result)


@pytest.mark.parametrize("arguments", [{"micro_batch": 0}, {"max_norm": 0.0}, {"max_norm": -1.0}])
def test_impossible_settings(arguments) -> None:
    with pytest.raises(ConfigError):
        TermsStep(**arguments)


def test_prepare_keys() -> None:
    batch = {
        "image": torch.zeros(2, 1),
        "label": torch.ones(2, 1),
        "raw": torch.ones(2),
        "case": ["a", "b"],
        "boxes": None,
    }
    _, label, args, kwargs = PrepareKeys(kwargs={"x": "raw"}, targets=())(batch, "cpu")
    assert torch.equal(label, batch["label"]) and args == () and list(kwargs) == ["x"]
    _, target, _, _ = PrepareKeys(targets=("raw",))(batch, "cpu")
    assert sorted(target) == ["label", "raw"]
    assert PrepareKeys(label="mask")(batch, "cpu")[1] is None
    assert PrepareKeys(kwargs=("boxes", "points"), optional=("points",))(batch, "cpu")[3] == {"boxes": None}
    with pytest.raises(DataError, match="stats") as caught:
        PrepareKeys(kwargs=("stats",))(batch, "cpu")
    assert "a, b" in str(caught.value)
    half = PrepareKeys(kwargs=("n",))({**batch, "n": torch.ones(2, dtype=torch.long)}, "cpu", dtype=torch.float16)
    assert half[0].dtype == torch.float16 and half[3]["n"].dtype == torch.long
