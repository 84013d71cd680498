"""Our Swin UNETR against MONAI's: same keys, same numbers, same gradients.

Also the test of ``common.backbones.swin_unetr.weights``.
"""

import pytest
import torch
from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR
from torch.nn import functional as F

from common.backbones.swin_unetr.blocks import ResidualBlock, UpBlock, merged_weight, stem
from common.backbones.swin_unetr.encoder import SwinEncoder
from common.backbones.swin_unetr.network import SwinUNETR
from common.errors import WeightError

SMALL = {"in_channels": 1, "out_channels": 3, "feature_size": 12}
KINDS = [
    {},
    {"use_v2": True},
    {"downsample": "mergingv2"},
    {"in_channels": 3, "normalize": False},
    {"patch_norm": True, "qkv_bias": False},
    {"attn_drop_rate": 0.1},
    {"norm_name": ("group", {"num_groups": 4})},
    {"norm_name": ("instance", {"affine": True})},
]


def pair(**options):
    """MONAI's network with weights like trained ones, and ours with the same."""
    torch.manual_seed(0)
    options = {**SMALL, **options}
    theirs = MonaiSwinUNETR(**options)
    for name, parameter in theirs.named_parameters():
        if name.endswith(("bias_table", "qkv.bias", "norm1.bias")):
            torch.nn.init.normal_(parameter, std=0.5)
    ours = SwinUNETR(**options)
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("options", KINDS)
def test_same_keys_and_logits(options):
    ours, theirs = pair(**options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    x = torch.randn(2, ours.encoder1.layer.conv1.conv.in_channels, 64, 32, 32)
    with torch.no_grad():
        expected = theirs(x)
        assert relative(ours(x), expected) < 1e-5
    with torch.enable_grad():
        assert relative(ours(x), expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64, 64), (96, 96, 32), (96, 96, 96), (128, 32, 64), (128, 128, 128)])
def test_same_logits_on_other_windows(size):
    ours, theirs = pair()
    x = torch.randn(1, 1, *size)
    with torch.no_grad():
        assert relative(ours(x), theirs(x)) < 1e-5


@pytest.mark.parametrize("use_v2", [False, True])
def test_same_gradients_in_training(use_v2):
    ours, theirs = pair(use_v2=use_v2)
    ours, theirs = ours.double().train(), theirs.double().train()
    x = torch.randn(1, 1, 64, 32, 32, dtype=torch.float64)
    expected, got = theirs(x), ours(x)
    weight = torch.randn_like(expected)
    expected.backward(weight)
    got.backward(weight)
    assert relative(got, expected) < 1e-12
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert relative(mine.grad, other.grad) < 1e-9, name


def test_gradient_checkpointing_changes_no_gradient():
    ours, _ = pair()
    again, _ = pair(use_checkpoint=True)
    x = torch.randn(1, 1, 64, 32, 32)
    for network in (ours, again):
        network.train()(x).square().mean().backward()
    for mine, other in zip(ours.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_fast_modules_are_used_where_they_apply_and_only_there():
    assert isinstance(pair()[0].swinViT, SwinEncoder)
    assert isinstance(pair()[0].decoder1, UpBlock)
    assert isinstance(pair()[0].encoder10.layer, ResidualBlock)
    plain = SwinUNETR(fast=False, **SMALL)
    dropout = SwinUNETR(attn_drop_rate=0.1, **SMALL)
    norm = SwinUNETR(norm_name=("group", {"num_groups": 4}), **SMALL)
    assert not isinstance(plain.swinViT, SwinEncoder) and not isinstance(plain.decoder1, UpBlock)
    assert not isinstance(dropout.swinViT, SwinEncoder) and isinstance(dropout.decoder1, UpBlock)
    assert isinstance(norm.swinViT, SwinEncoder) and not isinstance(norm.decoder1, UpBlock)


def test_two_dimensions_are_monais():
    ours, theirs = pair(spatial_dims=2)
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_parts_make_the_whole_and_leave_the_states_alone():
    ours, _ = pair()
    x = torch.randn(1, 1, 64, 32, 32)
    with torch.no_grad():
        states = ours.hidden_states(x)
        assert [s.shape[1] for s in states] == [12, 24, 48, 96, 192]
        kept = [s.clone() for s in states]
        deepest = ours.bottleneck(states)
        copy = deepest.clone()
        decoded = ours.decode(x, states, deepest)
        assert decoded.shape == (1, 12, 64, 32, 32)
        torch.testing.assert_close(ours.out(decoded), ours(x))
    assert all(torch.equal(a, b) for a, b in zip(states, kept, strict=True))
    assert torch.equal(deepest, copy)


def test_a_window_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="divisible"):
        pair()[0](torch.randn(1, 1, 64, 40, 32))


