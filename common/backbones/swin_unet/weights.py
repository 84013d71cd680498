"""Public weights for the Swin-Unet with experts: Swin's own, timm's and M4oE's released layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import WeightError
from ...weights import Coverage, load_weights, read_state_dict

__all__ = ["from_m4oe", "from_swin", "load_m4oe", "load_swin"]

_FIRST = re.compile(r"(?P<block>.*\.mlp)\.experts\.(?P<expert>[0-9]{1,4})\.(?P<layer>[02])\.(?P<kind>weight|bias)$")
_PLAIN = re.compile(r"(?P<block>.*\.mlp)\.fc(?P<layer>[12])\.(?P<kind>weight|bias)$")
_OURS = {"0": "hidden", "2": "out", "fc1": "hidden", "fc2": "out"}
_ONLY_HERE = (
    "*relative_position_index", "*.gate.*", "layers_up.0.*", "*.upsample.*", "concat_back_dim.*", "norm_up.*", "up.*",
)  # fmt: skip
_BUFFERS = ("attn_mask", "relative_position_index")


def from_m4oe(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """M4oE's released names -> ours: experts stacked, ``gating_network`` -> ``gate``, masks left away.

    Args:
        state: names with or without the prefix ``swin_unet.``.

    Returns:
        Names of the network (``outputs.<i>.weight`` among them) and tensors.

    Raises:
        WeightError: when the experts of a block are not numbered 0, 1, ...
    """
    found: dict[str, Tensor] = {}
    experts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.").removeprefix("swin_unet.")
        match = _FIRST.match(name)
        if name.endswith(_BUFFERS):
            continue
        if match is None:
            found[name.replace(".mlp.gating_network.", ".mlp.gate.")] = tensor
        else:
            key = f"{match['block']}.experts.{_OURS[match['layer']]}_{match['kind']}"
            experts.setdefault(key, {})[int(match["expert"])] = tensor
    for key, parts in experts.items():
        if sorted(parts) != list(range(len(parts))):
            raise WeightError("experts are missing", where=key, got=sorted(parts), expected="0, 1, ...")
        found[key] = torch.stack([parts[e] for e in range(len(parts))])
    return found


def from_swin(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """A Swin Transformer's names -> ours: its perceptron for every expert, its encoder for the decoder as well.

    Args:
        state: of the public ``swin_tiny_patch4_window7_224.pth`` (a stage ends with its merging) or timm's (a stage
            begins with it).
        network: the Swin-Unet, whose names and numbers of experts decide.

    Returns:
        Names of the network and tensors; blocks beyond the network's depth are left away.
    """
    own = network.state_dict()
    timm = "layers.3.downsample.reduction.weight" in state
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(_BUFFERS) or name.startswith("head"):
            continue
        if timm:
            name = re.sub(r"^layers\.([0-9])\.downsample\.", lambda m: f"layers.{int(m[1]) - 1}.downsample.", name)
        up = re.sub(r"^layers\.([012])\.blocks\.", lambda m: f"layers_up.{3 - int(m[1])}.blocks.", name)
        for target in {name, up}:
            match = _PLAIN.match(target)
            if match is None:
                places = {target: tensor}
            else:
                stacked = f"{match['block']}.experts.{_OURS['fc' + match['layer']]}_{match['kind']}"
                places = {target.replace(".fc1.", ".linear1.").replace(".fc2.", ".linear2."): tensor}
                if stacked in own:
                    places = {stacked: tensor.expand(own[stacked].shape[0], *tensor.shape).clone()}
            found |= {k: v for k, v in places.items() if k in own}
    return found


def load_m4oe(network: nn.Module, path: Path | str) -> Coverage:
    """Load a checkpoint of the released code into an ``M4oE`` with ``gate='channel_official'``.

    Args:
        network: with a Swin-Unet as ``backbone`` and heads as ``heads.outputs``.
        path: of the checkpoint.

    Raises:
        WeightError: unless every tensor is found with its shape; another number of experts is refused.
    """
    state, _ = read_state_dict(path)
    placed = {f"{'heads' if k.startswith('outputs.') else 'backbone'}.{k}": v for k, v in from_m4oe(state).items()}
    return load_weights(network, placed, where=str(path), allow_missing=("*relative_position_index",))


def load_swin(network: nn.Module, path: Path | str) -> Coverage:
    """Start from an ImageNet Swin-T: every expert gets its perceptron.

    Raises:
        WeightError: unless patches, every encoder block, mergings and the norm are found; the decoder's blocks start
            from the encoder's, what only a Swin-Unet has (expanding, joins, gates) stays as it is.
    """
    state, _ = read_state_dict(path)
    state = {k.removeprefix("module."): v for k, v in state.items()}
    names = list(network.state_dict())
    allowed = [p for p in _ONLY_HERE if any(fnmatchcase(n, p) for n in names)]
    return load_weights(network, from_swin(state, network), where=str(path), allow_missing=allowed)
