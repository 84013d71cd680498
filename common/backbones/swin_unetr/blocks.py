"""The convolution blocks of Swin UNETR, channels last, in place where no gradient is wanted, without concatenation.

A skip connection enters by its own half of the weights, `W [up, skip] = W_up up + W_skip skip`, and the first half is
merged with the transposed convolution (kernel 2, stride 2) before it: a 3x3x3 convolution of an up-sampled map is one
transposed convolution with kernel 4 and stride 2, borders included.
"""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.blocks.dynunet_block import UnetResBlock
from monai.networks.blocks.unetr_block import UnetrUpBlock
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.instance_norm import instance_norm_

__all__ = ["ResidualBlock", "UpBlock", "in_place", "is_lean", "merged_weight", "norm_act", "pointwise", "stem"]


def may_overwrite() -> bool:
    """Whether this is a plain run (or a scripted one without gradients): no graph is being recorded."""
    if torch.jit.is_scripting():
        return not torch.is_grad_enabled()
    else:
        return not torch.compiler.is_compiling() and not torch.jit.is_tracing()


def in_place(training: bool) -> bool:
    """Whether a module may overwrite its tensors: no gradient, no training, no graph being recorded."""
    return may_overwrite() and not training and not torch.is_grad_enabled()


def is_lean(block: nn.Module) -> bool:
    """Whether a MONAI residual block is one that :class:`ResidualBlock` computes."""
    if not isinstance(block, UnetResBlock) or not isinstance(block.lrelu, nn.LeakyReLU):
        return False
    norms = [m for m in (block.norm1, block.norm2, getattr(block, "norm3", None)) if m is not None]
    plain = all(isinstance(n, nn.InstanceNorm3d) and not n.affine and not n.track_running_stats for n in norms)
    return plain and block.conv1.conv.kernel_size == (3, 3, 3) and block.conv1.conv.stride == (1, 1, 1)


