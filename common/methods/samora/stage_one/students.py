"""How an expert is taught: from a teacher's features, from views, from hidden patches, from noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import gaussian_blur

from ....errors import ConfigError
from ....layers.pixel_decoder import PixelDecoder
from ....layers.window_mask import window_mask
from .objectives import Compared, Contrasted, Denoised, Patches
from .teachers import ImageTeacher, PatchTeacher

__all__ = ["Denoising", "ImageDistillation", "Masking", "PatchDistillation", "Views", "regrid", "tokens_of"]

FEATURES = ("tokens", "neck")


def patch_embed(encoder: Any) -> Any:
    """The encoder's first layer: SAM's own, or that of SAM2's trunk."""
    return encoder.patch_embed if hasattr(encoder, "patch_embed") else encoder.trunk.patch_embed


def tokens_of(encoder: Any, image: Tensor, hidden: Tensor | None = None, mask_token: Tensor | None = None) -> Tensor:
    """Tokens before the neck ``[N, h, w, C]`` of images ``[N, 1 or 3, S, S]``, some of whose patches may be hidden.

    A hidden patch's embedding is replaced by the mask token before its position is added.

    Args:
        encoder: SAM's or SAM2's.
        image: in 0..1.
        hidden: ``[N, h, w]`` bool.
        mask_token: ``[C']``, as wide as the first layer's output.
    """
    image = image.expand(-1, 3, -1, -1)
    if hidden is None or mask_token is None:
        tokens: Tensor = encoder(image).tokens
        return tokens

    def replace(_layer: nn.Module, _given: object, found: Tensor) -> Tensor:
        finer = found.shape[1] // hidden.shape[1]
        here = hidden.repeat_interleave(finer, 1).repeat_interleave(finer, 2)[..., None]
        return torch.where(here, mask_token.to(found.dtype), found)

    handle = patch_embed(encoder).register_forward_hook(replace)
    try:
        seen: Tensor = encoder(image).tokens
        return seen
    finally:
        handle.remove()


def regrid(tokens: Tensor, side: tuple[int, int]) -> Tensor:
    """Tokens ``[N, h, w, C]`` on another grid, bilinearly."""
    if tuple(tokens.shape[1:3]) == tuple(side):
        return tokens
    found = interpolate(tokens.permute(0, 3, 1, 2), size=side, mode="bilinear", align_corners=False)
    return found.permute(0, 2, 3, 1)


def _hidden(encoder: Any, image: Tensor, ratio: float) -> Tensor:
    side = image.shape[-1] // int(encoder.patch_size)
    return window_mask(len(image), side, side, ratio=ratio, side=1).to(image.device)


class ImageDistillation(nn.Module):
    """The student's pooled features, projected, are compared with the teacher's of the same view.

    Args:
        channels: C of the features that are pooled.
        width: D of the teacher.
        hidden: of the projector ``Linear(C, hidden), GELU, Linear(hidden, D)``.
        features: ``tokens``: before the neck; ``neck``: after it.
        teacher: None where nothing is compared (inference).
        dense: compare places instead of their mean; the students' grid is brought to the teacher's.

    Raises:
        ConfigError: for unknown features.

    Reference:
        SAMora, section 3.2, image level; the projector is ours ("dimension alignment" in the paper).
    """

    def __init__(
        self,
        *,
        channels: int,
        width: int,
        hidden: int = 1024,
        features: str = "tokens",
        teacher: ImageTeacher | None = None,
        dense: bool = False,
    ) -> None:
        super().__init__()
        if features not in FEATURES:
            raise ConfigError("unknown features", where="image_features", got=features, expected=", ".join(FEATURES))
        self.features, self.dense, self.teacher = features, dense, teacher
        self.projector = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, width))

    def embedding(self, encoder: Any, image: Tensor) -> Tensor:
        """``[N, D]``: what is compared; of a dense student the mean over places."""
        return self._projected(_places(encoder, image, self.features))

    def forward(self, encoder: Any, image: Tensor) -> Compared:
        """``[N, 1 or 3, S, S]``; the order of views does not matter."""
        if self.teacher is None:
            raise ConfigError("there is no teacher", where="teacher_weights", expected="the weights of a teacher")
        target, places = self.teacher(image), _places(encoder, image, self.features)
        if self.dense:
            return Compared(self.projector(regrid(places, target.shape[1:3])), target)
        return Compared(self._projected(places), target)

    def _projected(self, places: Tensor) -> Tensor:
        if self.dense:
            found: Tensor = self.projector(places).mean((1, 2))
        else:
            found = self.projector(places.mean((1, 2)))
        return found