def test_merged_weight_is_upsampling_then_convolution():
    torch.manual_seed(0)
    x, up, conv = torch.randn(2, 3, 4, 2, 5), torch.randn(3, 4, 2, 2, 2), torch.randn(6, 4, 3, 3, 3)
    expected = F.conv3d(F.conv_transpose3d(x, up, stride=2), conv, padding=1)
    got = F.conv_transpose3d(x, merged_weight(up, conv), stride=2, padding=1)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(9, 4, 5), (8, 3, 3), (1, 1, 2)])
def test_stem_is_a_convolution(size):
    x, weight = torch.randn(2, 2, *size), torch.randn(5, 2, 3, 3, 3)
    torch.testing.assert_close(stem(x, weight), F.conv3d(x, weight, padding=1), rtol=1e-4, atol=1e-4)


def test_scripted_equals_eager_on_other_sizes_too():
    ours, _ = pair()
    scripted = torch.jit.script(ours)
    for size in [(64, 32, 32), (32, 64, 64)]:
        x = torch.randn(1, 1, *size)
        with torch.no_grad():
            torch.testing.assert_close(scripted(x), ours(x))


def public_layout(path, feature_size=48, in_channels=1, drop=()):
    """A file with the names of `model_swinvit.pt`."""
    torch.manual_seed(1)
    encoder = MonaiSwinUNETR(in_channels=in_channels, out_channels=2, feature_size=feature_size).swinViT
    names = {n.replace(".linear", ".fc"): torch.randn_like(t) if t.is_floating_point() else t
             for n, t in encoder.state_dict().items()}  # fmt: skip
    content = {f"module.{n}": t for n, t in names.items() if n not in drop}
    heads = {"norm.weight": 768, "norm.bias": 768, "rotation_head.weight": 4, "rotation_head.bias": 4,
             "contrastive_head.weight": 512, "contrastive_head.bias": 512, "conv.0.weight": 384}  # fmt: skip
    content |= {f"module.{n}": torch.randn(size) for n, size in heads.items()}
    torch.save({"epoch": 1, "state_dict": content, "optimizer": {}}, path)
    return encoder, content


@pytest.mark.parametrize("use_v2", [False, True])
def test_load_swinvit_reads_the_public_layout(tmp_path, use_v2):
    _, content = public_layout(tmp_path / "model_swinvit.pt")
    network = SwinUNETR(in_channels=1, out_channels=2, feature_size=48, use_v2=use_v2)
    decoder = network.decoder1.transp_conv.conv.weight.clone()
    coverage = network.load_swinvit(tmp_path / "model_swinvit.pt")
    state = network.swinViT.state_dict()
    assert len(coverage.matched) == len([n for n in state if "layers" not in n or "c.0" not in n])
    assert {n for n, _ in coverage.unexpected} == {n.removeprefix("module.") for n in content} - {
        n.replace(".linear", ".fc") for n in state
    }
    for theirs, mine in [("mlp.fc1.weight", "mlp.linear1.weight"), ("attn.qkv.bias", "attn.qkv.bias")]:
        prefix = "layers3.0.blocks.1."
        assert torch.equal(state[prefix + mine], content[f"module.{prefix}{theirs}"])
    assert torch.equal(network.decoder1.transp_conv.conv.weight, decoder)
    other = SwinUNETR(in_channels=1, out_channels=2, feature_size=48)
    other.load_from({"state_dict": content})
    assert all(torch.equal(t, state[n]) for n, t in other.swinViT.state_dict().items())


def test_load_swinvit_refuses_what_would_load_too_little(tmp_path):
    file = tmp_path / "model_swinvit.pt"
    public_layout(file)
    with pytest.raises(WeightError, match="fit"):
        SwinUNETR(in_channels=1, out_channels=2, feature_size=24).load_swinvit(file)
    with pytest.raises(WeightError, match="fit"):
        SwinUNETR(in_channels=2, out_channels=2, feature_size=48).load_swinvit(file)
    public_layout(file, feature_size=12, drop=("layers1.0.blocks.0.attn.qkv.weight",))
    with pytest.raises(WeightError, match="qkv"):
        SwinUNETR(in_channels=1, out_channels=2, feature_size=12).load_swinvit(file)
    torch.save({"state_dict": {"encoder.weight": torch.ones(2)}}, file)
    with pytest.raises(WeightError, match="nothing"):
        SwinUNETR(in_channels=1, out_channels=2, feature_size=12).load_swinvit(file)
