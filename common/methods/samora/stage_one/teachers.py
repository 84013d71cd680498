"""SAMora's teachers: what they tell an expert, and how they are trained on before."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import interpolate, layer_norm

from ....backbones.mae import MAE
from ....backbones.skresnet import ContrastiveHead, SKResNet
from .objectives import Contrasted, Patches

__all__ = ["ContrastiveTeacher", "ImageTeacher", "MaskedTeacher", "PatchTeacher", "fitted"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which MAE's weights expect


def fitted(image: Tensor, size: int) -> Tensor:
    """Images ``[N, 1 or 3, S, S]`` in 0..1 with three channels and another size, without aliasing."""
    if image.shape[-1] != size or image.shape[-2] != size:
        image = interpolate(image, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return image.expand(-1, 3, -1, -1).clamp(0, 1)


def _normal(image: Tensor) -> Tensor:
    mean, std = (torch.tensor(v, device=image.device, dtype=image.dtype)[:, None, None] for v in (_MEAN, _STD))
    return (image - mean) / std


class ImageTeacher(nn.Module):
    """What SimCLRv2 makes of an image: its features, or those of each of its parts, with zero mean and unit variance.

    Args:
        network: frozen here.
        size: pixels along a side of the images that it sees.
        dense: the third stage's map (stride 16) instead of one vector.

    Shapes:
        ``[N, 1 or 3, S, S] -> [N, D]``, or ``[N, size/16, size/16, D]``.
    """

    def __init__(self, *, network: SKResNet, size: int = 224, dense: bool = False) -> None:
        super().__init__()
        self.network, self.size, self.dense = network.requires_grad_(False).eval(), size, dense
        self.width = network.channels[2 if dense else 3]

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Tell."""
        maps = self.network.maps(fitted(image, self.size))
        found = maps.third.permute(0, 2, 3, 1) if self.dense else maps.fourth.mean((2, 3))
        return layer_norm(found.float(), found.shape[-1:])


class PatchTeacher(nn.Module):
    """What MAE makes of each patch of a whole image, with zero mean and unit variance.

    Args:
        network: frozen here.
        size: pixels along a side of the images that it sees.

    Shapes:
        ``[N, 1 or 3, S, S] -> [N, size/p, size/p, D]``.
    """

    def __init__(self, *, network: VisionTransformer, size: int = 224) -> None:
        super().__init__()
        self.network, self.size = network.requires_grad_(False).eval(), size
        self.width = int(network.embed_dim)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Tell."""
        tokens = self.network.forward_features(_normal(fitted(image, self.size)))[:, 1:]
        side = round(tokens.shape[1] ** 0.5)
        found: Tensor = layer_norm(tokens.float(), tokens.shape[-1:]).unflatten(1, (side, side))
        return found


class ContrastiveTeacher(nn.Module):
    """SimCLRv2 trained on: both views of an image through network and head.

    Args:
        resnet: trained.
        head: trained.
        size: pixels along a side of the images that it sees.

    Shapes:
        ``[B, 2, 1 or 3, S, S] -> `` :class:`~common.methods.samora.stage_one.objectives.Contrasted`.
    """

    def __init__(self, *, resnet: SKResNet, head: ContrastiveHead, size: int = 224) -> None:
        super().__init__()
        self.resnet, self.head, self.size = resnet, head, size

    @property
    def saved(self) -> nn.Module:
        """Whose weights are kept, in the public layout."""
        return self

    def forward(self, image: Tensor) -> Contrasted:
        """Project both views."""
        z = self.head(self.resnet(fitted(image.flatten(0, 1), self.size))).unflatten(0, image.shape[:2])
        return Contrasted(z[:, 0], z[:, 1])

    def features(self, image: Tensor) -> Tensor:
        """Tokens ``[N, h, w, C]`` of the third stage, for pictures and scores."""
        return self.resnet.maps(fitted(image, self.size)).third.permute(0, 2, 3, 1)

    def embedding(self, image: Tensor) -> Tensor:
        """What is compared between images: ``[N, D]``."""
        projected: Tensor = self.head(self.resnet(fitted(image, self.size)))
        return projected


class MaskedTeacher(nn.Module):
    """MAE trained on: patches are hidden and rebuilt.

    Args:
        network: trained.
        size: pixels along a side of the images that it sees.

    Shapes:
        ``[B, V, 1 or 3, S, S] -> `` :class:`~common.methods.samora.stage_one.objectives.Patches`.
    """

    def __init__(self, *, network: MAE, size: int = 224) -> None:
        super().__init__()
        self.network, self.size = network, size

    @property
    def saved(self) -> nn.Module:
        """Whose weights are kept, in the public layout."""
        return self.network

    def forward(self, image: Tensor, hidden: Tensor | None = None) -> Patches:
        """Hide and rebuild."""
        seen = _normal(fitted(image.flatten(0, 1) if image.ndim == 5 else image, self.size))
        rebuilt = self.network(seen, hidden)
        return Patches(rebuilt.prediction, seen, rebuilt.hidden)

    def features(self, image: Tensor) -> Tensor:
        """Tokens ``[N, h, w, C]`` of the whole image."""
        tokens: Tensor = self.network.forward_features(_normal(fitted(image, self.size)))[:, 1:]
        grid: Tensor = tokens.unflatten(1, (self.network.side, self.network.side))
        return grid
