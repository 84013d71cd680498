"""Hierarchical attention amalgamation: the student asks its task's expert, then the task-agnostic one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError, ExpertError
from ..attention.cross import AttentionBlock, sincos_position, squared_distance, to_tokens

__all__ = [
    "Amalgamated",
    "AttentionMap",
    "ExpertFeatures",
    "ExpertTokens",
    "HierarchicalAmalgamation",
    "attention_volume",
]

SOURCES = ("task", "external")


class ExpertFeatures(NamedTuple):
    """What one expert says: ``samples [b]`` of the batch that it saw and its features ``[b, Ce, x, y, z]``."""

    samples: Tensor
    features: Tensor


class AttentionMap(NamedTuple):
    """Attention ``[b, heads, N, M]`` of ``samples [b]`` to one expert's ``grid`` (task -1 is the external expert)."""

    task: int
    samples: Tensor
    grid: tuple[int, ...]
    weights: Tensor


class Amalgamated(NamedTuple):
    """Amalgamated tokens ``f_m [B, N, C]`` and, where asked for, one attention map per expert that was heard."""

    tokens: Tensor
    attention: tuple[AttentionMap, ...]


class ExpertTokens(nn.Module):
    """Bring an expert's features to the student's width: ``LN(W f) + e`` with a learned task embedding ``e``.

    Args:
        expert_channels: width of the expert's features.
        channels: width C of the student's tokens.
    """

    def __init__(self, *, expert_channels: int, channels: int) -> None:
        super().__init__()
        self.expert_channels = expert_channels
        self.project = nn.Linear(expert_channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.embedding = nn.Parameter(torch.zeros(channels))
        nn.init.trunc_normal_(self.embedding, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, Ce, x, y, z]`` -> ``[B, x*y*z, C]``.

        Raises:
            ExpertError: when the features are not five-dimensional or of another width.
        """
        if features.ndim != 5 or features.shape[1] != self.expert_channels:
            raise ExpertError("unexpected features", got=tuple(features.shape), expected=f"C = {self.expert_channels}")
        tokens: Tensor = self.norm(self.project(to_tokens(features))) + self.embedding
        return tokens


class HierarchicalAmalgamation(nn.Module):
    """Two cross-attentions in a row: ``g = CA1(f_s, e_task)``, ``f_m = CA2(g, e_external)``.

    Both blocks are pre-norm and residual with a four-fold MLP, and have 3-D sine-cosine positions on both sides,
    because student and experts have different grids over the same crop.

    Args:
        channels: width C of the student's tokens.
        expert_channels: feature width of each task's expert, in the order of the task ids.
        external_channels: feature width of the external expert; None when there is none.
        heads: attention heads.
        use: which sources are asked, a non-empty part of ``("task", "external")``.
        mlp_ratio: hidden width of the MLPs over C.
        local: start by asking each expert about the token's own place.

    Raises:
        ConfigError: for unknown, repeated or missing sources, or an external source without an expert.

    Reference:
        KA2ER, section 3.3 and figure 2. The positions, the task embedding and the LayerNorm after the projection
        and the heads' reach are ours.
    """

    def __init__(
        self,
        *,
        channels: int,
        expert_channels: Mapping[str, int],
        external_channels: int | None,
        heads: int = 12,
        use: Sequence[str] = SOURCES,
        mlp_ratio: float = 4.0,
        local: bool = True,
    ) -> None:
        super().__init__()
        if not use or len(set(use)) != len(use) or not set(use) <= set(SOURCES):
            raise ConfigError("unknown sources", where="use", got=tuple(use), expected=f"part of {SOURCES}")
        self.tasks, self.local = tuple(expert_channels), local
        cross_attention = partial(
            AttentionBlock, channels=channels, heads=heads, cross=True, mlp_ratio=mlp_ratio, local=local
        )
        self.ask_task: AttentionBlock | None = None
        self.ask_external: AttentionBlock | None = None
        if "task" in use:
            self.experts = nn.ModuleList(
                ExpertTokens(expert_channels=c, channels=channels) for c in expert_channels.values()
            )
            self.ask_task = cross_attention()
        if "external" in use:
            if external_channels is None:
                raise ConfigError("there is no external expert", where="use", got=tuple(use), expected="('task',)")
            self.external = ExpertTokens(expert_channels=external_channels, channels=channels)
            self.ask_external = cross_attention()

    def forward(
        self,
        f_s: Tensor,
        grid: Sequence[int],
        answers: Mapping[int, ExpertFeatures],
        external: Tensor | None,
        *,
        need_weights: bool = False,
    ) -> Amalgamated:
        """Amalgamate.

        Args:
            f_s: ``[B, N, C]`` student tokens on ``grid``.
            grid: the student's three token counts, product N.
            answers: by task id; together the samples cover the batch exactly once.
            external: ``[B, Ce, x, y, z]`` features of the external expert.
            need_weights: also return the attention weights.

        Raises:
            ConfigError: when samples are missing or double, or the external features are missing.
        """
        position = sincos_position(grid, f_s.shape[-1], f_s)
        x, maps, everyone = f_s, [], torch.arange(f_s.shape[0], device=f_s.device)
        if self.ask_task is not None:
            order = torch.cat([a.samples for a in answers.values()]) if answers else everyone[:0]
            if sorted(order.tolist()) != everyone.tolist():
                raise ConfigError("samples and experts do not match", got=order.tolist(), expected=everyone.tolist())
            heard = []
            for task, answer in answers.items():
                context, where = self._tokens(self.experts[task], answer.features)
                part, weights = self.ask_task(
                    x[answer.samples],
                    context,
                    position=position,
                    context_position=where,
                    need_weights=need_weights,
                    distance=squared_distance(grid, answer.features.shape[2:], x) if self.local else None,
                )
                heard.append(part)
                if weights is not None:
                    maps.append(AttentionMap(task, answer.samples, tuple(answer.features.shape[2:]), weights))
            x = torch.cat(heard)[torch.argsort(order)]
        if self.ask_external is not None:
            if external is None or external.shape[0] != x.shape[0]:
                got = None if external is None else tuple(external.shape)
                raise ConfigError("external features are missing or do not fit the batch", got=got, expected=x.shape[0])
            context, where = self._tokens(self.external, external)
            x, weights = self.ask_external(
                x,
                context,
                position=position,
                context_position=where,
                need_weights=need_weights,
                distance=squared_distance(grid, external.shape[2:], x) if self.local else None,
            )
            if weights is not None:
                maps.append(AttentionMap(-1, everyone, tuple(external.shape[2:]), weights))
        return Amalgamated(x, tuple(maps))

    @staticmethod
    def _tokens(project: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
        tokens: Tensor = project(features)
        return tokens, sincos_position(features.shape[2:], tokens.shape[-1], tokens)


def attention_volume(weights: Tensor, grid: Sequence[int], shape: Sequence[int]) -> Tensor:
    """How much each place of the expert is asked for: ``mean over heads and queries``, upsampled for a picture.

    Args:
        weights: ``[B, heads, N, M]`` attention weights.
        grid: the expert's three token counts, product M.
        shape: voxels of the crop.

    Returns:
        ``[B, 1, X, Y, Z]`` trilinear, scaled so that even attention is 1 everywhere.

    Raises:
        ConfigError: when the weights do not fill the grid.
    """
    if weights.shape[-1] != math.prod(grid):
        raise ConfigError("attention does not fill the grid", got=tuple(weights.shape), expected=tuple(grid))
    share = weights.float().mean((1, 2)) * weights.shape[-1]
    return F.interpolate(share.reshape(-1, 1, *grid), size=tuple(shape), mode="trilinear", align_corners=False)
