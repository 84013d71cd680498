"""The arithmetic of a training: 32 bits, or 16 where the machine has them and gains by them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ...errors import ConfigError

__all__ = ["LEAST_GAIN", "Numerics", "cpu_flags", "numerics"]

logger = logging.getLogger(__name__)

CHOICES = ("auto", "fp32", "bf16", "fp16")
FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # the last one is ARM's
LEAST_GAIN = 1.3
MAPS = ((1, 1, 1), (2, 1, 1), (2, 2, 2), (2, 4, 4), (3, 3, 3), (4, 4, 2))


class Numerics(NamedTuple):
    """What a training computes in.

    ``dtype``: of the network's products (its weights, the loss and the optimiser stay at 32 bits); None for 32 bits
    all through. ``scaled``: whether gradients are scaled, as 16 bits with few of them for the exponent need it.
    ``on_gpu``: whether a GPU computes in fewer than 32 bits, which MONAI's evaluator can, too.
    """

    dtype: torch.dtype | None = None
    scaled: bool = False
    on_gpu: bool = False

    @property
    def kwargs(self) -> dict[str, Any]:
        """``amp_kwargs`` of MONAI's engines."""
        return {} if self.dtype is None else {"dtype": self.dtype}


def cpu_flags(path: str | Path = "/proc/cpuinfo") -> frozenset[str]:
    """What the processor says that it can, of what computes in bf16; empty where it does not say."""
    try:
        lines = Path(path).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    told = next((line.partition(":")[2] for line in lines if line.split(":")[0].strip() in ("flags", "Features")), "")
    return frozenset(FLAGS) & frozenset(told.split())


def numerics(
    precision: str,
    device: torch.device | str,
    *,
    cpu_gain: float | None = None,
    convolutions: int = 2,
    flags: frozenset[str] | None = None,
) -> Numerics:
    """What a training computes in on a device.

    ``auto`` is bf16 on a GPU that has it, fp16 with scaled gradients on an older one, and 32 bits elsewhere. On a CPU
    bf16 is an option for networks that a measurement showed to gain by it; without the processor's own instructions
    it would be slower than 32 bits, and for many small networks it is slower with them. Where the network has 3-D
    convolutions the library is tried first: PyTorch 2.12 gives wrong gradients, without a word, for those over maps of
    two slices (oneDNN on AVX512).

    Args:
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        device: of the training.
        cpu_gain: how many times as fast a training step of this network was in bf16 on a CPU with instructions for
            it; None where nobody measured.
        convolutions: dimensions of the network's convolutions, 2 or 3.
        flags: of the processor; asked of the system when omitted.

    Raises:
        ConfigError: for an unknown precision, or one that the device does not have or the network does not gain by.
    """
    if precision not in CHOICES:
        raise ConfigError("unknown precision", where="precision", got=precision, expected=", ".join(CHOICES))
    kind = torch.device(device).type
    if precision == "auto":
        precision = "fp32" if kind != "cuda" else "bf16" if _gpu_has_bf16() else "fp16"
    if precision == "fp16" and kind != "cuda":
        raise ConfigError("16 bits with scaled gradients need a GPU", where="precision", got=f"fp16 on {kind}",
                          expected="auto or fp32", hint="--precision fp32")  # fmt: skip
    if precision == "bf16" and kind == "cuda" and not _gpu_has_bf16():
        raise ConfigError("this GPU has no bf16", where="precision", got=torch.cuda.get_device_name(),
                          expected="a GPU of compute capability 8.0 or later", hint="--precision fp16")  # fmt: skip
    if precision == "bf16" and kind == "cpu":
        _check_cpu(cpu_gain, cpu_flags() if flags is None else flags)
        if convolutions == 3:
            _check_convolutions()
    if precision == "fp32":
        return Numerics()
    logger.info("the network computes in %s on %s", precision, kind)
    scaled = precision == "fp16"
    return Numerics(torch.float16 if scaled else torch.bfloat16, scaled, on_gpu=kind == "cuda")


def _check_cpu(gain: float | None, flags: frozenset[str]) -> None:
    if not flags:
        raise ConfigError("this processor has no instructions for bf16: it would be slower than 32 bits",
                          where="precision", got="none of " + ", ".join(FLAGS), expected="a processor with one of them",
                          hint="--precision fp32")  # fmt: skip
    if gain is None or gain < LEAST_GAIN:
        got = "not measured for this network" if gain is None else f"{gain:g} times as fast as 32 bits"
        raise ConfigError("bf16 is not worth it on a CPU with this network", where="precision", got=got,
                          expected=f"at least {LEAST_GAIN} times as fast",
                          hint="--precision fp32; whoever measured more: --cpu_gain FACTOR")  # fmt: skip


def _check_convolutions() -> None:
    wrong = [shape for shape in MAPS if not _gradient_holds(shape)]
    if wrong:
        raise ConfigError("this build of PyTorch computes wrong gradients of 3-D convolutions in bf16 on a CPU",
                          where="precision", got=f"PyTorch {torch.__version__}, maps of {wrong[0]} voxels",
                          expected="nearly the gradients of 32 bits", hint="--precision fp32")  # fmt: skip


def _gradient_holds(shape: tuple[int, int, int], channels: int = 16) -> bool:
    """Whether the weights' gradient of one convolution is nearly that of 32 bits; random numbers stay as they are."""
    generator = torch.Generator().manual_seed(0)
    image, weight, given = (
        torch.randn(size, generator=generator)
        for size in ((2, channels, *shape), (channels, channels, 3, 3, 3), (2, channels, *shape))
    )
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        leaf = weight.to(dtype, copy=True).requires_grad_()
        with torch.enable_grad():
            torch.nn.functional.conv3d(image.to(dtype), leaf, padding=1).backward(given.to(dtype))
        found.append(leaf.grad.float() if leaf.grad is not None else torch.full_like(weight, torch.nan))
    return bool((found[1] - found[0]).abs().max() < 0.1 * found[0].abs().max())


def _gpu_has_bf16() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
