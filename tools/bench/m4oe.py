"""What M4oE's parts cost: our mixture of perceptrons against the loop over all experts that it replaces."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.layers.gating.mlp_mixture import Mixed, MLPMixture
from common.layers.gating.routing import Routing
from common.methods.m4oe.network import M4oE, M4oEOutputs, swin_unet_with_experts

from .measure import Case, relative

__all__ = ["LAPTOP", "PAPER", "PARTS", "ExpertLoop", "LoopedNetwork", "cases", "growth", "step"]

PARTS = ("layer", "layer_training", "inference", "training", "hard", "top_k")
LAPTOP = {"size": 128, "embed": 48}
PAPER = {"size": 224, "embed": 96}
CLASSES, BATCH, TRAINING_BATCH = 14, 8, 2


class ExpertLoop(nn.Module):
    """A mixture as the equation reads: every expert on every token, all answers ``[E, B, H, W, C]``, then their sum.

    Args:
        mixture: whose parameters are copied; with ``gate`` ``expert`` and a choice per token, or ``none``.
    """

    def __init__(self, mixture: MLPMixture) -> None:
        super().__init__()
        own = mixture.experts
        self.top_k = mixture.top_k
        self.gate = copy.deepcopy(mixture.gate)
        self.experts = nn.ModuleList()
        for parts in zip(own.hidden_weight, own.hidden_bias, own.out_weight, own.out_bias, strict=True):
            hidden, channels = parts[0].shape
            expert = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))
            for parameter, value in zip(expert.parameters(), parts, strict=True):
                parameter.data.copy_(value)
            self.experts.append(expert)

    def _weights(self, tokens: Tensor, modality: Tensor | None) -> tuple[Tensor, Routing]:
        if self.gate is None:
            assert modality is not None
            chosen = F.one_hot(modality, len(self.experts)).to(tokens)
            return chosen[:, None, None].expand(*tokens.shape[:3], -1), Routing(chosen, None)
        logits = self.gate(tokens)
        kept = logits
        if self.top_k is not None:
            kept = logits.masked_fill(logits < logits.topk(self.top_k, -1).values[..., -1:], -torch.inf)
        weights = kept.softmax(-1)
        return weights, Routing(weights.movedim(-1, 1), logits.movedim(-1, 1))

    def forward(self, tokens: Tensor, modality: Tensor | None = None) -> Mixed:
        """As :meth:`MLPMixture.forward <common.layers.gating.mlp_mixture.MLPMixture.forward>`."""
        weights, routing = self._weights(tokens, modality)
        answers = torch.stack([expert(tokens) for expert in self.experts])
        return Mixed((answers * weights.movedim(-1, 0)[..., None]).sum(0), routing)


class LoopedNetwork(nn.Module):
    """A copy of a network whose mixtures are loops, with full-size features of all images at once.

    Args:
        network: whose parameters are copied.
    """

    def __init__(self, network: M4oE) -> None:
        super().__init__()
        own = copy.deepcopy(network)
        self.backbone, self.heads = own.backbone, own.heads
        for module in list(self.modules()):
            if isinstance(getattr(module, "mlp", None), MLPMixture):
                module.mlp = ExpertLoop(module.mlp)  # type: ignore[arg-type]

    def forward(self, image: Tensor, modality: Tensor, head: Tensor) -> M4oEOutputs:
        """As the network's."""
        features, routings = self.backbone(image, modality)
        return M4oEOutputs(self.heads(features, head), routings)


def _trained_like(module: nn.Module) -> None:
    # as they start, gates hardly choose and perceptrons hardly speak: their errors would drown in rounding
    for mixture in module.modules():
        if isinstance(mixture, MLPMixture):
            for name, parameter in mixture.named_parameters():
                nn.init.normal_(parameter, std=0.5 if name.endswith("bias") else parameter.shape[-1] ** -0.5)


