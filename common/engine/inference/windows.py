"""Sliding-window inference that takes prompts along: boxes of the volume become boxes of each window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.utils import fall_back_tuple

from ...errors import ConfigError, PromptError
from ...prompts import to_window

__all__ = ["WindowInferer"]


class WindowInferer(SlidingWindowInferer):
    """MONAI's sliding window with our defaults; with prompts, each window gets the boxes that reach into it.

    Boxes are given in voxels of the tensor to be segmented, as ``boxes=`` or, because an inferer is often handed the
    image alone (MONAI Label), in ``image.meta["boxes"]``: ``[K, 2, 3]`` for every item of the batch or
    ``[B, K, 2, 3]``, first and last voxel of each box, corners in either order, NaN for no box. The network is called
    ``network(window, boxes=[n, K, 2, 3])`` when there are boxes and ``network(window)`` otherwise. Where the image is
    smaller than the window, boxes move with MONAI's padding.

    Args:
        roi_size: window in voxels; a component <= 0 means the whole axis.
        overlap: share of the window that neighbours share, [0, 1).
        mode: how overlapping windows are blended, "gaussian" or "constant".
        sw_batch_size: windows per forward pass, >= 1.
        with_prompts: whether the network takes boxes.
        sigma_scale: width of the Gaussian relative to the window.
        padding_mode: how an image smaller than the window is padded.
        cval: value of constant padding.
        device: where the result is assembled; the image's own when None.
        progress: show a bar.

    Raises:
        ConfigError: for an overlap or batch size out of range.
        PromptError: for boxes of the wrong shape.
    """

    def __init__(
        self,
        *,
        roi_size: Sequence[int] | int,
        overlap: Sequence[float] | float = 0.5,
        mode: str = "gaussian",
        sw_batch_size: int = 1,
        with_prompts: bool = False,
        sigma_scale: Sequence[float] | float = 0.125,
        padding_mode: str = "constant",
        cval: float = 0.0,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> None:
        shares = [overlap] if isinstance(overlap, (int, float)) else list(overlap)
        if not all(0 <= o < 1 for o in shares):
            raise ConfigError("the overlap of windows must lie in [0, 1)", got=overlap)
        if sw_batch_size < 1:
            raise ConfigError("at least one window per forward pass", got=sw_batch_size, expected="sw_batch_size >= 1")
        super().__init__(
            roi_size=roi_size,
            sw_batch_size=sw_batch_size,
            overlap=overlap,
            mode=mode,
            sigma_scale=sigma_scale,
            padding_mode=padding_mode,
            cval=cval,
            device=device,
            progress=progress,
        )
        self.with_prompts = with_prompts

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Segment ``inputs`` ``[B, C, X, Y, Z]`` -> ``[B, K+1, X, Y, Z]``."""
        boxes = kwargs.pop("boxes", None)
        if boxes is None and isinstance(inputs, MetaTensor):
            boxes = inputs.meta.get("boxes")
        if not self.with_prompts or boxes is None:
            return super().__call__(inputs, network, *args, **kwargs)
        return self._prompted(inputs, self._check(boxes, inputs), network, *args, **kwargs)

    @staticmethod
    def _check(boxes: Any, inputs: torch.Tensor) -> torch.Tensor:
        given = torch.as_tensor(boxes, dtype=torch.float32)
        batch, dims = inputs.shape[0], inputs.ndim - 2
        full = given.expand(batch, *given.shape) if given.ndim == 3 else given
        if full.ndim != 4 or full.shape[0] != batch or tuple(full.shape[2:]) != (2, dims):
            raise PromptError(
                "boxes have the wrong shape",
                got=tuple(given.shape),
                expected=f"[K, 2, {dims}] or [{batch}, K, 2, {dims}]",
            )
        if bool(torch.isinf(full).any()):
            raise PromptError("a box corner is infinite", expected="voxel coordinates, NaN for no box")
        return full.sort(dim=2).values

    def _prompted(
        self, inputs: torch.Tensor, boxes: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        spatial = tuple(inputs.shape[2:])
        roi = fall_back_tuple(self.roi_size, spatial)
        pad = [max(r - s, 0) // 2 for r, s in zip(roi, spatial, strict=True)]

        def step(window: torch.Tensor, slices: Sequence[Sequence[slice]], *more: Any, **named: Any) -> Any:
            own = [
                to_window(boxes[at[0].start], [s.start - p for s, p in zip(at[2:], pad, strict=True)], roi)
                for at in slices
            ]
            return network(window, *more, boxes=torch.stack(own).to(window.device), **named)

        self.with_coord = True
        try:
            return super().__call__(inputs, step, *args, **kwargs)
        finally:
            self.with_coord = False
