"""SAMora's shared computation against whole passes of every block, its start, and what it trains."""

import pytest
import torch
from torch import nn

from common.errors import ConfigError
from common.layers.frozen_features import FrozenFeatures
from common.layers.fusion.hl_attention import LEVELS
from common.layers.lora.experts import expert_names, expert_parameters, set_expert
from common.methods.samora.stage_two.build import samora_network
from common.methods.samora.stage_two.network import SAMora, fusion_window
from common.methods.samora.stage_two.plain import plain_features

SIZES = {"sam": 112, "hsam": 64, "sam2": 128}
FUSERS = {
    "hl_attn": {},
    "global": {"window": "global"},
    "attn_residual": {"expert_signal": "attn_residual"},
    "block": {"expert_signal": "block"},
    "self_attention": {"self_attention": True, "residual": "tokens"},
    "1-2-1": {"order": "1-2-1", "query_rule": "last"},
    "two levels": {"levels": ["pixel", "image"]},
    "mole": {"fuser": "mole"},
    "lac of outputs": {"fuser": "lac", "lac": "outputs"},
    "lac of weights": {"fuser": "lac"},
    "lorahub": {"fuser": "lorahub"},
    "single": {"fuser": "single", "levels": ["patch"]},
    "none": {"fuser": "none", "levels": []},
    "fused lora": {"lora": "fused"},
}


def build(base="sam", *, trained=True, size=None, **options):
    if base == "sam2":
        pytest.importorskip("sam2")
    torch.manual_seed(0)
    size = size or SIZES[base]
    network = samora_network(base=base, variant="tiny", image_size=size, classes=4, d_attn=8, heads=2, **options)
    if trained:  # experts and fusers that say something
        for name, parameter in network.named_parameters():
            if "lora_B" in name or name.startswith("fusers."):
                nn.init.normal_(parameter, std=0.2)
        if network.mix == "separate":
            network.weights.normal_()
    return network.eval()


def image(network, channels=1, batch=2):
    size = network.base.image_size
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", FUSERS)
@pytest.mark.parametrize("base", SIZES)
def test_the_fast_way_equals_whole_passes(base, kind):
    network = build(base, **FUSERS[kind]).double()
    x = image(network).double()
    with torch.no_grad():
        fast, slow = network.encode(x).embedding, plain_features(network, x).embedding
        alone = network.base.encode(x.expand(-1, 3, -1, -1)).embedding
    assert torch.allclose(fast, slow, atol=1e-9, rtol=1e-9)
    assert kind == "none" or float((fast - alone).abs().max()) > 1e-3  # the experts are heard


@pytest.mark.parametrize("kind", ["hl_attn", "attn_residual", "mole", "block"])
def test_gradients_are_those_of_whole_passes(kind):
    network = build(**FUSERS[kind]).double()
    x = image(network, batch=1).double()
    found = []
    for encode in (network.encode, lambda x: plain_features(network, x)):
        network.zero_grad()
        (encode(x).embedding * torch.linspace(-1, 1, 7, dtype=torch.float64)).sum().backward()
        found.append([p.grad.clone() for p in network.fusers.parameters()])
    for fast, slow in zip(*found, strict=True):
        assert torch.allclose(fast, slow, atol=1e-9 * float(slow.abs().max()) + 1e-12, rtol=1e-7)


@pytest.mark.parametrize("base", SIZES)
def test_it_starts_as_the_frozen_sam(base):
    """With trained experts, as the last step of HL-Attn starts at zero."""
    network = build(base, trained=False)
    for level in LEVELS:
        for parameter in expert_parameters(network.base.image_encoder, level).values():
            nn.init.normal_(parameter, std=0.2)
    x = image(network)
    with torch.no_grad():
        found, own = network(x), network.base(x.expand(-1, 3, -1, -1))
    assert torch.allclose(found.logits, own.coarse, atol=1e-5)
    assert (found.fine is None) == (own.fine is None) == (base != "hsam")
    assert network.logits(found).shape == (2, 4, *x.shape[2:])


def test_untrained_experts_say_nothing():
    """B = 0, whatever the fusers have learned; a residual of zero stays zero."""
    network = build()
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            nn.init.zeros_(parameter)
    x = image(network).double()
    with torch.no_grad():
        found = network.double().encode(x).embedding
        assert torch.allclose(found, network.base.encode(x.expand(-1, 3, -1, -1)).embedding, atol=1e-9)


@pytest.mark.parametrize("kind", FUSERS)
def test_only_fusers_and_the_decoder_learn(kind):
    network = build(**FUSERS[kind]).train()
    out = network(image(network))
    loss = out.logits.square().mean() + sum(r.weights.square().mean() for r in out.routings)
    loss.backward()
    learned = {n for n, p in network.named_parameters() if p.grad is not None}
    assert learned <= {n for n, p in network.named_parameters() if p.requires_grad}
    assert {n.split(".")[0] if n.startswith("fusers") else ".".join(n.split(".")[:2]) for n in learned} == {
        "base.mask_decoder", *(["fusers"] if network.fusers is not None and network.fusers[0].state_dict() and
                               list(network.fusers.parameters()) else []),
    }  # fmt: skip
    assert sum(p.numel() for p in network.trainable()) == sum(
        p.numel() for p in network.parameters() if p.requires_grad
    )
    assert len(out.routings) == (4 if kind == "mole" else 0)


