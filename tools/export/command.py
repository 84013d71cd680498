"""Write a bundle's inference network as one file, or an nnU-Net's folder, that runs without this repository."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn

from common.engine.inference.export import export_onnx, export_program, export_torchscript
from common.errors import CheckpointError, ConfigError
from common.literals import inert
from common.methods.ka2er.results import Results, export_student
from common.paths import check_new

from ..bundle_files import find_bundle
from ..workflow import config_files, read_config
from .networks import for_file

__all__ = ["export", "export_bundle", "inference_network"]

FORMATS = {"torchscript": ".ts", "program": ".pt2", "onnx": ".onnx"}
NNUNET = "nnunet"  # a folder of results
DEPTH = 3  # slices of the example of a network that takes one after the other


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
    overrides: dict[str, Any] = {"bundle_root": inert(str(root)), "device": "$__import__('torch').device('cpu')"}
    if weights is not None:
        overrides["model_path"] = inert(str(weights))
    for key in ("network", "weights", "inferer"):
        if key not in parser:
            raise ConfigError(f"inference.json has no {key!r}", where=root)
    parser.update(overrides)
    network = parser.get_parsed_content("network")
    parser.get_parsed_content("weights")
    shape = _input_shape(parser, network, root)
    return network, torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))


def _input_shape(parser: ConfigParser, network: nn.Module, root: Path) -> list[int]:
    """Channels and window: the inferer's, else the size that the model was trained on."""
    model = parser.get_parsed_content("model") if "model" in parser else {}
    window = getattr(parser.get_parsed_content("inferer"), "roi_size", None)
    size = model.get("image_size") or model.get("network", {}).get("image_size")
    if window is None and size is None:
        raise ConfigError("inference.json does not say how large an input is", where=root, expected="a roi_size")
    if window is not None:
        sides = [int(n) for n in window]
    elif for_file(network).slices:
        sides = [int(size), int(size), DEPTH]
    else:
        planar = next(p.ndim for p in network.parameters() if p.ndim > 3) == 4
        sides = [int(size)] * (2 if planar else 3)
    if "channels" in model:
        return [len(model["channels"]), *sides]
    return [next(p for p in network.parameters() if p.ndim == len(sides) + 2).shape[1], *sides]


def export_bundle(
    bundle: str | Path,
    path: Path,
    *,
    weights: str | Path | None = None,
    format: str = "torchscript",
    method: str = "auto",
    modality: int = 0,
    head: int = 0,
    extra: Mapping[str, str] | None = None,
) -> str:
    """Write the file and say in one phrase what it takes and how equal it is; for the arguments see :func:`export`.

    Raises:
        CheckpointError: when there can be no such file, with the reason.
    """
    network, example = inference_network(bundle, weights)
    form = for_file(network, modality=modality, head=head)
    if form.refusal:
        where = find_bundle(bundle).resolve().name
        hint = "run the bundle itself; docs/README.md of the bundle says more"
        raise CheckpointError(f"there can be no such file: {form.refusal}", where=where, hint=hint)
    if format == "torchscript":
        done = export_torchscript(form.module, example, path, method=method, slices=form.slices, extra=extra)
    else:
        example = example[..., 0] if form.slices else example
        done = (export_program if format == "program" else export_onnx)(form.module, example, path)
    plane = "x".join(map(str, example.shape[:4]))
    sizes = {"script": "any window size", "slices": f"volumes of any depth, slices {plane}"}
    takes = sizes.get(done.method, f"inputs {'x'.join(map(str, example.shape))} only")
    words = [done.method, takes, form.fixed, f"relative difference {done.difference:.1e} on three inputs"]
    return ", ".join(w for w in words if w)


def export(
    bundle: str,
    out: str | None = None,
    format: str = "torchscript",
    weights: str | None = None,
    method: str = "auto",
    modality: int = 0,
    head: int = 0,
) -> str:
    """Write the inference network of a bundle, after checking it against the network on three inputs.

    Args:
        bundle: a bundle's name or folder.
        out: the file to write; ``models/model.ts``, ``.pt2`` or ``.onnx`` of the bundle by default. For ``nnunet`` the
            folder that plays the part of nnU-Net's results, ``models/nnunet`` by default.
        format: ``torchscript``, ``program`` (torch.export), ``onnx``, or ``nnunet`` for results that
            ``nnUNetv2_predict`` reads: of a ka2er student that is an nnU-Net.
        weights: weights to use instead of the bundle's ``models/model.pt``.
        method: TorchScript only: ``script``, ``trace``, or ``auto`` for the first that works.
        modality: M4oE only: index of the modality that the file is for.
        head: M4oE only: index of the data set whose structures the file knows.

    Returns:
        a line that says what was written.
    """
    if format == NNUNET:
        return _nnunet(bundle, out, weights)
    if format not in FORMATS:
        raise ConfigError("unknown format", where="--format", got=format, expected=", ".join([*FORMATS, NNUNET]))
    path = Path(out) if out else find_bundle(bundle) / "models" / f"model{FORMATS[format]}"
    check_new(path, error=ConfigError)
    told = export_bundle(bundle, path, weights=weights, format=format, method=method, modality=modality, head=head)
    return f"{path}: {told}"


def _nnunet(bundle: str, out: str | None, weights: str | None) -> str:
    """nnU-Net's results folders of a student, and the command that reads each."""
    models = find_bundle(bundle) / "models"
    found = export_student(weights or models / "model.pt", out or models / NNUNET)
    return "\n".join(_told(results) for results in found)


def _told(results: Results) -> str:
    return f"{results.folder}: {results.told}\n  {results.command}"
