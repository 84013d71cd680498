"""Medical SAM Adapter's blocks: small trainable bottlenecks beside a frozen block's attention and perceptron."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError

__all__ = ["INITS", "AdaptableBlock", "BlockAdapter", "Bottleneck"]

INITS = ("zero", "default")
_SCALE = 0.5  # of the adapter beside the perceptron


class Bottleneck(nn.Module):
    """``U GELU(D x)`` with ``D: C -> rC`` and ``U: rC -> C``.

    Args:
        channels: C.
        ratio: r, above 0.
        init: ``zero``: U starts at zero, so that nothing is added at first; ``default``: as torch draws a linear layer.

    Raises:
        ConfigError: for a width below one channel or an unknown start.
    """

    def __init__(self, *, channels: int, ratio: float = 0.25, init: str = "zero") -> None:
        super().__init__()
        hidden = int(channels * ratio)
        if hidden < 1:
            raise ConfigError("an adapter has at least one hidden channel", where="adapter_ratio", got=ratio)
        if init not in INITS:
            raise ConfigError("unknown start of adapters", where="adapter_init", got=init, expected=", ".join(INITS))
        self.down = nn.Linear(channels, hidden)
        self.up = nn.Linear(hidden, channels)
        if init == "zero":
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[..., C]`` to the same shape."""
        out: Tensor = self.up(F.gelu(self.down(tokens)))
        return out


class Projected(Protocol):
    """An attention with one projection for queries, keys and values."""

    @property
    def qkv(self) -> nn.Module:
        """``[..., C] -> [..., 3C]``."""


class AdaptableBlock(Protocol):
    """A transformer block whose parts can be run one by one, as :class:`~common.backbones.sam.encoder.SamBlock`."""

    @property
    def attn(self) -> Projected:
        """Its attention."""

    @property
    def norm2(self) -> nn.Module:
        """What comes before the perceptron."""

    @property
    def mlp(self) -> nn.Module:
        """The perceptron."""

    def start(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The residual and the normed tokens of ``[B, h, w, C]``."""

    def attend(self, qkv: Tensor) -> Tensor:
        """Attended and projected tokens ``[B, h, w, C]`` of ``[B, h, w, 3C]``."""


class BlockAdapter(nn.Module):
    """What turns a frozen SAM block into an adapted one.

    ``a = attention(LN1 x)``, ``y = x + a + S(a)``, ``out = y + MLP(LN2 y) + 0.5 M(LN2 y)`` with the bottlenecks S
    (space) and M (perceptron). S acts on each token alone, so that the padding of windows needs none of it.

    Args:
        channels: C of the block.
        ratio: of the bottlenecks.
        init: of the bottlenecks.

    Raises:
        ConfigError: as :class:`Bottleneck`.

    Reference:
        Wu et al., Medical SAM Adapter, 2023; IC-MoE, section 3.2. The public code starts S and M as torch does
        (``default``) and does not load SAM's position bias into these blocks; here the block itself is SAM's.
    """

    def __init__(self, *, channels: int, ratio: float = 0.25, init: str = "zero") -> None:
        super().__init__()
        self.space = Bottleneck(channels=channels, ratio=ratio, init=init)
        self.mlp = Bottleneck(channels=channels, ratio=ratio, init=init)

    def forward(self, block: AdaptableBlock, tokens: Tensor) -> Tensor:
        """The adapted block on ``[B, h, w, C]``.

        Args:
            block: left as it is.
            tokens: its input.
        """
        shortcut, normed = block.start(tokens)
        return self.finish(block, shortcut, block.attend(block.attn.qkv(normed)))

    def finish(self, block: AdaptableBlock, shortcut: Tensor, attended: Tensor) -> Tensor:
        """The rest of the block from its input and what its attention says, both ``[B, h, w, C]``."""
        tokens = shortcut + attended + self.space(attended)
        normed = block.norm2(tokens)
        out: Tensor = tokens + block.mlp(normed) + _SCALE * self.mlp(normed)
        return out