def test_samed_trains_one_adapter_and_may_train_the_prompt_encoder():
    options = {"fuser": "single", "levels": ["image"], "train_experts": True, "train_prompt_encoder": True}
    network = build(**options, trained=False).train()
    network(image(network)).logits.square().mean().backward()
    learned = {n for n, p in network.named_parameters() if p.grad is not None and bool((p.grad != 0).any())}
    assert any("lora_B.image" in n for n in learned) and "base.prompt_encoder.no_mask_embed.weight" in learned
    assert not any("image_encoder" in n and "lora" not in n for n in learned)


@pytest.mark.parametrize("kind", ["hl_attn", "mole", "attn_residual"])
def test_checkpointing_changes_nothing_but_memory(kind):
    grads = []
    for checkpointing in (False, True):
        network = build(**FUSERS[kind], checkpointing=checkpointing).train()
        out = network(image(network))
        (out.logits.square().mean() + sum(r.weights[:, 0].sum() for r in out.routings)).backward()
        grads.append([p.grad for p in network.trainable() if p.grad is not None])
        assert len(out.routings) == (4 if kind == "mole" else 0)
    assert len(grads[0]) == len(grads[1])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


@pytest.mark.parametrize("kind", ["hl_attn", "attn_residual", "mole", "none", "single", "lorahub"])
@pytest.mark.parametrize("base", ["sam", "sam2"])
def test_kept_features_are_those_that_are_computed(base, kind):
    network, kept = build(base, **FUSERS[kind]), build(base, **FUSERS[kind], cache_gb=0.1)
    kept.load_state_dict(network.state_dict())
    x = image(network, batch=3)
    first, again = (kept.train().encode(x).embedding for _ in range(2))
    assert (kept.cache.hits, kept.cache.misses, len(kept.cache)) == (3, 3, 3)
    assert torch.equal(first, again)
    assert torch.allclose(first, network.train().encode(x).embedding, atol=1e-4)
    assert torch.equal(kept.encode(x[[2, 0]]).embedding.isfinite().all(), torch.tensor(True))
    alone = kept.eval().encode(x).embedding
    assert (kept.cache.hits, kept.cache.misses) == (5, 3) and torch.allclose(alone, first, atol=1e-4)


def test_kept_features_are_forgotten_with_the_weights_and_when_memory_is_short():
    network = build(fuser="none", levels=[], cache_gb=0.1).train()
    network.encode(image(network))
    network.load_state_dict(network.state_dict())
    assert len(network.cache) == 0
    small = build(fuser="none", levels=[], cache_gb=1e-6).train()
    small.encode(image(small))
    assert len(small.cache) == 0 and small.cache.misses == 2
    with pytest.raises(ConfigError, match="cache_gb"):
        FrozenFeatures(gigabytes=0)


def test_images_that_never_repeat_are_noticed(caplog):
    cache = FrozenFeatures(gigabytes=1)
    cache.misses = 600
    cache(torch.zeros(1, 2), lambda x: (x,))
    assert "none of them twice" in caplog.text


@pytest.mark.parametrize("kind", ["hl_attn", "block", "lac of outputs", "lac of weights"])
def test_silenced_experts_say_nothing(kind):
    network = build(**FUSERS[kind])
    x = image(network)
    with torch.no_grad():
        loud = network.encode(x).embedding
        with network.silenced("image"):
            other = network.encode(x).embedding
            for parameter in expert_parameters(network.base.image_encoder, "image").values():
                nn.init.normal_(parameter)
            assert torch.equal(network.encode(x).embedding, other)  # nothing of it is heard
        assert not torch.allclose(loud, other, atol=1e-3)
        assert not torch.equal(network.encode(x).embedding, other)
    with pytest.raises(ConfigError, match="no such expert"):
        network.silenced("voxel")


def test_a_gray_image_is_one_of_three_equal_channels():
    network = build()
    x = image(network)
    assert torch.equal(network(x).logits, network(x.expand(-1, 3, -1, -1)).logits)


def test_the_frozen_encoder_always_evaluates_and_no_expert_is_left_on():
    network = build().train()
    assert network.training and not network.base.image_encoder.training and network.base.mask_decoder.training
    encoder = network.base.image_encoder
    assert expert_names(encoder) == LEVELS
    x = torch.randn(1, 7, 7, 32)
    own = encoder.blocks[0](x)
    set_expert(encoder, None)
    assert torch.equal(own, encoder.blocks[0](x))


@pytest.mark.parametrize(
    "wrong",
    [
        {"expert_signal": "sum"},
        {"window": "none"},
        {"fuser": "mean"},
        {"lac": "both"},
        {"fuser": "single"},
        {"levels": ["image"]},
        {"levels": ["image", "voxel"]},
        {"fuser": "none"},
        {"base": "sam3"},
        {"fuser": "lac", "lac_weights": [1.0]},
        {"train_experts": True, "cache_gb": 1.0},
        {"fuser": "none", "levels": [], "train_experts": True},
    ],
    ids=str,
)
def test_impossible_networks_are_refused(wrong):
    with pytest.raises(ConfigError):
        samora_network(**{"variant": "tiny", "image_size": 64, "classes": 3, **wrong})


def test_another_number_of_fusers_than_blocks_is_refused():
    network = build()
    with pytest.raises(ConfigError, match="one fuser per block"):
        SAMora(base=network.base, levels=LEVELS, fusers=list(network.fusers)[:2])
    with pytest.raises(ConfigError, match="mix"):
        SAMora(base=network.base, levels=LEVELS, mix="sum")


@pytest.mark.parametrize(("window", "before", "after", "found"), [(0, 8, 8, 0), (14, 32, 32, 14), (8, 56, 28, 4)])
def test_windows_follow_the_block_s_output(window, before, after, found):
    block = nn.Module()
    block.window_size = window
    assert fusion_window(block, before, after) == found
