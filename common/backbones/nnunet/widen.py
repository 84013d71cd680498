"""A trained nnU-Net's weights in a network of the same plans with other structures: only the head's rows differ."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from ...errors import WeightError
from ...labels import LabelSpace
from .description import labels_of
from .network import NNUNetResults

__all__ = ["take_over"]

_HEAD = re.compile(r"decoder\.seg_layers\.\d+\.(weight|bias)")


@torch.no_grad()
def take_over(network: nn.Module, results: NNUNetResults, labels: LabelSpace) -> nn.Module:
    """Copy a trained nnU-Net's weights into a network that was built from its plans.

    Every tensor is copied as it is, but for the heads of all decoder stages: their rows go by the structures' names,
    and the background's to the background's. Rows of structures that the trained network does not know stay as they
    are. Of structures that overlap there was no background: its row becomes 0, so that a structure is chosen where its
    own probability was above one half.

    Args:
        network: built from the same plans and configuration, with a head for ``labels``.
        results: the trained one.
        labels: structures of ``network``, which exclude each other.

    Returns:
        The same network.

    Raises:
        WeightError: when a tensor is missing, left over or of another shape, or no structure has the same name.
    """
    known, found = labels_of(results.dataset_json, where=results.folder), results.weights
    rows = {labels.index(n): known.names.index(n) + known.exclusive for n in labels.names if n in known.names}
    if not rows:
        raise WeightError("the nnU-Net to start from knows none of the structures", where=results.folder,
                          got=", ".join(known.names), expected=", ".join(labels.names))  # fmt: skip
    state = network.state_dict()
    heads = {name for name in state if _HEAD.fullmatch(name)}
    wrong = list(state.keys() ^ found.keys())
    wrong += [n for n in state.keys() & found.keys() if found[n].shape[n in heads :] != state[n].shape[n in heads :]]
    wrong += [n for n in heads & found.keys() if len(found[n]) != len(known) + known.exclusive]
    if wrong or not heads:
        raise WeightError("the weights do not fit the network that the plans describe", where=results.checkpoint,
                          got=", ".join(sorted(wrong)[:5]) or "no segmentation head",
                          hint=f"trainer {results.trainer} may change the architecture")  # fmt: skip
    for name, tensor in state.items():
        tensor.copy_(found[name] if name not in heads else _head(tensor, found[name], rows, exclusive=known.exclusive))
    return network


def _head(fresh: Tensor, trained: Tensor, rows: dict[int, int], *, exclusive: bool) -> Tensor:
    result = fresh.clone()
    result[0] = trained[0] if exclusive else 0
    for own, other in rows.items():
        result[own] = trained[other]
    return result
