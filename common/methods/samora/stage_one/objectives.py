"""What one expert of SAMora learns: outputs of each way of learning, and the loss on them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ....errors import ConfigError
from ....losses.contrastive import nt_xent
from ....losses.reconstruction import masked_mse

__all__ = ["Compared", "Contrasted", "Denoised", "Outputs", "Patches", "StageOneLoss"]

PIXEL_LOSSES = ("mse", "dice_mse")


class Compared(NamedTuple):
    """What the student says, what the teacher says ``[N, ..., D]``, and where it counts (None: everywhere)."""

    prediction: Tensor
    target: Tensor
    counted: Tensor | None = None


class Contrasted(NamedTuple):
    """Vectors ``[B, d]`` of two views of each image."""

    first: Tensor
    second: Tensor


class Patches(NamedTuple):
    """Rebuilt patches ``[N, h, w, p p C]``, the image ``[N, C, H, W]``, and which were hidden ``[N, h, w]``."""

    prediction: Tensor
    image: Tensor
    hidden: Tensor


class Denoised(NamedTuple):
    """What was made of a noisy image, before any sigmoid, and the image without noise; both ``[N, C, H, W]``."""

    prediction: Tensor
    clean: Tensor


Outputs = Compared | Contrasted | Patches | Denoised


class StageOneLoss(nn.Module):
    """The loss that belongs to what a network returns.

    Teacher and student: ``L = mean (F - G)^2`` over samples, places and channels (equation 1 up to the number of
    channels); two views: NT-Xent; hidden patches: their mean squared error; noisy images: ``mean (x - G(x + n))^2``.

    Args:
        temperature: of NT-Xent, > 0.
        pixel_loss: ``mse``, or ``dice_mse``: ``0.9 Dice + 0.1 MSE`` of a sigmoid, which the released code attributes to
            the supplement.
        normalise: rebuild patches of zero mean and unit variance.

    Raises:
        ConfigError: for an unknown loss or a temperature that is not positive.

    Reference:
        SAMora, section 3.2.
    """

    def __init__(self, *, temperature: float = 0.1, pixel_loss: str = "mse", normalise: bool = True) -> None:
        super().__init__()
        if pixel_loss not in PIXEL_LOSSES:
            raise ConfigError("unknown loss", where="pixel_loss", got=pixel_loss, expected=", ".join(PIXEL_LOSSES))
        if not temperature > 0:
            raise ConfigError("a temperature is positive", where="temperature", got=temperature)
        self.temperature, self.pixel_loss, self.normalise = temperature, pixel_loss, normalise

    def forward(self, outputs: Outputs, target: object = None) -> dict[str, Tensor]:
        """Terms of the loss, ``loss`` first; the target travels in the outputs."""
        if isinstance(outputs, Contrasted):
            loss = nt_xent(outputs.first, outputs.second, temperature=self.temperature)
            return {"loss": loss, "nt_xent": loss.detach()}
        if isinstance(outputs, Patches):
            loss = masked_mse(outputs.prediction, outputs.image, outputs.hidden, normalise=self.normalise)
            return {"loss": loss, "mse": loss.detach()}
        if isinstance(outputs, Compared):
            return self._compared(outputs)
        return self._denoised(outputs)

    def _compared(self, outputs: Compared) -> dict[str, Tensor]:
        each = (outputs.prediction.float() - outputs.target.float()).square().mean(-1)
        loss = each.mean() if outputs.counted is None else each[outputs.counted].mean()
        return {"loss": loss, "mse": loss.detach()}

    def _denoised(self, outputs: Denoised) -> dict[str, Tensor]:
        if self.pixel_loss == "mse":
            mse = mse_loss(outputs.prediction.float(), outputs.clean)
            return {"loss": mse, "mse": mse.detach()}
        image = outputs.prediction.float().sigmoid()
        mse, dice = mse_loss(image, outputs.clean), _soft_dice(image, outputs.clean)
        return {"loss": 0.9 * dice + 0.1 * mse, "mse": mse.detach(), "dice": dice.detach()}


def _soft_dice(image: Tensor, clean: Tensor) -> Tensor:
    """``1 - 2 sum x y / (sum x^2 + sum y^2)`` of each sample; both between 0 and 1."""
    x, y = image.flatten(1), clean.float().flatten(1)
    overlap, total = (x * y).sum(1), x.square().sum(1) + y.square().sum(1)
    return (1 - (2 * overlap + 1e-5) / (total + 1e-5)).mean()
