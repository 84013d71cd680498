"""Whole scans answered by prompts, as a MONAI inferer: in an evaluator and in an app that has only the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.inferers import Inferer
from torch import Tensor, nn

from .volume import PromptedVolume

__all__ = ["PromptedInferer"]


class PromptedInferer(Inferer):
    """Hands a scan and its prompts to a promptable network; what was encoded stays for the next prompts.

    Args:
        structures: names of the label space, 1 .. K.
        options: of :class:`.volume.PromptedVolume`.

    Raises:
        ConfigError: for an option out of range.
    """

    def __init__(self, *, structures: Sequence[str], **options: Any) -> None:
        super().__init__()
        self.volume = PromptedVolume(network=None, structures=structures, **options)

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        """Label map ``[1, 1, X, Y, Z]`` of a scan of that shape; a mask where a request asks for one."""
        if self.volume.network is not network:
            self.volume.network, self.volume.session = network, None
        answer: Tensor = self.volume(inputs, *args, **kwargs)
        return answer
