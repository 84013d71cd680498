"""What a frozen network says of an image, kept for the next time that the very same image comes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import ConfigError

__all__ = ["FrozenFeatures", "forget_on_loading"]

logger = logging.getLogger(__name__)
_PATIENCE = 512


class FrozenFeatures:
    """Tensors by the bytes of the image that they come from.

    Every image is computed on its own, so that what is kept does not depend on the batch in which it came first, and a
    resumed training repeats an undisturbed one. Once the memory is used up, further images are computed each time.

    Args:
        gigabytes: of main memory, > 0.

    Raises:
        ConfigError: for a memory that is not positive.
    """

    def __init__(self, *, gigabytes: float) -> None:
        if gigabytes <= 0:
            raise ConfigError("kept features need memory", where="cache_gb", got=gigabytes, expected="> 0")
        self.limit, self.used = int(gigabytes * 1e9), 0
        self.hits, self.misses, self._told = 0, 0, False
        self._kept: dict[bytes, tuple[Tensor, ...]] = {}

    def __len__(self) -> int:
        """Images that are kept."""
        return len(self._kept)

    def clear(self) -> None:
        """Forget everything, as after the frozen weights have changed."""
        self._kept, self.used = {}, 0

    @torch.no_grad()
    def __call__(self, image: Tensor, compute: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """The features of ``image [B, ...]``, each ``[B, ...]``; ``compute`` gives those of ``[1, ...]``."""
        parts = [self._one(image[b : b + 1], compute) for b in range(len(image))]
        if self.misses > _PATIENCE and not self.hits and not self._told:
            logger.warning(
                "%d images and none of them twice: switch random augmentation off, or --cache_gb 0", self.misses
            )
            self._told = True
        return tuple(torch.cat([p.to(image.device) for p in column]) for column in zip(*parts, strict=True))

    def _one(self, image: Tensor, compute: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        plain = image.detach().cpu().contiguous()
        key = hashlib.blake2b(plain.view(torch.uint8).numpy().tobytes(), digest_size=16).digest()
        if key in self._kept:
            self.hits += 1
            return self._kept[key]
        self.misses += 1
        found = tuple(t.detach() for t in compute(image))
        size = sum(t.numel() * t.element_size() for t in found)
        if self.used + size <= self.limit:
            self._kept[key] = tuple(t.cpu().clone() for t in found)
            self.used += size
        return found


def forget_on_loading(network: nn.Module, forget: Callable[..., None]) -> None:
    """Let a network forget what its weights computed whenever it is given others.

    Args:
        network: whose state is loaded.
        forget: takes the network first; what torch says of the loading comes after it.
    """
    network.register_load_state_dict_pre_hook(forget)