def _places(encoder: Any, image: Tensor, features: str) -> Tensor:
    found = encoder(image.expand(-1, 3, -1, -1))
    places: Tensor = found.tokens if features == "tokens" else found.embedding.permute(0, 2, 3, 1)
    return places


class PatchDistillation(nn.Module):
    """Each token, projected, is compared with the teacher's token of the same place.

    Args:
        channels: C of the student's tokens.
        width: D of the teacher.
        teacher: None where nothing is compared (inference).
        mask: share of the patches that are hidden from the student, 0 for none; the teacher sees everything.
        mask_width: channels of the encoder's first layer.
        mask_loss: ``all`` tokens, or only the ``hidden`` ones.

    Raises:
        ConfigError: for an unknown loss, or hidden tokens alone when none is hidden.

    Reference:
        SAMora, section 3.2, patch level; hiding as in EfficientSAM.
    """

    def __init__(
        self,
        *,
        channels: int,
        width: int,
        teacher: PatchTeacher | None = None,
        mask: float = 0.0,
        mask_width: int = 768,
        mask_loss: str = "all",
    ) -> None:
        super().__init__()
        if mask_loss not in ("all", "hidden") or not 0 <= mask < 1 or (mask_loss == "hidden" and not mask):
            expected = "0 <= mask < 1; 'all', or 'hidden' with mask > 0"
            where = "mask_student, mask_loss"
            raise ConfigError("these tokens cannot be compared", where=where, got=(mask, mask_loss), expected=expected)
        self.mask, self.mask_loss, self.teacher = mask, mask_loss, teacher
        self.projector = nn.Linear(channels, width)
        if mask:
            self.mask_token = nn.Parameter(torch.zeros(mask_width))
            nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, encoder: Any, image: Tensor) -> Compared:
        """``[N, 1 or 3, S, S]``."""
        if self.teacher is None:
            raise ConfigError("there is no teacher", where="teacher_weights", expected="the weights of a teacher")
        target = self.teacher(image)
        if not self.mask:
            return Compared(self.projector(regrid(tokens_of(encoder, image), target.shape[1:3])), target)
        hidden = _hidden(encoder, image, self.mask)
        tokens = regrid(tokens_of(encoder, image, hidden, self.mask_token), target.shape[1:3])
        counted = None
        if self.mask_loss == "hidden":
            counted = interpolate(hidden[:, None].float(), size=tuple(target.shape[1:3]))[:, 0] > 0.5
        return Compared(self.projector(tokens), target, counted)


class Views(nn.Module):
    """Without a teacher: two views of an image are told from all other images.

    Args:
        channels: C of the features that are pooled.
        hidden: of the projector ``Linear(C, hidden), GELU, Linear(hidden, width)``.
        width: of what is compared.
        features: ``tokens`` or ``neck``.

    Raises:
        ConfigError: for unknown features.

    Reference:
        SAMora, table 5, "scratch"; Chen et al., SimCLR, 2020.
    """

    def __init__(self, *, channels: int, hidden: int = 1024, width: int = 128, features: str = "tokens") -> None:
        super().__init__()
        if features not in FEATURES:
            raise ConfigError("unknown features", where="image_features", got=features, expected=", ".join(FEATURES))
        self.features = features
        self.projector = nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, width))

    def embedding(self, encoder: Any, image: Tensor) -> Tensor:
        """``[N, width]``."""
        found: Tensor = self.projector(_places(encoder, image, self.features).mean((1, 2)))
        return found

    def forward(self, encoder: Any, image: Tensor) -> Contrasted:
        """``[2 B, 1 or 3, S, S]``, the views of an image one after the other."""
        z = self.embedding(encoder, image).unflatten(0, (-1, 2))
        return Contrasted(z[:, 0], z[:, 1])


