"""Writing a network as a file that runs without this package, proven equal on what the file itself gives."""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..atomic import atomic_write
from ..errors import CheckpointError, ConfigError

__all__ = ["Exported", "export_program", "export_torchscript"]

logger = logging.getLogger(__name__)

METHODS = ("auto", "script", "trace")
_INPUTS = 3


class Exported(NamedTuple):
    """A written file.

    Args:
        path: the file.
        method: ``script``, ``trace`` or ``program``.
        difference: largest difference to the network over three inputs, relative to its largest output.
        reason: why it could not be scripted, when ``auto`` fell back to tracing.
    """

    path: Path
    method: str
    difference: float
    reason: str = ""


def export_torchscript(
    network: nn.Module, example: Tensor, path: Path | str, *, method: str = "auto", tolerance: float = 1e-4
) -> Exported:
    """Write a TorchScript file, readable by ``torch.jit.load`` without Python code.

    A scripted network takes any valid size; a traced one only the example's.

    Args:
        network: takes one image tensor and returns one tensor; it is copied, set to evaluation and moved nowhere.
        example: an input [B, C, X, Y, Z] on the network's device.
        path: the file to write, replaced only once the new one is proven.
        method: ``script``, ``trace``, or ``auto`` (script, and trace what cannot be scripted).
        tolerance: largest relative difference that is accepted.

    Returns:
        what was written and how far it is from the network.

    Raises:
        ConfigError: for an unknown method.
        CheckpointError: when the network cannot be exported or the file gives something else.
    """
    if method not in METHODS:
        raise ConfigError("unknown way to export", got=method, expected=", ".join(METHODS))
    network = copy.deepcopy(network).eval()
    with torch.no_grad():
        module, used, reason = _torchscript(network, example, method, path)
        buffer = io.BytesIO()
        torch.jit.save(module, buffer)
    return _write(network, example, Path(path), buffer, torch.jit.load, tolerance, used, reason)


def export_program(network: nn.Module, example: Tensor, path: Path | str, *, tolerance: float = 1e-4) -> Exported:
    """Write a ``torch.export`` program (``.pt2``) for inputs of the example's shape.

    Args:
        network: takes one image tensor and returns one tensor; it is copied and set to evaluation.
        example: an input [B, C, X, Y, Z] on the network's device.
        path: the file to write, replaced only once the new one is proven.
        tolerance: largest relative difference that is accepted.

    Returns:
        what was written and how far it is from the network.

    Raises:
        CheckpointError: when the network cannot be exported or the file gives something else.
    """
    network = copy.deepcopy(network).eval()
    try:
        with torch.no_grad():
            program = torch.export.export(network, (example,))
    except Exception as error:
        raise CheckpointError(
            "the network cannot be exported as a program", where=path, got=_first_line(error)
        ) from error
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return _write(network, example, Path(path), buffer, _load_program, tolerance, "program", "")


def _load_program(buffer: io.BytesIO) -> Any:
    return torch.export.load(buffer).module()


def _torchscript(network: nn.Module, example: Tensor, method: str, path: object) -> tuple[Any, str, str]:
    reason = ""
    if method != "trace":
        try:
            return torch.jit.script(network), "script", ""
        except Exception as error:  # the compiler raises whatever it meets
            reason = _first_line(error)
            if method == "script":
                raise CheckpointError(
                    "the network cannot be scripted", where=path, got=reason, hint="use method='trace'"
                ) from error
            logger.info("traced instead of scripted: %s", reason)
    try:
        return torch.jit.trace(network, example, check_trace=False), "trace", reason
    except Exception as error:
        raise CheckpointError("the network cannot be traced", where=path, got=_first_line(error)) from error


def _write(
    network: nn.Module,
    example: Tensor,
    path: Path,
    buffer: io.BytesIO,
    load: Callable[[io.BytesIO], Any],
    tolerance: float,
    method: str,
    reason: str,
) -> Exported:
    buffer.seek(0)
    difference = _difference(network, load(buffer), example)
    if not difference <= tolerance:
        raise CheckpointError(
            "the exported network gives something else, nothing was written",
            where=path,
            got=f"relative difference {difference:.2e}",
            expected=f"at most {tolerance:.0e}",
        )
    with atomic_write(path, needed=buffer.getbuffer().nbytes) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return Exported(path, method, difference, reason)


@torch.no_grad()
def _difference(network: nn.Module, exported: Any, example: Tensor) -> float:
    """Largest relative difference on the example and on two other inputs."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for i in range(_INPUTS):
        image = example if i == 0 else torch.randn(example.shape, generator=generator).to(example) * 2**i
        expected, got = network(image), exported(image)
        if got.shape != expected.shape or not bool(torch.isfinite(got).all()):
            return float("inf")
        worst = max(worst, float((got - expected).abs().max() / expected.abs().max().clamp_min(1e-12)))
    return worst


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else repr(error)
