"""What KA2ER's parts cost: the student against MONAI's Swin UNETR, experts by routing against all experts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn

from common.backbones.swin_unetr.network import SwinUNETR
from common.experts.expert_set import Expert, ExpertSet
from common.experts.frame import Frame
from common.experts.normalise import Normalise
from common.experts.sources import Opened
from common.experts.spec import ExpertSpec
from common.labels import LabelSpace
from common.methods.ka2er.loss import KA2ERLoss
from common.methods.ka2er.network import KA2ER
from common.methods.ka2er.student import KA2ERStudent

from .measure import Case, relative

__all__ = ["LAPTOP", "PAPER", "PARTS", "cases", "growth", "step"]

STRUCTURES = ("first", "second")
PARTS = ("inference", "training", "routing", "step")
LAPTOP = {"size": 64, "feature_size": 24, "features": (8, 16, 32, 64, 80, 80)}
PAPER = {"size": 96, "feature_size": 48, "features": (32, 64, 128, 256, 320, 320)}


def _trained_like(network: nn.Module) -> nn.Module:
    for name, parameter in network.named_parameters():
        if name.endswith(("relative_position_bias_table", "qkv.bias")):
            nn.init.normal_(parameter, std=0.5)
    return network


def _students(size: int, feature_size: int) -> tuple[nn.Module, nn.Module, Tensor]:
    torch.manual_seed(0)
    options: dict[str, Any] = {"in_channels": 1, "out_channels": 3, "feature_size": feature_size}
    fast = _trained_like(SwinUNETR(**options))
    plain = SwinUNETR(fast=False, **options)
    plain.load_state_dict(fast.state_dict())
    return plain, fast, torch.randn(1, 1, size, size, size)


def _inference(size: int, feature_size: int) -> Case:
    plain, fast, image = _students(size, feature_size)
    plain.eval()
    fast.eval()

    def run(network: nn.Module) -> Callable[[], Tensor]:
        @torch.inference_mode()
        def call() -> Tensor:
            out: Tensor = network(image)
            return out

        return call

    goals = {"faster": 1.35, "memory": 0.65}
    first, second = run(plain), run(fast)
    return Case("student inference vs MONAI", first, second, lambda: relative(second(), first()), 1e-5, goals)


def _training(size: int, feature_size: int) -> Case:
    plain, fast, image = _students(size, feature_size)

    def run(network: nn.Module) -> Callable[[], None]:
        def call() -> None:
            network.zero_grad(set_to_none=True)
            network(image).square().mean().backward()

        return call

    def difference() -> float:
        # in double precision: in single, values near zero change sides of the leaky ReLU by rounding alone
        small = image[:, :, :64, :32, :32].double()
        gradients = []
        for network in (copy.deepcopy(plain).double(), copy.deepcopy(fast).double()):
            network.zero_grad(set_to_none=True)
            network(small).square().mean().backward()
            gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
        return float((gradients[0] - gradients[1]).norm() / gradients[0].norm())

    first, second = run(plain), run(fast)
    return Case("student training step vs MONAI", first, second, difference, 1e-9, {"faster": 1.0})


def _expert(name: str, features: Sequence[int], role: str) -> Expert:
    depth = len(features)
    network = PlainConvUNet(
        1, depth, list(features), nn.Conv3d, 3, [1] + [2] * (depth - 1), 2, len(STRUCTURES) + 1, 2, conv_bias=True,
        norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
    )  # fmt: skip
    labels = LabelSpace(STRUCTURES)
    task = name if role == "task" else ""
    spec = ExpertSpec(name=name, kind="nnunet", path=name, labels=labels, channels=("image",), role=role, task=task)
    side = 2 ** (depth - 1)
    frame = Frame(None, (0, 1, 2), (None, None, None), (side, side, side))
    source = Opened(network, network.encoder, frame, (Normalise("zscore"),), labels, ("image",))
    return Expert(spec=spec, source=source)


def _experts(count: int, features: Sequence[int]) -> ExpertSet:
    torch.manual_seed(1)
    task = [_expert(f"task{i}", features, "task") for i in range(count)]
    return ExpertSet([*task, _expert("external", features, "external")])


class _Whole:
    """An expert whose features come from a run of its whole network, after the whole networks of others."""

    def __init__(self, expert: Expert, others: Sequence[Expert]) -> None:
        self.expert, self.others = expert, others
        self.spec, self.channels_of_features = expert.spec, expert.channels_of_features

    def logits(self, *crop: Any) -> Tensor:
        """As the expert's own."""
        return self.expert.logits(*crop)

    def features(self, *crop: Any) -> list[Tensor]:
        """As the expert's own."""
        for other in self.others:
            other.logits(*crop)
        kept: list[list[Tensor]] = []
        hook = self.expert.network.encoder.register_forward_hook(lambda _m, _i, out: kept.append(out))  # type: ignore[union-attr]
        self.expert.logits(*crop)
        hook.remove()
        return kept[0]


