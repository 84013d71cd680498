"""Prediction of whole preprocessed volumes, window by window: by MONAI, or by nnU-Net's own predictor."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SliceInferer, SlidingWindowInferer
from torch import Tensor

from ...errors import ConfigError, PromptError
from .calls import quiet
from .network import PLANAR, plan_managers
from .plan import Plan
from .streamed import COMPETING, decided

__all__ = ["NNUNetInferer", "NNUNetTiles"]

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


class NNUNetTiles(Inferer):
    """nnU-Net's own predictor: its tiles, its blending, its mirroring, to the last bit.

    Where :class:`~common.backbones.nnunet.streamed.DecideInTilesd` says that
    nothing is interpolated afterwards, volumes are decided while their tiles are joined: the answer is the class of
    each voxel, the same as of the logits.

    Args:
        plan: plans, labels and configuration.
        overlap: share of a tile that neighbours share, [0, 1); nnU-Net: 0.5.
        mirror: axes of the preprocessed array over whose mirrored copies is averaged; none by default.

    Raises:
        ConfigError: for an impossible overlap or axis.
        PromptError: when called with boxes, which such a network does not read.
    """

    def __init__(self, *, plan: Plan, overlap: float = 0.5, mirror: Sequence[int] = ()) -> None:
        super().__init__()
        if not 0 <= overlap < 1:
            raise ConfigError("tiles overlap by a share of their size", where="overlap", got=overlap, expected="[0, 1)")
        self.plan, self.overlap, self.roi_size = plan, overlap, plan.patch_size
        self.axes = tuple(int(axis) for axis in mirror)
        if any(not 0 <= axis < len(self.roi_size) for axis in self.axes):
            raise ConfigError("there is no such axis to mirror", where="mirror", got=list(mirror))

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Logits ``[B, K+1, a, b, c]`` of preprocessed volumes ``[B, C, a, b, c]``, in nnU-Net's 16 bits.

        Decided ones are ``[B, 1, a, b, c]`` of whole numbers.
        """
        boxes = kwargs.get("boxes", inputs.meta.get("boxes") if isinstance(inputs, MetaTensor) else None)
        if boxes is not None and not bool(torch.isnan(torch.as_tensor(boxes)).all()):
            raise PromptError("this student is an nnU-Net and reads no boxes", got="boxes", expected="an image alone",
                              hint="leave the boxes out")  # fmt: skip
        plain = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        predictor = self._predictor(network, plain.device)
        competing = inputs.meta.get(COMPETING) if isinstance(inputs, MetaTensor) else None
        with quiet():
            if competing is not None and len(self.roi_size) > PLANAR and self.plan.labels.exclusive:
                classes = torch.as_tensor(competing).reshape(-1, self.plan.out_channels).expand(len(plain), -1)
                maps = [decided(predictor, *pair) for pair in zip(plain, classes, strict=True)]
                return torch.stack(maps).to(plain.device)
            found = [predictor.predict_sliding_window_return_logits(image) for image in plain]
        return torch.stack(found).to(plain.device)

    def _predictor(self, network: Any, device: torch.device) -> Any:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        manager, config = plan_managers(self.plan.plans, self.plan.configuration)
        with quiet():
            predictor = nnUNetPredictor(
                tile_step_size=1 - self.overlap, use_mirroring=bool(self.axes), device=device,
                perform_everything_on_device=device.type == "cuda", allow_tqdm=False,
            )  # fmt: skip
            predictor.manual_initialization(
                network, manager, config, None, self.plan.dataset_json, "nnUNetTrainer", self.axes or None
            )
        return predictor
