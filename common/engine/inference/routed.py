"""Which expert and which head answer, for apps that hand an inferer the image alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer
from torch import Tensor

from ...errors import DataError

__all__ = ["RoutedInferer"]


class RoutedInferer(SimpleInferer):
    """Calls the network with ``modality`` and ``head`` out of ``image.meta``, where nobody else gives them.

    :class:`~common.data.transforms.route.RouteCased` puts ``modality_id`` and ``head_id`` there.
    """

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Segment ``[B, C, X, Y, Z]``."""
        for name in ("modality", "head"):
            if name not in kwargs:
                found = inputs.meta.get(f"{name}_id") if isinstance(inputs, MetaTensor) else None
                if found is None:
                    raise DataError(
                        f"nobody says the {name} of this image",
                        where="inferer",
                        hint="put RouteCased among the transforms",
                    )
                kwargs[name] = torch.as_tensor(found, device=inputs.device).reshape(-1).expand(len(inputs))
        return network(inputs, *args, **kwargs)
