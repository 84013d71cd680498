"""The Swin-Unet against the released network's tensors, torch's own pieces and public layouts."""

import os
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from monai.networks.nets.swin_unetr import SwinTransformerBlock

from common.backbones.swin_unet.network import MirroredDecoder, SwinUnet, start_weights
from common.backbones.swin_unet.weights import from_m4oe, from_swin, load_m4oe, load_swin
from common.errors import ConfigError, WeightError
from common.layers.gating.mlp_mixture import MLP, MLPMixture
from common.methods.m4oe.network import M4oE

PARITY = Path(os.environ.get("AMALGAM_PARITY", "missing")) / "m4oe_parity.pt"
TINY = {"embed": 12, "num_heads": (1, 2, 3, 6), "window": 2, "drop_path": 0.0}


def mixture(channels, **options):
    return MLPMixture(channels=channels, **{"experts": 2, **options})


def build(feed_forward=MLP, **options):
    torch.manual_seed(0)
    return SwinUnet(feed_forward=feed_forward, **{**TINY, **options}).eval()


def released(experts):
    """A network of the released kind: two heads, of three and two classes."""
    backbone = SwinUnet(feed_forward=partial(mixture, gate="channel_official", experts=experts), **TINY)
    names = [f"m{e}" for e in range(experts)]
    return M4oE(backbone=backbone, modalities=names, classes={"a": (0, 1, 2), "b": (0, 1)}, total=3, embed=12)


@pytest.mark.data
@pytest.mark.skipif(not PARITY.is_file(), reason="AMALGAM_PARITY names the folder of reference tensors")
def test_equals_the_released_network(tmp_path):
    reference = torch.load(PARITY, weights_only=True)
    torch.save({f"swin_unet.{k}": v for k, v in reference["state_dict"].items()}, tmp_path / "released.pth")
    network = released(2).eval()
    load_m4oe(network, tmp_path / "released.pth")
    with torch.inference_mode():
        logits = network(reference["image"], reference["dataset_id"], reference["predict_head"]).logits
    for own, theirs, head in zip(logits, reference["logits"], reference["predict_head"].tolist(), strict=True):
        known = (3, 2)[head]
        torch.testing.assert_close(own[:known], theirs[:known], rtol=0, atol=1e-5)
        assert (own[known:] == -torch.inf).all() and not theirs[known:].any()


def test_a_block_equals_monais():
    network = build(window=3, num_heads=(2, 2, 2, 2))
    for j in (0, 1):
        block = network.layers[0].blocks[j]
        theirs = SwinTransformerBlock(12, 2, (3, 3), (j, j), mlp_ratio=4.0, qkv_bias=True).eval()
        theirs.load_state_dict(block.state_dict())
        tokens = torch.randn(2, 9, 6, 12)
        with torch.inference_mode():
            mask = None
            if j:
                from monai.networks.nets.swin_unetr import compute_mask

                mask = compute_mask([9, 6], (3, 3), (1, 1), tokens.device)
            torch.testing.assert_close(block(tokens, None)[0], theirs(tokens, mask), rtol=0, atol=1e-5)


def test_shapes_and_routings():
    network = build(partial(mixture, top_k=1), in_channels=1)
    features, asked = network(torch.randn(2, 1, 64, 96))
    assert features.shape == (2, 12, 64, 96) and len(asked) == 14 == len(network.feed_forwards())
    assert asked[0].weights.shape == (2, 2, 16, 24) and asked[-1].weights.shape == (2, 2, 16, 24)
    encoded = network.encode(network.embed(torch.randn(1, 1, 64, 64)))
    assert [tuple(s.shape) for s in encoded.skips] == [(1, 16, 16, 12), (1, 8, 8, 24), (1, 4, 4, 48), (1, 2, 2, 96)]