def _network(size: int, embed: int, count: int, batch: int, gate: str = "expert") -> tuple[M4oE, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    network = M4oE(
        backbone=swin_unet_with_experts(experts=count, gate=gate, embed=embed, drop_path=0.0), embed=embed,
        modalities=[f"modality{i}" for i in range(count)], classes={"all": range(CLASSES)}, total=CLASSES,
    )  # fmt: skip
    _trained_like(network)
    inputs = torch.randn(batch, 3, size, size), torch.arange(batch) % count, torch.zeros(batch, dtype=torch.long)
    return network, inputs


def _layer(size: int, embed: int, count: int, batch: int, top_k: int | None = None) -> tuple[MLPMixture, Tensor]:
    torch.manual_seed(0)
    layer = MLPMixture(channels=embed, experts=count, top_k=top_k)
    _trained_like(layer)
    return layer, torch.randn(batch, size // 4, size // 4, embed)


def _answer(network: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    tensor: Tensor = network(*inputs)[0]  # logits of a network, tokens of a layer
    return tensor


def _inference(part: str, plain: nn.Module, fast: nn.Module, inputs: Sequence[Tensor], goals: dict[str, float]) -> Case:
    def run(network: nn.Module) -> Callable[[], Tensor]:
        network.eval()

        @torch.inference_mode()
        def call() -> Tensor:
            return _answer(network, inputs)

        return call

    first, second = run(plain), run(fast)
    return Case(part, first, second, lambda: relative(second(), first()), 1e-5, goals, tensors=True)


def _backward(network: nn.Module, inputs: Sequence[Tensor]) -> None:
    _answer(network, inputs).square().mean().backward()


def _gradients(network: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    """All gradients in one row, experts stacked and after everything else, so that both ways have the same order."""
    _backward(network, inputs)
    rows, stacked = [], []
    for name, parameter in network.named_parameters():
        if ".experts." not in f".{name}":
            rows.append(parameter.grad)
    for module in network.modules():
        if isinstance(module, MLPMixture):
            stacked += [p.grad for p in module.experts.parameters()]
        elif isinstance(module, ExpertLoop):
            each = zip(*(expert.parameters() for expert in module.experts), strict=True)
            stacked += [torch.stack([p.grad for p in own if p.grad is not None]) for own in each]
    network.zero_grad(set_to_none=True)
    return torch.cat([g.flatten() for g in (*rows, *stacked) if g is not None])


def _training(part: str, plain: nn.Module, fast: nn.Module, inputs: Sequence[Tensor], goals: dict[str, float]) -> Case:
    def run(network: nn.Module) -> Callable[[], None]:
        def call() -> None:
            _backward(network, inputs)
            network.zero_grad(set_to_none=True)  # here, so that the gradients are part of the next peak

        return call

    def difference() -> float:
        given, ours = _gradients(plain, inputs), _gradients(fast, inputs)
        return float((ours - given).norm() / given.norm())

    return Case(part, run(plain), run(fast), difference, 1e-5, goals, tensors=True)


def step(size: int, embed: int, count: int) -> Callable[[], None]:
    """One forward and backward pass of two images.

    Args:
        size: pixels along each side, a multiple of 32.
        embed: width C of the network.
        count: experts.
    """
    network, inputs = _network(size, embed, count, TRAINING_BATCH)

    def run() -> None:
        _backward(network, inputs)
        network.zero_grad(set_to_none=True)

    return run


def _of_layer(size: int, embed: int, count: int, part: str) -> Case:
    fast, tokens = _layer(
        size, embed, count, TRAINING_BATCH if part == "layer_training" else BATCH, top_k=1 if part == "top_k" else None
    )
    ways = ExpertLoop(fast), fast, [tokens]
    if part == "layer":
        return _inference("mixture of the first stage vs loop over experts", *ways, {"faster": 1.4, "tensors": 0.4})
    if part == "layer_training":
        return _training("mixture of the first stage, training step", *ways, {"cpu_faster": 1.0, "tensors": 0.5})
    return _inference(f"mixture of the first stage: 1 of {count} experts a token vs all", *ways, {})


def _of_network(size: int, embed: int, count: int, part: str) -> Case:
    fast, inputs = _network(
        size, embed, count, TRAINING_BATCH if part == "training" else BATCH, gate="none" if part == "hard" else "expert"
    )
    ways = LoopedNetwork(fast), fast, inputs
    if part == "inference":
        return _inference("network inference vs loop over experts", *ways, {"faster": 1.4, "tensors": 0.4})
    if part == "training":
        return _training("network training step vs loop over experts", *ways, {"cpu_faster": 1.0, "tensors": 0.5})
    return _inference(f"network with gate none: the modality's expert vs all {count}", *ways, {})


def cases(size: int, embed: int, count: int, parts: Sequence[str] = PARTS) -> Iterator[Case]:
    """The comparisons, built one at a time so that none pays for another's memory.

    Args:
        size: pixels along each side, a multiple of 32.
        embed: width C of the network.
        count: experts.
        parts: some of :data:`PARTS`, in this order.
    """
    for part in parts:
        make = _of_layer if part in ("layer", "layer_training", "top_k") else _of_network
        yield make(size, embed, count, part)


def growth(size: int, embed: int, counts: Sequence[int]) -> Iterator[tuple[int, Callable[[], None]]]:
    """Training steps with a growing number of experts."""
    for count in counts:
        yield count, step(size, embed, count)
