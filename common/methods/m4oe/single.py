"""M4oE for one modality and one data set, in operators that a file of a network can hold."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import ConfigError
from ...layers.gating.mlp_experts import MLPExperts
from ...layers.gating.mlp_mixture import Mixed, MLPMixture
from ...layers.image_channels import repeated
from .network import M4oE

__all__ = ["M4oEFile"]


class _Experts(nn.Module):
    """`MLPExperts` without its own gradient: every expert on every token."""

    def __init__(self, *, experts: MLPExperts) -> None:
        super().__init__()
        self.hidden_weight, self.hidden_bias = experts.hidden_weight, experts.hidden_bias
        self.out_weight, self.out_bias = experts.out_weight, experts.out_bias

    @property
    def experts(self) -> int:
        """Their number E."""
        return self.hidden_weight.shape[0]

    def one(self, tokens: Tensor, expert: int) -> Tensor:
        """Answers ``[N, C]`` of one expert."""
        hidden = F.gelu(F.linear(tokens, self.hidden_weight[expert], self.hidden_bias[expert]))
        return F.linear(hidden, self.out_weight[expert], self.out_bias[expert])

    def forward(self, tokens: Tensor, weights: Tensor, sparse: bool = False) -> Tensor:
        """As :meth:`MLPExperts.forward <common.layers.gating.mlp_experts.MLPExperts.forward>`."""
        out = torch.zeros_like(tokens)
        for expert in range(self.experts):
            out = out + self.one(tokens, expert) * weights[:, expert, None]
        return out


class _OneExpert(nn.Module):
    """A mixture with hard routing, for one modality."""

    def __init__(self, *, experts: _Experts, modality: int) -> None:
        super().__init__()
        self.experts, self.modality = experts, modality

    def forward(self, tokens: Tensor, modality: Tensor | None = None) -> Mixed:
        """Tokens ``[B, H, W, C]`` through the modality's expert."""
        return Mixed(self.experts.one(tokens.flatten(0, 2), self.modality).view_as(tokens), None)


class M4oEFile(nn.Module):
    """A slice network whose modality and data set are fixed: nothing in it depends on more than the image's shape.

    Args:
        network: copied.
        modality: index of the modality.
        head: index of the data set whose head answers.

    Shapes:
        image ``[B, 1 or c, H, W]`` -> logits ``[B, K+1, H, W]``, minus infinity for classes that the head lacks.

    Raises:
        ConfigError: for a modality or a head that there is not.
    """

    places: Tensor

    def __init__(self, *, network: M4oE, modality: int = 0, head: int = 0) -> None:
        super().__init__()
        for where, given, names in (("modality", modality, network.modalities), ("head", head, network.tasks)):
            if not 0 <= given < len(names):
                expected = f"0 .. {len(names) - 1} ({', '.join(names)})"
                raise ConfigError("there is no such index", where=where, got=given, expected=expected)
        network = copy.deepcopy(network).eval()
        self.backbone, self.in_channels = network.backbone, network.in_channels
        for block in self.backbone.modules():
            mixture = getattr(block, "mlp", None)
            if isinstance(mixture, MLPMixture):
                experts = _Experts(experts=mixture.experts)
                if mixture.kind == "none":
                    block.mlp = _OneExpert(experts=experts, modality=modality)
                else:
                    mixture.register_module("experts", experts)
        self.output = network.heads.outputs[head]
        own, total = network.heads.classes[head], network.heads.total
        self.total, self.own = total, len(own)
        places = [own.index(k) if k in own else len(own) for k in range(total)]
        self.register_buffer("places", torch.tensor(places), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Segment slices."""
        tokens, _ = self.backbone.tokens(repeated(image, self.in_channels))
        logits = self.output(self.backbone.enlarge(tokens))
        unknown = torch.full_like(logits[:, :1], -torch.inf)
        return torch.cat([logits, unknown], 1).index_select(1, self.places)