class _Everyone:
    """An expert set in which asking for one task runs all experts, whole: what routing spares."""

    def __init__(self, experts: ExpertSet) -> None:
        task = [e for e in experts if e.spec.role == "task"]
        self.experts = [_Whole(e, [o for o in task if o is not e]) for e in task]
        self.external = tuple(_Whole(e, []) for e in experts.external)
        self.tasks = experts.tasks

    def __iter__(self) -> Iterator[_Whole]:
        return iter((*self.experts, *self.external))

    def for_task(self, task: str) -> _Whole:
        """The expert of a task."""
        return next(e for e in self.experts if e.spec.task == task)

    def to(self, device: object) -> _Everyone:
        """Nothing to move."""
        return self


def _step(
    size: int, feature_size: int, experts: Any, tasks: Sequence[str], product: bool
) -> tuple[KA2ER, Callable[[], None]]:
    torch.manual_seed(2)
    student = KA2ERStudent(num_structures=len(STRUCTURES), feature_size=feature_size)
    reg, source = ("kl_expert", "gt") if product else ("none", "none")
    network = KA2ER(
        student=student, tasks=tasks, structures=STRUCTURES, experts=experts, reg=reg, prompt_source=source,
        prompt_dropout=0.0, box_jitter=0.0, student_path=product,
    )  # fmt: skip
    loss = KA2ERLoss() if product else KA2ERLoss(reg=0.0, student_path=0.0)
    raw = torch.randn(1, 1, size, size, size)
    label = (raw > 1).float()
    stats = torch.tensor([[[0.0, 1.0, -4.0, 4.0, -3.0, 3.0, 0.0, 1.0, -4.0, 4.0]]])
    annotated = torch.ones(1, len(STRUCTURES) + 1, dtype=torch.bool)

    def run() -> None:
        network.zero_grad(set_to_none=True)
        outputs = network(raw, raw, stats, torch.tensor([0]), annotated, label)
        loss(outputs, {"label": label, "annotated": annotated})["loss"].backward()

    return network, run


def step(size: int, feature_size: int, features: Sequence[int], count: int, product: bool = True) -> Callable[[], None]:
    """One KA2ER training step on one crop with ``count`` task experts and an external one.

    Args:
        size: voxels along each side.
        feature_size: of the student.
        features: channels of an expert's stages.
        count: task experts.
        product: the product's objective (student's path, KL to the expert, boxes); False the paper's bare one.
    """
    experts = _experts(count, features)
    return _step(size, feature_size, experts, experts.tasks, product)[1]


def _routing(size: int, features: Sequence[int], count: int) -> Case:
    experts = _experts(count, features)
    everyone = _Everyone(experts)
    crop = (
        torch.randn(1, 1, size, size, size),
        torch.tensor([[[0.0, 1.0, -4.0, 4.0, -3.0, 3.0, 0.0, 1.0, -4.0, 4.0]]]),
        (1.0, 1.0, 1.0),
    )

    def ask(panel: Any) -> Callable[[], list[Tensor]]:
        def call() -> list[Tensor]:
            return [panel.for_task("task0").features(*crop)[-1], panel.external[0].features(*crop)[-1]]

        return call

    plain, fast = ask(everyone), ask(experts)
    return Case(
        f"expert features: the ones needed vs all {count} and the external one, whole",
        plain, fast, lambda: max(map(relative, fast(), plain())), 0.0, {"multiply_adds": 2.8},
    )  # fmt: skip


def _steps(size: int, feature_size: int, features: Sequence[int], count: int, goals: dict[str, float]) -> Case:
    experts = _experts(count, features)
    networks, runs = zip(
        *[_step(size, feature_size, e, experts.tasks, False) for e in (_Everyone(experts), experts)], strict=True
    )

    def difference() -> float:
        for run in runs:
            run()
        pairs = zip(*[n.parameters() for n in networks], strict=True)
        return max(relative(b.grad, a.grad) for a, b in pairs if a.grad is not None and bool(a.grad.any()))

    return Case(f"KA2ER step (the paper's), {count} experts: routed vs all", runs[0], runs[1], difference, 1e-6, goals)


def cases(
    size: int, feature_size: int, features: Sequence[int], count: int, parts: Sequence[str] = PARTS
) -> Iterator[Case]:
    """The comparisons, built one at a time so that none pays for another's memory.

    The goal for a whole step is meant for the paper's ten experts at its sizes.
    """
    paper = feature_size >= 48 and features[0] >= 32 and count >= 10
    goals = {"multiply_adds": 2.8} if paper else {}
    make: dict[str, Callable[[], Case]] = {
        "inference": lambda: _inference(size, feature_size),
        "training": lambda: _training(size, feature_size),
        "routing": lambda: _routing(size, features, count),
        "step": lambda: _steps(size, feature_size, features, count, goals),
    }
    for part in parts:
        yield make[part]()


def growth(size: int, feature_size: int, features: Sequence[int], counts: Sequence[int]) -> Iterator[tuple[int, Any]]:
    """Steps with a growing number of experts."""
    for count in counts:
        yield count, step(size, feature_size, features, count)