def _channels_last(x: Tensor) -> Tensor:
    # fp32 convolutions on a CPU are several times faster so; a GPU keeps what it is given
    return x if x.is_cuda else x.contiguous(memory_format=torch.channels_last_3d)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1x1 convolution [B, C, X, Y, Z] -> [B, o, X, Y, Z]; on a CPU a matrix product over channels-last voxels."""
    if x.is_cuda:
        return F.conv3d(x, weight, bias)
    return F.linear(x.permute(0, 2, 3, 4, 1), weight[:, :, 0, 0, 0], bias).permute(0, 4, 1, 2, 3)


def stem(x: Tensor, weight: Tensor) -> Tensor:
    """A 3x3x3 convolution of an image with few channels, [B, C, X, Y, Z] -> channels-last [B, o, X, Y, Z].

    Slabs of shifted copies times a matrix: torch has no channels-last kernel for one input channel.
    """
    size, slab = x.shape[2:], 8
    out = torch.empty([x.shape[0], size[0], size[1], size[2], weight.shape[0]], dtype=x.dtype, device=x.device)
    padded = F.pad(x, [1, 1, 1, 1, 1, 1])
    matrix = weight.flatten(1).t()
    for start in range(0, size[0], slab):
        part = padded[:, :, start : start + slab + 2].unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1)
        rows = part.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4)
        out[:, start : start + slab] = rows @ matrix
    return out.permute(0, 4, 1, 2, 3)


def norm_act(x: Tensor, eps: float, slope: float) -> Tensor:
    """Instance norm followed by a leaky ReLU.

    Args:
        x: a convolution's output [B, C, X, Y, Z], which may be overwritten.
        eps: added to the variance.
        slope: of the leaky ReLU, 1.0 for none.

    Returns:
        [B, C, X, Y, Z].
    """
    if not x.is_cuda and may_overwrite():
        return instance_norm_(_channels_last(x), eps, slope)
    out = F.instance_norm(x, None, None, None, None, True, 0.0, eps)
    return out if slope == 1.0 else F.leaky_relu_(out, slope)


class ResidualBlock(nn.Module):
    """`lrelu(norm(conv(lrelu(norm(conv(x))))) + skip(x))`, the skip a 1x1x1 convolution where channels change.

    Args:
        block: MONAI's `UnetResBlock`, whose parameters (and so state-dict keys) are taken over.
    """

    def __init__(self, *, block: UnetResBlock) -> None:
        super().__init__()
        self.conv1, self.conv2, self.lrelu = block.conv1, block.conv2, block.lrelu
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.conv3: Any = block.conv3 if block.downsample else None
        self.norm3 = block.norm3 if block.downsample else None
        self.eps: float = float(block.norm1.eps)
        self.slope: float = float(block.lrelu.negative_slope)

    def finish(self, out: Tensor, residual: Tensor) -> Tensor:
        """The second half: from the first convolution's output and the residual branch before its norm."""
        out = self.conv2(norm_act(out, self.eps, self.slope))
        out = norm_act(out, self.eps, 1.0)
        if self.norm3 is not None:
            residual = norm_act(residual, self.eps, 1.0)
        out = out.add_(residual) if in_place(self.training) else out + residual
        return F.leaky_relu_(out, self.slope)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, X, Y, Z] -> [B, C', X, Y, Z]; keeps its input."""
        x = _channels_last(x)
        if x.shape[1] <= 2 and not x.is_cuda and in_place(self.training):
            out = stem(x, self.conv1.conv.weight)
        else:
            out = _channels_last(self.conv1(x))
        residual = x
        if self.conv3 is not None:
            residual = pointwise(x, self.conv3.conv.weight, None)
        return self.finish(out, residual)


class UpBlock(nn.Module):
    """Up-sample by two, join a skip connection, convolve: MONAI's `UnetrUpBlock` without the concatenation.

    Args:
        block: MONAI's block, whose parameters (and so state-dict keys) are taken over.
    """

    def __init__(self, *, block: UnetrUpBlock) -> None:
        super().__init__()
        assert isinstance(block.conv_block, UnetResBlock)
        self.transp_conv = block.transp_conv
        self.conv_block = ResidualBlock(block=block.conv_block)

    def join(self, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor]:
        """The first convolution's output and the residual branch, both [B, f, 2X, 2Y, 2Z]."""
        x, skip = _channels_last(x), _channels_last(skip)
        half = skip.shape[1]
        up = self.transp_conv.conv.weight  # [C, f, 2, 2, 2]
        conv = self.conv_block.conv1.conv.weight  # [f, 2f, 3, 3, 3]
        point = self.conv_block.conv3.conv.weight  # [f, 2f, 1, 1, 1]
        if x.shape[2] * x.shape[3] * x.shape[4] > 4 * half:  # else merging the weights costs more than it spares
            out = F.conv_transpose3d(x, merged_weight(up, conv[:, :half]), stride=2, padding=1)
            residual = F.conv_transpose3d(x, torch.einsum("cmxyz,om->coxyz", up, point[:, :half, 0, 0, 0]), stride=2)
        else:
            raised = self.transp_conv(x)
            out = F.conv3d(raised, conv[:, :half], padding=1)
            residual = pointwise(_channels_last(raised), point[:, :half], None)
        if in_place(self.training):
            out = _channels_last(out).add_(F.conv3d(skip, conv[:, half:], padding=1))
            residual = _channels_last(residual)
            rows = residual.permute(0, 2, 3, 4, 1).view(-1, half)
            weight = point[:, half:, 0, 0, 0].t().to(rows.dtype)
            rows.addmm_(skip.permute(0, 2, 3, 4, 1).reshape(-1, half).to(rows.dtype), weight)
            return out, residual
        out = out + F.conv3d(skip, conv[:, half:], padding=1)
        return _channels_last(out), _channels_last(residual + pointwise(skip, point[:, half:], None))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """X [B, C, X, Y, Z] and skip [B, f, 2X, 2Y, 2Z] -> [B, f, 2X, 2Y, 2Z]."""
        out, residual = self.join(x, skip)
        return self.conv_block.finish(out, residual)


def merged_weight(up: Tensor, conv: Tensor) -> Tensor:
    """Weight of the transposed convolution that equals an up-sampling one followed by a 3x3x3 one.

    Per axis `merged[s - t + 1] += up[s] * conv[t]` with `s` in 0..1 and `t` in -1..1.

    Args:
        up: kernel 2, stride 2, [C, f, 2, 2, 2].
        conv: kernel 3, padding 1, [o, f, 3, 3, 3].

    Returns:
        kernel 4, stride 2, padding 1, [C, o, 4, 4, 4].
    """
    # a full convolution of the small kernel with the mirrored one does the double sum
    mirrored = conv.transpose(0, 1).flip([2, 3, 4])  # [f, o, 3, 3, 3]
    return F.conv_transpose3d(up, mirrored)
