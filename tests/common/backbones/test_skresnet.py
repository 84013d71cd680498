"""SimCLRv2's ResNet: sizes, the public layout, and naive twins of its parts."""

import pytest
import torch
from torch.nn import functional as F

from common.backbones.skresnet import ContrastiveHead, SelectiveKernel, SKResNet, load_simclr
from common.errors import ConfigError, WeightError

SMALL = {"width": 0.125, "depths": (1, 2, 1, 1), "classes": 3}


def filled(network):
    """Away from the initial values, under which the residual branches are zero and statistics trivial."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5 if name.endswith(("var", "weight")) and tensor.ndim == 1
                         else torch.randn_like(tensor) * 0.2)  # fmt: skip
    return network.eval()


def test_the_papers_network_has_the_public_layout():
    with torch.device("meta"):
        network, head = SKResNet(), ContrastiveHead()
    state = network.state_dict()
    assert len(state) == 444 and len(head.state_dict()) == 18
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 144.4
    assert round(sum(p.numel() for p in head.parameters()) / 1e6, 1) == 34.1
    shapes = {
        "net.0.0.weight": (64, 3, 3, 3), "net.0.2.weight": (64, 64, 3, 3), "net.0.4.weight": (128, 64, 3, 3),
        "net.0.5.0.running_mean": (128,), "net.1.blocks.0.projection.shortcut.2.weight": (512, 128, 1, 1),
        "net.1.blocks.0.projection.bn.0.weight": (512,), "net.1.blocks.2.net.0.weight": (128, 512, 1, 1),
        "net.1.blocks.0.net.2.main_conv.0.weight": (256, 128, 3, 3),
        "net.1.blocks.0.net.2.mixing_conv.0.weight": (32, 128, 1, 1),
        "net.4.blocks.2.net.2.mixing_conv.2.weight": (2048, 64, 1, 1), "net.4.blocks.2.net.4.0.bias": (4096,),
        "fc.weight": (1000, 4096),
    }  # fmt: skip
    assert {k: tuple(state[k].shape) for k in shapes} == shapes
    assert [k for k in head.state_dict() if k.endswith("weight")] == [f"layers.{i}.weight" for i in (0, 1, 3, 4, 6, 7)]


@torch.inference_mode()
def test_maps_have_strides_4_to_32():
    network = SKResNet(**SMALL).eval()
    image = torch.rand(2, 3, 64, 96)
    maps = network.maps(image)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, 64 // s, 96 // s) for c, s in zip((32, 64, 128, 256), (4, 8, 16, 32), strict=True)
    ]
    assert network.channels == (32, 64, 128, 256)
    torch.testing.assert_close(network(image), maps.fourth.flatten(2).mean(2))


@torch.inference_mode()
@pytest.mark.parametrize("stride, size", [(1, 6), (2, 6), (1, 7), (2, 7)])
def test_the_shortcut_averages_over_what_there_is(stride, size):
    block = filled(SKResNet(**SMALL)).net[1 if stride == 1 else 2].blocks[0].projection
    x = torch.randn(1, block.shortcut[2].in_channels, size, size)
    places = range(0, size, stride)
    pooled = torch.zeros(1, x.shape[1], len(places), len(places))
    for i, y0 in enumerate(places):
        for j, x0 in enumerate(places):
            cut = x[0, :, y0 : y0 + 2, x0 : x0 + 2]
            # stride 1 leaves padding out of the mean; at stride 2 an odd side is padded with a zero that counts
            count = cut[0].numel() if stride == 1 else 4
            pooled[0, :, i, j] = cut.sum((1, 2)) / count
    torch.testing.assert_close(block.shortcut[1](block.shortcut[0](x)), pooled)


@torch.inference_mode()
@pytest.mark.parametrize("height, width", [(8, 10), (7, 9), (8, 9), (7, 10)])
def test_the_maximum_is_padded_as_in_tensorflow(height, width):
    pool, x = SKResNet(**SMALL).net[0][6], torch.randn(1, 2, height, width)
    rows, columns = -(-height // 2), -(-width // 2)
    top, left = (max((n - 1) * 2 + 3 - size, 0) // 2 for n, size in ((rows, height), (columns, width)))
    twin = torch.empty(1, 2, rows, columns)
    for i in range(rows):
        for j in range(columns):
            y0, x0 = 2 * i - top, 2 * j - left
            twin[0, :, i, j] = x[0, :, max(y0, 0) : y0 + 3, max(x0, 0) : x0 + 3].amax((1, 2))
    assert torch.equal(pool(x), twin)


@torch.inference_mode()
@pytest.mark.parametrize("stride", [1, 2])
def test_streams_are_mixed_by_their_shares(stride):
    kernel = filled(SelectiveKernel(inputs=4, outputs=6, stride=stride, ratio=0.5))
    assert kernel.mixing_conv[0].out_channels == 32
    x = torch.randn(2, 4, 8, 8)
    conv, norm = kernel.main_conv[0], kernel.main_conv[1][0]
    both = F.relu(norm(F.conv2d(x, conv.weight, stride=stride, padding=1)))
    first, second = both[:, :6], both[:, 6:]
    z = (first + second).mean((2, 3))
    reduce, middle, expand = kernel.mixing_conv[0].weight[..., 0, 0], kernel.mixing_conv[1][0], kernel.mixing_conv[2]
    hidden = F.relu(middle((z @ reduce.T)[..., None, None]))[..., 0, 0]
    logits = hidden @ expand.weight[..., 0, 0].T
    share = torch.sigmoid(logits[:, :6] - logits[:, 6:])[..., None, None]
    torch.testing.assert_close(kernel(x), share * first + (1 - share) * second)


@torch.inference_mode()
def test_a_block_adds_its_shortcut():
    block = filled(SKResNet(**SMALL)).net[2].blocks[1]
    x = torch.randn(1, 64, 8, 8)
    torch.testing.assert_close(block(x), F.relu(x + block.net(x)))


@torch.inference_mode()
def test_the_heads_last_layer_has_no_relu():
    head = filled(ContrastiveHead(inputs=8, outputs=4))
    x = torch.randn(5, 8)
    twin = x
    for i in (0, 3, 6):
        norm = head.layers[i + 1]
        twin = twin @ head.layers[i].weight.T
        twin = (twin - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias
        twin = twin.clamp(min=0) if i < 6 else twin
    torch.testing.assert_close(head(x), twin, rtol=1e-4, atol=1e-4)
    assert (head(x) < 0).any()


def test_loads_the_converted_file(tmp_path):
    network, head = filled(SKResNet(**SMALL)), filled(ContrastiveHead(inputs=256, outputs=8))
    torch.save({"resnet": network.state_dict(), "head": head.state_dict()}, tmp_path / "r50_2x_sk1.pth")
    flat = {f"resnet.{k}": v for k, v in network.state_dict().items()}
    flat |= {f"head.{k}": v for k, v in head.state_dict().items()}
    torch.save(flat, tmp_path / "flat.pt")
    for name in ("r50_2x_sk1.pth", "flat.pt"):
        got, own = SKResNet(**SMALL), ContrastiveHead(inputs=256, outputs=8)
        assert load_simclr(got, tmp_path / name, own).fraction == 1
        assert all(torch.equal(v, network.state_dict()[k]) for k, v in got.state_dict().items())
        assert all(torch.equal(v, head.state_dict()[k]) for k, v in own.state_dict().items())


def test_the_classification_layer_does_not_matter():
    network = filled(SKResNet(**SMALL))
    other = SKResNet(**{**SMALL, "classes": 7})
    load_simclr(other, network.state_dict())
    load_simclr(other, {k: v for k, v in network.state_dict().items() if not k.startswith("fc.")})
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(other.eval()(image), network(image))


def test_what_does_not_fit_is_refused():
    state = SKResNet(**SMALL).state_dict()
    with pytest.raises(WeightError):
        load_simclr(SKResNet(**{**SMALL, "width": 0.25}), state)
    with pytest.raises(WeightError):
        load_simclr(SKResNet(**SMALL), {k: v for k, v in state.items() if "mixing_conv" not in k})
    for wrong in ({"width": 0.01}, {"depths": (1, 1, 1)}, {"ratio": 0.0}):
        with pytest.raises(ConfigError):
            SKResNet(**{**SMALL, **wrong})
    with pytest.raises(ConfigError):
        ContrastiveHead(layers=0)
