"""What nnU-Net's trainer decides from the plans (patches, augmentation, loss), without its loop and its folders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import DataError
from .calls import quiet
from .network import plan_managers
from .plan import Plan

__all__ = ["Augmentation", "DeepSupervisionLoss", "Recipe", "foreground_fraction"]


class Augmentation(NamedTuple):
    """nnU-Net's spatial sampling and random transforms for one configuration.

    Args:
        initial_patch: voxels to cut before rotation and scaling.
        patch: voxels that the network gets.
        transforms: ``(image=[C, ...], segmentation=[1, ...])`` to the same names.
        mirror_axes: axes that may be mirrored, also at inference.
    """

    initial_patch: tuple[int, ...]
    patch: tuple[int, ...]
    transforms: Any
    mirror_axes: tuple[int, ...]


class Recipe(nnUNetTrainer):  # type: ignore[misc]  # an untyped library's
    """The part of nnU-Net's trainer that depends on plans alone; its constructor (folders, logger) is not called.

    Args:
        plan: plans, labels and configuration.
        deep_supervision: whether the loss sees all decoder stages.
    """

    def __init__(self, *, plan: Plan, deep_supervision: bool = True) -> None:
        self.plans_manager, self.configuration_manager = plan_managers(plan.plans, plan.configuration)
        self.label_manager = self.plans_manager.get_label_manager(plan.dataset_json)
        self.enable_deep_supervision = deep_supervision
        self.is_ddp = False
        self.is_cascaded = False

    def print_to_log_file(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is logged."""

    def _do_i_compile(self) -> bool:
        return False

    def augmentation(self, *, mirror: bool = True) -> Augmentation:
        """Sampling and training transforms; without ``mirror`` left and right stay what they are."""
        with quiet():
            rotation, flat, initial, axes = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
            patch = self.configuration_manager.patch_size
            transforms = self.get_training_transforms(
                patch,
                rotation,
                None,
                axes if mirror else (),
                flat,
                use_mask_for_norm=self.configuration_manager.use_mask_for_norm,
                is_cascaded=False,
                foreground_labels=self.label_manager.foreground_labels,
                regions=None,
                ignore_label=self.label_manager.ignore_label,
            )
        sizes = tuple(int(n) for n in initial), tuple(int(n) for n in patch)
        return Augmentation(*sizes, transforms, tuple(axes) if mirror else ())

    def loader(self, augmentation: Augmentation) -> Any:
        """nnU-Net's data loader; we use its choice of patches."""
        return nnUNetDataLoader(_NoCases(), 1, augmentation.initial_patch, augmentation.patch, self.label_manager)

    def loss(self) -> nn.Module:
        """Dice + cross-entropy, weighted over the decoder stages."""
        module: nn.Module = self._build_loss()
        return module


class _NoCases:
    identifiers: tuple[str, ...] = ()


class DeepSupervisionLoss(nn.Module):
    """nnU-Net's loss ``sum_s w_s (Dice + CE)(logits_s, nearest(label, s))``, ``w_s`` halving per stage, last 0.

    Args:
        plan: plans, labels and configuration.

    Shape:
        prediction: list of ``[B, K+1, ...]`` finest first (or one tensor, when deep supervision is off);
        label ``[B, 1, ...]`` with indices 0..K; negative values count as background.
    """

    def __init__(self, *, plan: Plan) -> None:
        super().__init__()
        self.terms = Recipe(plan=plan).loss()
        self.patch = plan.patch_size

    def forward(self, prediction: Tensor | Sequence[Tensor], label: Tensor) -> Tensor:
        """Scalar loss.

        Raises:
            DataError: when the label has not the shape of the finest logits.
        """
        label = label.clamp_min(0)
        finest = prediction if isinstance(prediction, Tensor) else prediction[0]
        if label.shape[2:] != finest.shape[2:] or label.shape[1] != 1:
            raise DataError("label and prediction differ", got=tuple(label.shape), expected=tuple(finest.shape))
        if isinstance(prediction, Tensor):
            one_stage: nn.Module = self.terms.get_submodule("loss")
            loss: Tensor = one_stage(prediction, label)
            return loss
        targets = [self._at(label, p) for p in prediction]
        total: Tensor = self.terms(list(prediction), targets)
        return total

    @staticmethod
    def _at(label: Tensor, prediction: Tensor) -> Tensor:
        if label.shape[2:] == prediction.shape[2:]:
            return label
        return F.interpolate(label.float(), prediction.shape[2:], mode="nearest-exact").to(label.dtype)


def foreground_fraction(batch_size: int, oversample: float = 0.33) -> float:
    """Share of a batch that nnU-Net centres on foreground: the last ``oversample`` of it, rounded (1 of 2).

    Args:
        batch_size: patches of a batch, >= 1.
        oversample: wished share, 0..1.
    """
    first = round(batch_size * (1 - oversample))
    return (batch_size - min(first, batch_size)) / batch_size


def seeded(seed: int) -> _Seeded:
    """Context in which numpy and torch draw from ``seed``; their states are put back afterwards."""
    return _Seeded(seed)


class _Seeded:
    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self.numpy, self.torch = np.random.get_state(), torch.random.get_rng_state()
        np.random.seed(self.seed)
        torch.random.default_generator.manual_seed(self.seed)

    def __exit__(self, *_: object) -> None:
        np.random.set_state(self.numpy)
        torch.random.set_rng_state(self.torch)
