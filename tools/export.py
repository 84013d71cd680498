"""Write a bundle's inference network as one file that runs without this repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.engine.export import Exported, export_program, export_torchscript
from common.errors import ConfigError

from .bundle_files import find_bundle
from .workflow import config_files, read_config

__all__ = ["export", "inference_network"]

FORMATS = {"torchscript": ".ts", "program": ".pt2"}


def inference_network(bundle: str | Path, weights: str | Path | None = None) -> tuple[nn.Module, torch.Tensor]:
    """The network of a bundle's inference.json on the CPU with its weights, and an input of its window's shape.

    Args:
        bundle: a bundle's name or folder.
        weights: the weights; the bundle's own ``models/model.pt`` by default.

    Raises:
        ConfigError: for an unknown bundle, or a configuration without network, weights or window.
        WeightError: when the weights do not fit.
    """
    root = find_bundle(bundle)
    parser = read_config(config_files(root, "inference"))
    overrides: dict[str, Any] = {"bundle_root": str(root), "device": "$__import__('torch').device('cpu')"}
    if weights is not None:
        overrides["model_path"] = str(weights)
    for key in ("network", "weights", "inferer"):
        if key not in parser:
            raise ConfigError(f"inference.json has no {key!r}", where=root)
    parser.update(overrides)
    network = parser.get_parsed_content("network")
    parser.get_parsed_content("weights")
    window = tuple(int(n) for n in parser.get_parsed_content("inferer").roi_size)
    channels = next(p for n, p in network.named_parameters() if p.ndim == len(window) + 2).shape[1]
    return network, torch.randn(1, channels, *window, generator=torch.Generator().manual_seed(0))


def export(
    bundle: str,
    out: str | None = None,
    format: str = "torchscript",
    weights: str | None = None,
    method: str = "auto",
) -> str:
    """Write the inference network of a bundle, after checking it against the network on three inputs.

    Args:
        bundle: a bundle's name or folder.
        out: the file to write; ``models/model.ts`` or ``models/model.pt2`` of the bundle by default.
        format: ``torchscript`` or ``program`` (torch.export).
        weights: weights to use instead of the bundle's ``models/model.pt``.
        method: TorchScript only: ``script``, ``trace``, or ``auto`` for the first that works.

    Returns:
        a line that says what was written.
    """
    if format not in FORMATS:
        raise ConfigError("unknown format", where="--format", got=format, expected=", ".join(FORMATS))
    path = Path(out) if out else find_bundle(bundle) / "models" / f"model{FORMATS[format]}"
    network, example = inference_network(bundle, weights)
    written: Exported
    if format == "torchscript":
        written = export_torchscript(network, example, path, method=method)
    else:
        written = export_program(network, example, path)
    shape = "x".join(map(str, example.shape))
    sizes = "any window size" if written.method == "script" else f"inputs {shape} only"
    return f"{written.path}: {written.method}, {sizes}, relative difference {written.difference:.1e}"
