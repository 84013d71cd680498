"""Whole scans answered by prompts, as a MONAI inferer: in an evaluator and in an app that has only the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from monai.inferers import Inferer
from torch import Tensor

from .promptable import Promptable
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

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Label map ``[1, 1, X, Y, Z]`` of a scan of that shape; a mask where a request asks for one."""
        promptable = cast(Promptable, network)
        if self.volume.network is not promptable:
            self.volume.network, self.volume.session = promptable, None
        answer: Tensor = self.volume(inputs, *args, **kwargs)
        return answer