@pytest.mark.parametrize("encoder, decoder", [(True, False), (False, True), (True, True), (False, False)])
def test_experts_where_they_are_asked_for(encoder, decoder):
    network = build(mixture if encoder else MLP, decoder_feed_forward=mixture if decoder else MLP)
    kinds = [isinstance(f, MLPMixture) for f in network.feed_forwards()]
    assert kinds == [encoder] * 8 + [decoder] * 6


@pytest.mark.parametrize("size", [(60, 64), (64, 65)])
def test_other_sizes_are_refused(size):
    with pytest.raises(ConfigError, match="multiples of 32"):
        build()(torch.randn(1, 3, *size))


def count(network):
    return sum(p.numel() for p in network.parameters())


def paper(feed_forward, classes):
    """The paper's network and its bias-free heads; parameters are counted, not held."""
    with torch.device("meta"):
        network = SwinUnet(feed_forward=feed_forward)
        return count(network) + sum(96 * n for n in classes)


@pytest.mark.parametrize(
    "experts, gate, millions", [(1, "channel_official", 29.13), (2, "channel_official", 44.78),
                                (3, "channel_official", 60.43), (4, "channel_official", 76.09), (3, "expert", 58.5)],
)  # fmt: skip
def test_parameters_of_the_paper_size(experts, gate, millions):
    got = paper(partial(mixture, experts=experts, gate=gate), [14, 3, 16])
    assert got / 1e6 == pytest.approx(millions, abs=0.03)


def test_parameters_without_experts():
    assert paper(MLP, [14]) / 1e6 == pytest.approx(27.17, abs=0.03)


def swin(**options):
    torch.manual_seed(1)
    given = {"img_size": 64, "window_size": 2, "embed_dim": 12, "depths": (2, 2, 6, 2), "num_heads": (1, 2, 3, 6)}
    return timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, num_classes=5, **{**given, **options})


def public_names(state):
    """timm's names -> those of the file that Swin's authors publish, with the buffers that it has besides."""
    found = {}
    for name, tensor in state.items():
        if ".downsample." in name:
            stage = int(name.split(".")[1])
            name = name.replace(f"layers.{stage}.", f"layers.{stage - 1}.", 1)
        found[name.replace("head.fc.", "head.")] = tensor
    for stage, depth in enumerate((2, 2, 6, 2)):
        for block in range(depth):
            found[f"layers.{stage}.blocks.{block}.attn.relative_position_index"] = torch.zeros(4, 4, dtype=torch.long)
    found["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 4, 4)
    return found


@pytest.mark.parametrize("layout", ["timm", "public"])
@pytest.mark.parametrize("feed_forward", [MLP, mixture, partial(mixture, gate="none", experts=3)])
def test_a_swin_starts_every_expert(layout, feed_forward, tmp_path):
    source = swin()
    state = source.state_dict() if layout == "timm" else public_names(source.state_dict())
    torch.save({"model": state} if layout == "public" else state, tmp_path / "swin.pth")
    network = build(feed_forward)
    load_swin(network, tmp_path / "swin.pth")
    theirs = source.layers[2].blocks[1].mlp.fc1.weight
    for block in (network.layers[2].blocks[1], network.layers_up[1].blocks[1]):
        own = block.mlp.linear1.weight[None] if feed_forward is MLP else block.mlp.experts.hidden_weight
        assert all(torch.equal(w, theirs) for w in own)


def test_encoder_equals_timms_with_its_weights():
    source = swin(depths=(2, 2, 2, 2)).eval()
    network = build(partial(mixture, experts=1, gate="none"))
    network.load_state_dict(from_swin(source.state_dict(), network), strict=False)
    image = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        encoded = network.encode(network.embed(image), torch.zeros(2, dtype=torch.long))
        torch.testing.assert_close(encoded.tokens, source.forward_features(image), rtol=0, atol=2e-5)


def released_names(network):
    """Our names -> the released code's, experts one by one."""
    public = {}
    for name, tensor in network.state_dict().items():
        name = name.removeprefix("backbone.").removeprefix("heads.").replace(".mlp.gate.", ".mlp.gating_network.")
        if ".experts." in name:
            layer, kind = name.rsplit(".", 1)[1].split("_")
            for e, part in enumerate(tensor):
                where = f"{name.rsplit('.', 1)[0]}.{e}.{'0' if layer == 'hidden' else '2'}.{kind}"
                public[f"swin_unet.{where}"] = part.clone()
        else:
            public[f"swin_unet.{name}"] = tensor
    return public


def test_a_released_checkpoint_loads_and_another_number_of_experts_is_refused(tmp_path):
    source, target = released(2), released(2)
    torch.save(released_names(source), tmp_path / "released.pth")
    load_m4oe(target, tmp_path / "released.pth")
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))
    with pytest.raises(WeightError, match=r"(?s)experts\.hidden_weight.*3x.*2x"):
        load_m4oe(released(3), tmp_path / "released.pth")
    public = released_names(source)
    del public["swin_unet.layers.0.blocks.0.mlp.experts.0.0.weight"]
    with pytest.raises(WeightError, match="experts are missing"):
        from_m4oe(public)


