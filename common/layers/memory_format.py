"""The order of a convolution's weights in memory: channels last where that is faster."""

from __future__ import annotations

from torch import channels_last as flat
from torch import channels_last_3d as solid
from torch import nn

__all__ = ["with_layout"]


def with_layout(network: nn.Module, channels_last: bool = False) -> nn.Module:
    """The network itself; with ``channels_last`` the weights of its convolutions lie in memory with channels last.

    Convolutions then compute in that order, as do the maps between them. Values and names stay as they are; sums are
    formed in another order, so that results differ by rounding.

    Args:
        network: changed in place.
        channels_last: False leaves it as it is.
    """
    formats = {4: flat, 5: solid}
    for parameter in network.parameters() if channels_last else ():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])
    return network
