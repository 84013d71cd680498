"""SimCLRv2's ResNet with selective kernels, in the layout of the public converted weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..weights import Coverage, load_weights, read_state_dict

__all__ = ["ContrastiveHead", "SKMaps", "SKResNet", "SelectiveKernel", "load_simclr"]

_RESNET, _HEAD = "resnet.", "head."


class SKMaps(NamedTuple):
    """Feature maps of the four stages, strides 4, 8, 16 and 32: ``[B, C_i, H/s, W/s]``."""

    first: Tensor
    second: Tensor
    third: Tensor
    fourth: Tensor


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=False)


def _norm(channels: int, *, relu: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels, eps=1e-5), nn.ReLU() if relu else nn.Identity())


class _SamePool(nn.MaxPool2d):
    """Maximum over 3 x 3 with stride 2, padded as TensorFlow's ``SAME`` does: behind the image first."""

    def __init__(self) -> None:
        super().__init__(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        pooled: Tensor = super().forward(nn.functional.pad(x, (width % 2, 1, height % 2, 1), value=-torch.inf))
        return pooled


class SelectiveKernel(nn.Module):
    """Two 3 x 3 streams, mixed per channel by what their pooled sum says.

    ``[u_1, u_2] = relu(bn(conv(x)))``, ``z = mean_xy(u_1 + u_2)``, ``[a_1, a_2] = softmax_12(W_2 relu(bn(W_1 z)))``,
    ``y = a_1 u_1 + a_2 u_2``.

    Args:
        inputs: channels of x.
        outputs: channels of y.
        stride: of the streams.
        ratio: width of z's bottleneck over ``outputs``, at least 32.

    Shapes:
        ``[B, inputs, H, W] -> [B, outputs, H/stride, W/stride]``.

    Reference:
        Chen et al., Big Self-Supervised Models are Strong Semi-Supervised Learners, 2020, appendix; Li et al.,
        Selective Kernel Networks, 2019. Both streams have 3 x 3 kernels without dilation.
    """

    def __init__(self, *, inputs: int, outputs: int, stride: int, ratio: float) -> None:
        super().__init__()
        middle = max(int(outputs * ratio), 32)
        self.main_conv = nn.Sequential(_conv(inputs, 2 * outputs, 3, stride), _norm(2 * outputs))
        self.mixing_conv = nn.Sequential(_conv(outputs, middle, 1), _norm(middle), _conv(middle, 2 * outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Mix."""
        streams = self.main_conv(x).unflatten(1, (2, -1))
        pooled = streams.sum(1).mean((2, 3), keepdim=True)
        shares = self.mixing_conv(pooled).unflatten(1, (2, -1)).softmax(1)
        mixed: Tensor = (streams * shares).sum(1)
        return mixed


class _Projection(nn.Module):
    """ResNet-D's shortcut: an average over 2 x 2, then a 1 x 1 convolution."""

    def __init__(self, *, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        # At stride 1 TensorFlow averages over what there is, which repeating the last row and column gives exactly.
        pad = nn.ReplicationPad2d((0, 1, 0, 1)) if stride == 1 else nn.ZeroPad2d((0, 1, 0, 1))
        self.shortcut = nn.Sequential(pad, nn.AvgPool2d(2, stride), _conv(inputs, outputs, 1))
        self.bn = _norm(outputs, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        shortcut: Tensor = self.bn(self.shortcut(x))
        return shortcut


class _Bottleneck(nn.Module):
    """1 x 1, selective 3 x 3, 1 x 1 to four times the channels, plus the shortcut."""

    def __init__(self, *, inputs: int, channels: int, stride: int, ratio: float, project: bool) -> None:
        super().__init__()
        wide = 4 * channels
        self.projection = _Projection(inputs=inputs, outputs=wide, stride=stride) if project else nn.Identity()
        last = nn.BatchNorm2d(wide, eps=1e-5)
        self.net = nn.Sequential(
            _conv(inputs, channels, 1),
            _norm(channels),
            SelectiveKernel(inputs=channels, outputs=channels, stride=stride, ratio=ratio),
            _conv(channels, wide, 1),
            nn.Sequential(last, nn.Identity()),
        )
        nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.projection(x) + self.net(x))


class _Stage(nn.Module):
    def __init__(self, *, inputs: int, channels: int, depth: int, stride: int, ratio: float) -> None:
        super().__init__()
        first = _Bottleneck(inputs=inputs, channels=channels, stride=stride, ratio=ratio, project=True)
        rest = (
            _Bottleneck(inputs=4 * channels, channels=channels, stride=1, ratio=ratio, project=False)
            for _ in range(depth - 1)
        )
        self.blocks = nn.ModuleList([first, *rest])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class SKResNet(nn.Module):
    """ResNet with selective kernels and ResNet-D's stem and shortcuts; 50 layers, twice as wide, by default.

    Args:
        width: multiple of ResNet-50's channels; the first stage has ``64 width``, a multiple of 2.
        depths: blocks of the four stages.
        ratio: of the selective kernels' bottleneck.
        classes: of the classification layer, which is part of the public layout and never used here.

    Shapes:
        ``[B, 3, H, W]`` in 0..1, without any other normalisation, ``-> [B, 2048 width]``.

    Raises:
        ConfigError: for impossible sizes.

    Reference:
        Chen et al., SimCLRv2, 2020; ``r50_2x_sk1``: 444 tensors, 144.4 M parameters with the classification layer.
        Pooling is padded as in TensorFlow, where those weights were trained.
    """

    def __init__(
        self, *, width: float = 2.0, depths: Sequence[int] = (3, 4, 6, 3), ratio: float = 0.0625, classes: int = 1000
    ) -> None:
        super().__init__()
        base = round(64 * width)
        if len(depths) != 4 or min(depths) < 1 or base < 2 or base % 2 or not 0 < ratio <= 1:
            got = (width, tuple(depths), ratio)
            expected = "64 width even, four depths >= 1, a ratio in (0, 1]"
            raise ConfigError("these sizes make no network", where="teacher", got=got, expected=expected)
        half = base // 2
        stem = nn.Sequential(_conv(3, half, 3, 2), _norm(half), _conv(half, half, 3), _norm(half),
                             _conv(half, base, 3), _norm(base), _SamePool())  # fmt: skip
        stages, inputs = [], base
        for number, depth in enumerate(depths):
            channels = base << number
            stages.append(_Stage(inputs=inputs, channels=channels, depth=depth, stride=1 + (number > 0), ratio=ratio))
            inputs = 4 * channels
        self.channels = tuple(4 * (base << i) for i in range(4))
        self.net = nn.Sequential(stem, *stages)
        self.fc = nn.Linear(inputs, classes)
        self.fc.requires_grad_(False)

    def maps(self, image: Tensor) -> SKMaps:
        """What each stage makes of an image ``[B, 3, H, W]``."""
        x, maps = self.net[0](image), []
        for stage in list(self.net)[1:]:
            x = stage(x)
            maps.append(x)
        return SKMaps(*maps)

    def forward(self, image: Tensor) -> Tensor:
        """The last stage's map, averaged over the image."""
        return self.maps(image).fourth.mean((2, 3))


class ContrastiveHead(nn.Module):
    """SimCLRv2's projection: linear layers with batch norm, ReLU between them.

    Args:
        inputs: width of the features, kept by all layers but the last.
        outputs: of the last layer.
        layers: how many, >= 1.

    Shapes:
        ``[B, inputs] -> [B, outputs]``.
    """

    def __init__(self, *, inputs: int = 4096, outputs: int = 128, layers: int = 3) -> None:
        super().__init__()
        if layers < 1:
            raise ConfigError("a head has at least one layer", where="layers", got=layers)
        modules: list[nn.Module] = []
        for number in range(layers):
            width = inputs if number < layers - 1 else outputs
            modules += [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width, eps=1e-5), nn.ReLU()]
        self.layers = nn.ModuleList(modules[:-1])

    def forward(self, features: Tensor) -> Tensor:
        """Project."""
        for layer in self.layers:
            features = layer(features)
        return features


def load_simclr(
    network: SKResNet, source: str | Path | Mapping[str, Tensor], head: ContrastiveHead | None = None
) -> Coverage:
    """Fill the network, and the head where one is given, from converted SimCLRv2 weights.

    Args:
        network: receives all 444 tensors; the unused classification layer may be missing or of other classes.
        source: ``{"resnet": ..., "head": ...}`` as it is converted, the same with names joined by a dot (as this
            collection writes it), or the network's tensors alone.
        head: stays as it is when the source has none.

    Raises:
        WeightError: when the weights are of another network.
    """
    given = source if isinstance(source, Mapping) else read_state_dict(Path(source))[0]
    where: object = "state dict" if isinstance(source, Mapping) else source
    plain = {key.removeprefix("module."): value for key, value in given.items()}
    parts = {p: {k.removeprefix(p): v for k, v in plain.items() if k.startswith(p)} for p in (_RESNET, _HEAD)}
    body = parts[_RESNET] or {k: v for k, v in plain.items() if not k.startswith(_HEAD)}
    # an own classification layer says nothing about the features
    body = {k: v for k, v in body.items() if not k.startswith("fc.") or v.shape == network.state_dict()[k].shape}
    coverage = load_weights(network, body, where=where, allow_missing=("fc.*",))
    if head is not None and parts[_HEAD]:
        load_weights(head, parts[_HEAD], where=where)
    return coverage