@pytest.mark.parametrize("experts", [None, 3])
def test_weights_start_by_their_layers_inputs(experts):
    forward = MLP if experts is None else partial(mixture, experts=experts)
    network = build(forward, embed=24)
    before = {n: p.clone() for n, p in network.named_parameters()}
    start_weights(network, "swin")
    assert all(torch.equal(p, before[n]) for n, p in network.named_parameters())
    start_weights(network, "fan_in")
    checked = 0
    for name, p in network.named_parameters():
        if "gate" in name or p.ndim < 2 or "table" in name or name.endswith("bias"):
            assert torch.equal(p, before[name]), name
        elif p.numel() > 2000:
            inputs = p.shape[1] * 16 if p.ndim == 4 else p.shape[-1]
            assert float(p.std()) == pytest.approx(inputs**-0.5, rel=0.06), name
            checked += 1
    assert checked > 40
    image = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        tokens, _ = network.tokens(image, torch.zeros(2, dtype=torch.long))
    assert tokens.isfinite().all()


def test_another_way_to_start_weights_is_refused():
    with pytest.raises(ConfigError, match=r"swin or fan_in"):
        start_weights(build(), "xavier")


def test_deeper_blocks_are_skipped_more_often_in_both_directions():
    options = {"embed": 12, "depths": (1, 2, 3, 2), "num_heads": (1, 2, 3, 6), "window": 4, "drop_path": 0.7}
    network = SwinUnet(feed_forward=MLP, **options)
    encoder = [[round(b.drop_path.drop_prob, 9) for b in stage.blocks] for stage in network.layers]
    assert encoder == [[0.0], [0.1, 0.2], [0.3, 0.4, 0.5], [0.6, 0.7]]
    decoder = [[round(b.drop_path.drop_prob, 9) for b in stage.blocks] for stage in network.layers_up[1:]]
    assert decoder == encoder[2::-1]
    mirrored = MirroredDecoder(feed_forward=MLP, **options).stages[1:]
    assert [[round(b.drop_path.drop_prob, 9) for b in stage.blocks] for stage in mirrored] == encoder[2::-1]
    alone = SwinUnet(feed_forward=MLP, **{**options, "depths": (1, 0, 0, 0)})
    assert alone.layers[0].blocks[0].drop_path.drop_prob == 0


def test_every_second_block_looks_across_the_windows():
    network = build(window=5, depths=(2, 3, 2, 2))
    shifts = [[b.attn.shift_size[0] for b in stage.blocks] for stage in network.layers]
    assert shifts == [[0, 2], [0, 2, 0], [0, 2], [0, 2]]
    mirrored = MirroredDecoder(feed_forward=MLP, **{**TINY, "window": 5}).stages[1:]
    assert [[b.attn.shift_size[0] for b in stage.blocks] for stage in mirrored] == [[0, 2]] * 3
