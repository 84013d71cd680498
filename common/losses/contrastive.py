"""Contrastive losses: what belongs together is pulled together, everything else apart."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather
from torch.nn.functional import cross_entropy, normalize

from ..errors import ConfigError

__all__ = ["SGCL_INDICES", "SemanticGuided", "nt_xent", "semantic_guided"]

SGCL_INDICES = ("text", "equation")
_BASIC, _ADAPTIVE, _MEAN = 0, 2, 3


class SemanticGuided(NamedTuple):
    """The loss, and the three mean distances that it is made of; scalars >= 0."""

    loss: Tensor
    separated: Tensor
    pulled: Tensor
    pushed: Tensor


def semantic_guided(
    foreground: Tensor, background: Tensor, pull: Tensor, push: Tensor, *, index: str = "text", eps: float = 1e-6
) -> SemanticGuided:
    """Semantic-guided contrast of three experts and of their mean.

    With ``d(a, b) = mean over tokens and samples of ||n(a) - n(b)||_1`` and ``n`` the unit length over channels::

        L1 = mean_{e in 0..3} d(foreground_e, background_e)
        L2 = mean_{j in 1,2,3} d(pull_j, pull_0)        towards the basic expert
        L3 = mean_{k in 1,3} d(push_k, push_2)          away from the adaptive one
        L = L2 / (L1 + L3 + eps)

    Args:
        foreground: ``[4, B, N, d]``: basic, semantic, adaptive, mean; mapped features of images without background.
        background: of the same shape, of images without foreground.
        pull: of the same shape, of images, mapped for L2.
        push: of the same shape, of images, mapped for L3.
        index: ``text`` as above; ``equation`` exchanges basic and adaptive in L2 and L3.
        eps: > 0.

    Raises:
        ConfigError: for another index, an eps that is not positive, or features that are not those of three experts
            and their mean.

    Reference:
        IC-MoE, equations 6 to 9. The text pulls towards the basic and pushes from the adaptive expert, the indices of
        equations 7 and 8 say the opposite. ``max`` and ``min`` are directions, not reductions; norm and length are not
        defined there.
    """
    if index not in SGCL_INDICES:
        raise ConfigError("unknown index", where="sgcl_index", got=index, expected=", ".join(SGCL_INDICES))
    if not eps > 0:
        raise ConfigError("eps is positive", where="eps", got=eps)
    shapes = {tuple(t.shape) for t in (foreground, background, pull, push)}
    if len(shapes) > 1 or pull.ndim != 4 or len(pull) != _MEAN + 1:
        raise ConfigError("features of three experts and of their mean", got=sorted(shapes), expected="[4, B, N, d]")
    near, far = (_BASIC, _ADAPTIVE) if index == "text" else (_ADAPTIVE, _BASIC)
    others = [e for e in range(_MEAN + 1) if e != near]
    neutral = [e for e in range(_MEAN + 1) if e not in (_BASIC, _ADAPTIVE)]
    separated = _distance(normalize(foreground.float(), dim=-1), normalize(background.float(), dim=-1))
    close, apart = normalize(pull.float(), dim=-1), normalize(push.float(), dim=-1)
    pulled, pushed = _distance(close[others], close[near]), _distance(apart[neutral], apart[far])
    return SemanticGuided(pulled / (separated + pushed + eps), separated, pulled, pushed)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().sum(-1).mean()


def nt_xent(first: Tensor, second: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Normalised temperature-scaled cross-entropy between two views of each sample.

    With ``z`` the ``2B`` vectors of unit length and ``j(i)`` the other view of ``i``:
    ``L = mean_i -log( exp(z_i . z_j(i) / t) / sum_{k != i} exp(z_i . z_k / t) )``. Under ``torch.distributed`` the
    samples of all processes are candidates; the mean over processes is the loss of the whole batch, and so is its
    gradient.

    Args:
        first: ``[B, d]``, any length.
        second: ``[B, d]``, the other views of the same samples.
        temperature: t > 0.

    Returns:
        A scalar >= 0; ``log(2B - 1)`` for vectors that are all alike.

    Raises:
        ConfigError: for a temperature that is not positive, views that do not pair, or fewer than two samples.

    Reference:
        Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020, equation 1.
    """
    if not temperature > 0:
        raise ConfigError("a temperature is positive", where="temperature", got=temperature)
    if first.shape != second.shape or first.ndim != 2:
        raise ConfigError(
            "two views of the same samples", got=(tuple(first.shape), tuple(second.shape)), expected="[B, d] twice"
        )
    own = torch.stack([normalize(first.float(), dim=1), normalize(second.float(), dim=1)])
    every, rank = _every_process(own)
    size, whole = own.shape[1], every.shape[1]
    if whole < 2:
        raise ConfigError("nothing to tell a sample apart from", where="batch_size", got=whole, expected=">= 2")
    candidates = every.flatten(0, 1)
    logits = own.flatten(0, 1) @ candidates.T / temperature
    sample = torch.arange(rank * size, (rank + 1) * size, device=own.device)
    itself, other = torch.cat([sample, sample + whole]), torch.cat([sample + whole, sample])
    logits = logits.scatter(1, itself[:, None], -torch.inf)
    return cross_entropy(logits, other)


def _every_process(views: Tensor) -> tuple[Tensor, int]:
    """The views ``[2, B, d]`` of all processes, ``[2, processes B, d]``, and this one's rank."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return views, 0
    if not torch.is_grad_enabled():
        parts = [torch.empty_like(views) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, views.contiguous())
        return torch.cat(parts, 1), dist.get_rank()
    return torch.cat(all_gather(views.contiguous()), 1), dist.get_rank()
