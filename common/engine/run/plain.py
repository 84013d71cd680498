"""States made of tensors, numbers and text only: the one kind of checkpoint that can be read safely."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import CheckpointError

__all__ = ["bare", "plain", "read_plain"]


def bare(item: Any) -> Any:
    """The network inside DistributedDataParallel, DataParallel or torch.compile; anything else as it is."""
    while isinstance(item, nn.Module):
        inner = getattr(item, "module", None) if type(item).__name__.endswith("DataParallel") else None
        inner = inner if inner is not None else getattr(item, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return item
        item = inner
    return item


def plain(value: Any, where: str) -> Any:
    """``value`` with numpy scalars turned into numbers and arrays into tensors.

    Raises:
        CheckpointError: for anything that ``torch.load(weights_only=True)`` would refuse to read back.
    """
    if value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, np.generic)):
        return value
    if isinstance(value, Tensor):
        return value.detach().as_subclass(Tensor)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return torch.from_numpy(value.copy())
    if isinstance(value, Mapping):
        return {k: plain(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    raise CheckpointError(
        "this value cannot be stored in a checkpoint that is safe to read",
        where=where,
        got=type(value).__name__,
        expected="tensors, numbers, text, lists and dictionaries",
    )


def read_plain(path: Path) -> dict[str, Any]:
    """Read a checkpoint; code in it is never executed.

    Raises:
        CheckpointError: for a damaged or hostile file.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types for damaged files
        raise CheckpointError(
            "the checkpoint cannot be read", where=path, got=(str(error) or repr(error)).splitlines()[0][:200]
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError("the checkpoint cannot be read", where=path, got=type(content).__name__)
    return content
