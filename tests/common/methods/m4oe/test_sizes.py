"""Parameters and multiply-adds of M4oE at its paper's sizes: 224 x 224 pixels, 96 channels, window 7."""

import pytest
import torch

from common.methods.m4oe.network import M4oE, swin_unet_with_experts
from tools.bench.measure import multiply_adds

# one head per expert: FLARE22, ATLAS23, AMOS22 MR, and a second MR data set with AMOS22's classes
CLASSES = (14, 3, 16, 16)
PLAIN = {"moe_encoder": False, "moe_decoder": False}
WIDTHS = [96, 96, 192, 192, 384, 384, 768, 768, 384, 384, 192, 192, 96, 96]  # of the blocks
TOKENS = [56**2] * 2 + [28**2] * 2 + [14**2] * 2 + [7**2] * 2 + [14**2] * 2 + [28**2] * 2 + [56**2] * 2
PERCEPTRON = sum(8 * c * c + 5 * c for c in WIDTHS)
"""Parameters of one C -> 4C -> C in every block."""


def build(experts, gate="channel_official", **options):
    return M4oE(
        backbone=swin_unet_with_experts(experts=experts, gate=gate, **options),
        modalities=[f"modality{i}" for i in range(experts)],
        classes={f"set{i}": range(n) for i, n in enumerate(CLASSES[:experts])},
        total=16,
    )


def millions(experts, *given, **options):
    with torch.device("meta"):
        network = build(experts, *given, **options)
    return sum(p.numel() for p in network.parameters())


def giga(experts, *given, **options):
    """Multiply-adds of one image with the first head."""
    network, zero = build(experts, *given, **options).eval(), torch.zeros(1, dtype=torch.long)
    with torch.inference_mode():
        return multiply_adds(lambda: network(torch.randn(1, 3, 224, 224), zero, zero))


def spared_attention():
    """10^9 multiply-adds of the published masked windows that we leave out: pairs of tokens that the shift parted."""
    pairs = 0
    for side, channels in ((56, 96), (28, 192), (14, 384)):
        parts = [3, *[7] * (side // 7 - 1), 4]  # along one axis; the published window always has 7
        assert sum(parts) == side
        ours = sum(n * n for n in parts) ** 2
        pairs += 2 * channels * (side**2 * 7**2 - ours)  # q k and its product with v
    return 2 * pairs / 1e9  # one shifted block in the encoder, one in the decoder


@pytest.mark.parametrize(("experts", "published"), [(1, 29.13), (2, 44.78), (3, 60.43), (4, 76.09)])
def test_parameters_with_the_released_gate(experts, published):
    assert round(millions(experts) / 1e6, 2) == published


def test_parameters_by_what_they_are_for():
    plain = millions(3, **PLAIN)
    assert round(plain / 1e6, 2) == 27.17
    heads = [96 * n for n in CLASSES]
    for experts in (1, 2, 3, 4):
        without = plain - sum(heads[:3]) + sum(heads[:experts]) + (experts - 1) * PERCEPTRON
        assert millions(experts, "none") == without
        assert millions(experts, "expert") == without + sum(c * experts + experts for c in WIDTHS)
        assert millions(experts, "channel_official") == without + sum(c * c + c for c in WIDTHS)


def test_parameters_of_a_new_modality():
    encoder, decoder = (
        millions(2, **{off: False}) - millions(1, **{off: False}) for off in ("moe_decoder", "moe_encoder")
    )
    head = 96 * CLASSES[1]
    assert encoder + decoder - 2 * head == PERCEPTRON == 15_651_456
    assert [round((n - head) / 1e6, 2) for n in (encoder, decoder)] == [12.55, 3.10]
    assert round(sum(c * c + c for c in WIDTHS) / 1e6, 2) == 1.96


def test_parameters_with_the_gate_over_experts():
    assert round(millions(3, "expert") / 1e6, 1) == 58.5
    assert millions(3, "expert", top_k=1) == millions(3, "expert")


@pytest.mark.parametrize(("experts", "published"), [(1, 6.54), (2, 9.78), (3, 13.01)])
def test_multiply_adds_with_the_released_gate(experts, published):
    """The published count has whole windows under the shift's mask; we leave out what the mask would hide."""
    ours = giga(experts)
    assert round(spared_attention(), 4) == 0.0201
    assert round(ours + spared_attention(), 2) == published
    perceptron = sum(8 * n * c * c for n, c in zip(TOKENS, WIDTHS, strict=True))
    gate = sum(n * c * c for n, c in zip(TOKENS, WIDTHS, strict=True))
    assert ours == pytest.approx(giga(1, **PLAIN) + (gate + (experts - 1) * perceptron) / 1e9, rel=1e-9)


def test_one_expert_a_token_costs_what_the_plain_network_does():
    plain = giga(3, **PLAIN)
    assert round(plain + spared_attention(), 1) == 6.1
    assert giga(3, "none") == plain
    choosing = sum(3 * n * c for n, c in zip(TOKENS, WIDTHS, strict=True)) / 1e9
    assert giga(3, "expert", top_k=1) == pytest.approx(plain + choosing, rel=1e-9)
    assert round(giga(3, "expert") + spared_attention(), 1) == 12.6
