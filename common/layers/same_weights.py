"""Modules around a network that are saved and loaded as the network itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

__all__ = ["SameWeights"]

_INNER = "network."


class SameWeights(nn.Module):
    """A module around a network, with the network's own weights: those of one are those of the other.

    The network is a child like any other; its name is left out of the names of parameters and of what is saved, and put
    back before anything is loaded, as torch's own checkpointing wrapper does. Subclasses add no weights.

    Args:
        network: what is wrapped.
    """

    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        _leave_name_out(self)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters by their names in the network."""
        for name, parameter in super().named_parameters(*args, **kwargs):
            yield name.replace(_INNER, "", 1), parameter


def _leave_name_out(module: nn.Module) -> None:
    module.register_state_dict_post_hook(_without_inner)
    module.register_load_state_dict_pre_hook(_with_inner)


def _without_inner(_module: nn.Module, state: dict[str, Any], prefix: str, _metadata: object) -> None:
    _renamed(state, prefix + _INNER, prefix)


def _with_inner(_module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    _renamed(state, prefix, prefix + _INNER)


def _renamed(state: dict[str, Any], old: str, new: str) -> None:
    for name in [n for n in state if n.startswith(old)]:
        state[new + name.removeprefix(old)] = state.pop(name)
