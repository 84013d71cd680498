"""Mixtures of LoRA experts against their formula, written out matrix by matrix."""

import pytest
import torch
from torch import nn

from common.errors import ConfigError
from common.layers.lora.experts import add_experts, expert_parameters, set_expert
from common.layers.lora.mix import mixed_qkv

LEVELS = ("image", "patch", "pixel")


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.Module()
        self.attn.qkv = nn.Linear(6, 12)


def build(target="qv"):
    torch.manual_seed(0)
    encoder = Encoder().double()
    add_experts(encoder, LEVELS, rank=2, target=target)
    encoder = encoder.double()
    for level in LEVELS:
        for parameter in expert_parameters(encoder, level).values():
            nn.init.normal_(parameter)
    set_expert(encoder, None)
    return encoder


def naive(encoder, weights, x, mix, target):
    out = encoder.attn.qkv(x).clone()
    for part, rows in {"q.": slice(0, 4), "v.": slice(8, 12)}.items() if target == "qv" else {"": slice(0, 12)}.items():
        a, b = ([expert_parameters(encoder, n)[f"attn.qkv.{part}lora_{m}.weight"] for n in LEVELS] for m in ("A", "B"))
        if mix == "product":
            added = sum(w * (bi @ ai) for w, ai, bi in zip(weights, a, b, strict=True))
        else:
            added = sum(w * bi for w, bi in zip(weights, b, strict=True)) @ sum(
                w * ai for w, ai in zip(weights, a, strict=True)
            )
        out[..., rows] += x @ added.T
    return out


@pytest.mark.parametrize("target", ["qv", "fused"])
@pytest.mark.parametrize("mix", ["product", "separate"])
def test_a_mixture_is_its_formula(mix, target):
    encoder, x = build(target), torch.randn(2, 3, 3, 6, dtype=torch.float64)
    weights = torch.tensor([0.5, -1.2, 2.0])
    found = mixed_qkv(encoder.attn.qkv, LEVELS, weights, x, mix=mix)
    assert torch.allclose(found, naive(encoder, weights.double(), x, mix, target), atol=1e-12)


def test_one_expert_is_peft_s():
    encoder, x = build(), torch.randn(2, 6, dtype=torch.float64)
    found = mixed_qkv(encoder.attn.qkv, ("patch",), torch.ones(1), x)
    set_expert(encoder, "patch")
    assert torch.allclose(found, encoder.attn.qkv(x), atol=1e-12)


def test_impossible_mixtures_are_refused():
    qkv, x = build().attn.qkv, torch.randn(1, 6, dtype=torch.float64)
    for levels, weights, mix in ((LEVELS, torch.ones(2), "product"), (("voxel",), torch.ones(1), "product"),
                                 (LEVELS, torch.ones(3), "sum")):  # fmt: skip
        with pytest.raises(ConfigError):
            mixed_qkv(qkv, levels, weights, x, mix=mix)
