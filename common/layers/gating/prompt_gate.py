"""A gate that reads prompts and an image together and scores the experts that might answer them."""

from __future__ import annotations

import torch
from segment_anything.modeling.transformer import Attention
from torch import Tensor, nn

from ...errors import ConfigError
from .routing import Routing, soft_routing

__all__ = ["PromptGate"]

POOLS = ("tokens", "mean")


class PromptGate(nn.Module):
    """Prompt tokens ask themselves, then the image; the image asks them; its mean token is scored.

        p = LN(p + SA(p));  p = LN(p + CA(p -> x));  p = LN(p + MLP(p));  x = LN(x + CA(x -> p))
        scores = softmax(FC(GELU(FC(mean x))))

    Positions are added to the image's queries and keys, as in SAM's two-way blocks.

    Args:
        channels: C of image and prompts.
        experts: m specific experts, >= 1.
        heads: attention heads.
        hidden: width of the MLP.
        pool: ``tokens`` keeps every prompt token, ``mean`` averages them to one vector first.
        general: a logit of its own for the general expert, the first; without it the text's literal m scores.

    Raises:
        ConfigError: for no experts or another pool.

    Reference:
        SAM-Med3D-MoE, section 2.2 and figure 3. The general logit is ours: over one expert a softmax is always 1.
    """

    def __init__(
        self, *, channels: int, experts: int, heads: int = 8, hidden: int = 2048, pool: str = "tokens",
        general: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if experts < 1:
            raise ConfigError("a gate chooses among experts", where="experts", got=experts, expected="at least 1")
        if pool not in POOLS:
            raise ConfigError("unknown choice", where="prompt_pool", got=pool, expected=", ".join(POOLS))
        self.pool, self.general = pool, general
        self.self_attention = Attention(channels, heads)
        self.to_image = Attention(channels, heads)
        self.to_prompts = Attention(channels, heads)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(4))
        self.head = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, experts + int(general)))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if general:
            with torch.no_grad():
                self._last.bias[0] = 1.0  # begins with the general expert

    @property
    def _last(self) -> nn.Linear:
        layer = self.head[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    @property
    def experts(self) -> int:
        """Specific experts, m."""
        return self._last.out_features - int(self.general)

    def forward(self, image: Tensor, positions: Tensor, prompts: Tensor) -> Routing:
        """Scores of the experts.

        Args:
            image: ``[B, C, g, g, g]``.
            positions: ``[1, C, g, g, g]``.
            prompts: ``[B, N, C]``; where N is 0 one token of zeros is asked about.

        Returns:
            weights ``[B, m+1]``, the general expert first (``[B, m]`` without it), and their logits.
        """
        x = image.flatten(2).transpose(1, 2)
        place = positions.flatten(2).transpose(1, 2).to(x.dtype)
        p = prompts if prompts.shape[1] else prompts.new_zeros(len(prompts), 1, prompts.shape[2])
        p = p.mean(1, keepdim=True) if self.pool == "mean" else p
        first, second, third, fourth = self.norms
        p = first(p + self.self_attention(q=p, k=p, v=p))
        p = second(p + self.to_image(q=p, k=x + place, v=x))
        p = third(p + self.mlp(p))
        x = fourth(x + self.to_prompts(q=x + place, k=p, v=p))
        return soft_routing(self.head(x.mean(1)))

    @torch.no_grad()
    def add_expert(self, bias: float = -30.0) -> None:
        """One more expert, the last one, with weights of zero.

        Args:
            bias: of its logit. Thirty below the others its share is lost in rounding: until it is trained the gate
                says what it said.
        """
        old = self._last
        new = nn.Linear(old.in_features, old.out_features + 1, device=old.weight.device, dtype=old.weight.dtype)
        new.weight.zero_()
        new.bias.fill_(bias)
        new.weight[:-1], new.bias[:-1] = old.weight, old.bias
        self.head[-1] = new

    @torch.no_grad()
    def wake(self) -> list[int]:
        """Give experts that :meth:`add_expert` appended a score that can be trained: xavier weights, a bias of zero.

        Returns:
            their numbers, from 0.
        """
        last = self._last
        asleep = [row for row in range(int(self.general), last.out_features) if not bool(last.weight[row].any())]
        fresh = torch.empty_like(last.weight)
        nn.init.xavier_uniform_(fresh)
        for row in asleep:
            last.weight[row], last.bias[row] = fresh[row], 0.0
        return [row - int(self.general) for row in asleep]
