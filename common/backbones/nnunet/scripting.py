"""nnU-Net's networks under ``torch.jit.script``, whose compiler does not understand their encoders' code."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Recording", "scriptable"]


class _Recorded(nn.Module):
    """What the compiler sees in the network's place: the recorded operations behind one call."""

    def __init__(self, *, network: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """``[B, C, *patch]`` to logits of the same grid."""
        result: Tensor = self.network(image)
        return result


class Recording:
    """Records a network's operations when ``torch.jit.script`` asks for what it shall compile.

    The networks are convolutions, normalisations and skips, whose operations depend on no size and no value, so that
    what was recorded on one patch answers all whose sides its strides divide.

    Args:
        network: ``[B, channels, *patch]`` to one tensor.
        channels: of its input.
        patch: sides of the recorded input in voxels.
    """

    def __init__(self, *, network: nn.Module, channels: int, patch: Sequence[int]) -> None:
        self.network, self.channels, self.patch = network, channels, tuple(int(n) for n in patch)

    def __call__(self) -> nn.Module:
        """The network as a module that can be compiled."""
        first = next(self.network.parameters())
        example = torch.zeros(1, self.channels, *self.patch, device=first.device, dtype=first.dtype)
        training = self.network.training
        self.network.eval()
        try:
            with torch.no_grad():
                recorded = torch.jit.trace(self.network, example, check_trace=False)
        finally:
            self.network.train(training)
        return _Recorded(network=recorded)


def scriptable(network: nn.Module, *, channels: int, patch: Sequence[int]) -> nn.Module:
    """The same network, which ``torch.jit.script`` and ``monai.bundle ckpt_export`` now accept.

    Args:
        network: ``[B, channels, *patch]`` to one tensor; its parameters keep their names.
        channels: of its input.
        patch: sides of the input that is recorded, in voxels.
    """
    network.__prepare_scriptable__ = Recording(  # type: ignore[assignment]  # torch's own hook
        network=network, channels=channels, patch=patch
    )
    return network
