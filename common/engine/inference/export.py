"""Writing a network as a file that runs without this package, proven equal on what the file itself gives."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...atomic import atomic_write
from ...errors import CheckpointError, ConfigError

__all__ = ["EachSlice", "Exported", "export_onnx", "export_program", "export_torchscript"]

logger = logging.getLogger(__name__)

METHODS = ("auto", "script", "trace")
_INPUTS = 3


class Exported(NamedTuple):
    """A written file.

    Args:
        path: the file.
        method: ``script``, ``trace``, ``slices`` (a traced slice network in a scripted loop), ``program`` or ``onnx``.
        difference: largest difference to the network over three inputs, relative to its largest output.
        reason: why it could not be scripted, when ``auto`` fell back to tracing.
    """

    path: Path
    method: str
    difference: float
    reason: str = ""


class EachSlice(nn.Module):
    """A network of slices on volumes of any depth, in the part of Python that ``torch.jit.script`` compiles.

    Args:
        network: ``[1, C, H, W] -> [1, K, H, W]``.

    Shapes:
        ``[B, C, H, W, Z] -> [B, K, H, W, Z]``.
    """

    def __init__(self, *, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volume: Tensor) -> Tensor:
        """Send one slice after the other through the network."""
        samples: list[Tensor] = []
        for b in range(volume.shape[0]):
            slices: list[Tensor] = []
            for z in range(volume.shape[4]):
                slices.append(self.network(volume[b : b + 1, :, :, :, z]))
            samples.append(torch.stack(slices, -1))
        return torch.cat(samples)


def export_torchscript(
    network: nn.Module,
    example: Tensor,
    path: Path | str,
    *,
    method: str = "auto",
    tolerance: float = 1e-4,
    slices: bool = False,
    extra: Mapping[str, str] | None = None,
) -> Exported:
    """Write a TorchScript file, readable by ``torch.jit.load`` without Python code.

    A scripted network takes any valid size; a traced one only the example's; one of slices any depth of them.

    Args:
        network: takes one image tensor and returns one tensor; it is copied, set to evaluation and moved nowhere.
        example: an input [B, C, X, Y, Z] (or [B, C, X, Y]) on the network's device.
        path: the file to write, replaced only once the new one is proven.
        method: ``script``, ``trace``, or ``auto`` (script, and trace what cannot be scripted).
        tolerance: largest relative difference that is accepted.
        slices: the network takes slices ``[1, C, X, Y]`` of the example; it is traced, the file takes volumes.
        extra: texts to store in the file, by name, as ``monai.data.load_net_with_metadata`` reads them.

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
        if slices:
            traced, _, reason = _torchscript(network, example[:1, ..., 0], "trace", path)
            module, used = torch.jit.script(EachSlice(network=traced)), "slices"
            network = EachSlice(network=network)
        else:
            module, used, reason = _torchscript(network, example, method, path)
        buffer = io.BytesIO()
        try:
            torch.jit.save(module, buffer, _extra_files=dict(extra or {}))
        except RuntimeError as error:
            raise CheckpointError("the network cannot be stored", where=path, got=_first_line(error)) from error
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
    buffer = io.BytesIO()
    torch.export.save(_program(network, example, path), buffer)
    return _write(network, example, Path(path), buffer, _load_program, tolerance, "program", "")


def export_onnx(network: nn.Module, example: Tensor, path: Path | str, *, tolerance: float = 1e-4) -> Exported:
    """Write an ONNX file (input ``image``, output ``pred``) for inputs of the example's shape.

    What the file gives is computed with ONNX Runtime where it is installed, else with ONNX's own reference evaluator,
    whose convolutions of volumes take hours: for those ONNX Runtime is needed.

    Args:
        network: takes one image tensor and returns one tensor; it is copied and set to evaluation.
        example: an input [B, C, X, Y, Z] on the network's device.
        path: the file to write, replaced only once the new one is proven.
        tolerance: largest relative difference that is accepted.

    Returns:
        what was written and how far it is from the network.

    Raises:
        ConfigError: when ``onnx``, ``onnxscript`` or, for volumes, ``onnxruntime`` is not installed.
        CheckpointError: when the network cannot be exported or the file gives something else.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"ONNX needs another package: {error.name}", hint="pip install onnx onnxscript") from error
    if example.ndim > 4 and importlib.util.find_spec("onnxruntime") is None:
        problem = "an ONNX file of a volume's network cannot be compared with the network, nothing was written"
        raise ConfigError(problem, where=path, hint="pip install onnxruntime")
    network = copy.deepcopy(network).eval()
    with _written_out_attention():
        program = _program(network, example, path)
    try:
        written = torch.onnx.export(program, dynamo=True, verbose=False, input_names=["image"], output_names=["pred"])
        assert written is not None  # with dynamo=True and no file
        model = written.model_proto
        onnx.checker.check_model(model)
        buffer = io.BytesIO(model.SerializeToString())
    except Exception as error:  # whatever the exporter, the checker and protobuf raise
        raise CheckpointError("the network has no ONNX form", where=path, got=_first_line(error)) from error
    return _write(network, example, Path(path), buffer, _load_onnx, tolerance, "onnx", "")


@contextlib.contextmanager
def _written_out_attention() -> Iterator[None]:
    """Attention as matrix products: fused kernels lay tensors out otherwise than the form that ONNX is made of."""
    fused = F.scaled_dot_product_attention

    def attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        if is_causal or enable_gqa or dropout_p:
            raise CheckpointError("this kind of attention cannot be written out", got="causal, grouped or with dropout")
        scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            bools = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if bools else scores + attn_mask
        return scores.softmax(-1) @ value

    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused


def _program(network: nn.Module, example: Tensor, path: object) -> Any:
    try:
        with torch.no_grad():
            return torch.export.export(network, (example,))
    except Exception as error:
        raise CheckpointError(
            "the network cannot be exported as a program", where=path, got=_first_line(error)
        ) from error


def _load_program(buffer: io.BytesIO) -> Any:
    return torch.export.load(buffer).module()


def _load_onnx(buffer: io.BytesIO) -> Callable[[Tensor], Tensor]:
    content = buffer.getvalue()
    try:
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except ImportError:
        import onnx
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(onnx.load_from_string(content))

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"image": image.cpu().numpy()})[0])

    return run


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
        finite = torch.isfinite(expected)  # minus infinity: a class that a head does not know
        if got.shape != expected.shape or not torch.equal(got[~finite], expected[~finite]) or not bool(finite.any()):
            return float("inf")
        got, expected = got[finite], expected[finite]
        worst = max(
            worst, float((got - expected).abs().nan_to_num(float("inf")).max() / expected.abs().max().clamp_min(1e-12))
        )
    return worst


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else repr(error)
