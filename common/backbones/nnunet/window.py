"""Prediction of whole preprocessed volumes, window by window."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SliceInferer, SlidingWindowInferer
from torch import Tensor

from ...errors import ConfigError
from .network import PLANAR
from .plan import Plan

__all__ = ["NNUNetInferer"]

_SIGMA = 0.125
# nnU-Net's width of the Gaussian, relative to the window.


class NNUNetInferer(Inferer):
    """Windows of the plans' patch size, blended with nnU-Net's Gaussian; 2-D configurations go slice by slice.

    Args:
        plan: plans, labels and configuration.
        overlap: share of a window that neighbours share, [0, 1).
        sw_batch_size: windows per forward pass, >= 1.
        mirror: average over all mirrored copies (8 times the work in 3-D), as nnU-Net's predictor does.

    Raises:
        ConfigError: for an impossible overlap or batch size.
    """

    def __init__(self, *, plan: Plan, overlap: float = 0.5, sw_batch_size: int = 1, mirror: bool = False) -> None:
        super().__init__()
        if not 0 <= overlap < 1:
            raise ConfigError(
                "windows overlap by a share of their size", where="overlap", got=overlap, expected="[0, 1)"
            )
        if sw_batch_size < 1:
            raise ConfigError("at least one window per pass", where="sw_batch_size", got=sw_batch_size)
        options: dict[str, Any] = {
            "roi_size": plan.patch_size,
            "sw_batch_size": sw_batch_size,
            "overlap": overlap,
            "mode": "gaussian",
            "sigma_scale": _SIGMA,
        }
        self.axes = tuple(range(2, 2 + len(plan.patch_size))) if mirror else ()
        planar = len(plan.patch_size) == PLANAR
        self.window = SliceInferer(spatial_dim=0, **options) if planar else SlidingWindowInferer(**options)

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Logits ``[B, K+1, a, b, c]`` of a preprocessed volume ``[B, C, a, b, c]``."""
        inputs = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs  # metadata costs time in every layer
        wrapped = _Mirrored(network, self.axes) if self.axes else network
        result: Any = self.window(inputs, wrapped, *args, **kwargs)
        logits: Tensor = result
        return logits


class _Mirrored:
    """``mean_S flip_S(network(flip_S(x)))`` over all subsets S of the axes."""

    def __init__(self, network: Callable[..., Any], axes: Sequence[int]) -> None:
        self.network = network
        self.subsets = [s for n in range(len(axes) + 1) for s in itertools.combinations(axes, n)]

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        total = torch.zeros(())
        for axes in self.subsets:
            y = self.network(torch.flip(x, axes), *args, **kwargs)
            total = torch.flip(y, axes) + total.to(y.device)
        return total / len(self.subsets)