class Masking(nn.Module):
    """Without a teacher: patches are hidden from the student and rebuilt from its tokens by a light decoder.

    Args:
        channels: C of the student's tokens.
        image_channels: c of the images that are rebuilt, 1 or 3.
        patch: p, pixels along the side of a token.
        ratio: share of the patches that are hidden.
        mask_width: channels of the encoder's first layer.
        width: of the decoder, a multiple of ``heads``.
        depth: blocks of the decoder.
        heads: of the decoder.

    Reference:
        SAMora, table 5, "scratch"; hidden tokens take part in the encoder, as in SimMIM, because its windows need a
        whole grid.
    """

    def __init__(
        self,
        *,
        channels: int,
        image_channels: int = 1,
        patch: int = 16,
        ratio: float = 0.75,
        mask_width: int = 768,
        width: int = 256,
        depth: int = 2,
        heads: int = 8,
    ) -> None:
        super().__init__()
        self.ratio, self.image_channels, self.patch = ratio, image_channels, patch
        self.mask_token = nn.Parameter(torch.zeros(mask_width))
        nn.init.normal_(self.mask_token, std=0.02)
        self.embed = nn.Linear(channels, width)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm, self.rebuild = nn.LayerNorm(width), nn.Linear(width, patch**2 * image_channels)

    def forward(self, encoder: Any, image: Tensor, hidden: Tensor | None = None) -> Patches:
        """``[N, c, S, S]``; ``hidden`` ``[N, h, w]`` is drawn when None."""
        hidden = _hidden(encoder, image, self.ratio) if hidden is None else hidden
        tokens = self.embed(tokens_of(encoder, image, hidden, self.mask_token))
        decoded = self.norm(self.blocks(tokens.flatten(1, 2))).unflatten(1, tokens.shape[1:3])
        return Patches(self.rebuild(decoded), image[:, : self.image_channels], hidden)


class Denoising(nn.Module):
    """The student sees an image with noise; a decoder paints it without.

    Args:
        decoder: from the neck's embedding and earlier blocks' tokens.
        blocks: whose tokens the decoder takes.
        sigma: range from which each image's noise level is drawn, as a share of the range of intensities (0..1).
        blur: probability that an image is blurred before.
        sigmoid: whether the decoder's output becomes an image by a sigmoid (``dice_mse``).

    Raises:
        ConfigError: for a range that is none, or a probability outside 0..1.

    Reference:
        SAMora, section 3.2, pixel level.
    """

    def __init__(
        self,
        *,
        decoder: PixelDecoder,
        blocks: Sequence[int],
        sigma: Sequence[float] = (0.0, 0.1),
        blur: float = 0.0,
        sigmoid: bool = False,
    ) -> None:
        super().__init__()
        if len(sigma) != 2 or not 0 <= sigma[0] <= sigma[1] or not 0 <= blur <= 1 or sigma[1] == blur == 0:
            where = "noise_sigma, noise_blur"
            expected = "0 <= low <= high, blur in 0..1, not both without effect"
            raise ConfigError("there is no such noise", where=where, got=(list(sigma), blur), expected=expected)
        self.decoder, self.blocks, self.sigmoid = decoder, tuple(blocks), sigmoid
        self.sigma, self.blur = (float(sigma[0]), float(sigma[1])), float(blur)

    def noisy(self, image: Tensor, generator: torch.Generator | None = None, sigma: float | None = None) -> Tensor:
        """The image with noise; ``sigma`` fixes its level and leaves the blur away."""
        like: Any = {"generator": generator, "device": image.device, "dtype": image.dtype}
        low, high = self.sigma
        if sigma is not None:
            return image + sigma * torch.randn(image.shape, **like)
        level = low + (high - low) * torch.rand(len(image), 1, 1, 1, **like)
        if self.blur:
            blurred = torch.rand(len(image), 1, 1, 1, **like) < self.blur
            image = torch.where(blurred, gaussian_blur(image, [5, 5], [1.0, 1.0]), image)
        return image + level * torch.randn(image.shape, **like)

    def painted(self, encoder: Any, noisy: Tensor) -> Tensor:
        """What the decoder makes of a noisy image ``[N, c, S, S]``, before any sigmoid."""
        found = encoder(noisy.expand(-1, 3, -1, -1), inner=True)
        image: Tensor = self.decoder(found.embedding, [found.inner[i] for i in self.blocks])
        return image

    def forward(self, encoder: Any, image: Tensor) -> Denoised:
        """``[N, c, S, S]``."""
        return Denoised(self.painted(encoder, self.noisy(image)), image)

    def denoised(self, encoder: Any, noisy: Tensor) -> Tensor:
        """The image that :meth:`painted` stands for."""
        painted = self.painted(encoder, noisy)
        return painted.sigmoid() if self.sigmoid else painted
