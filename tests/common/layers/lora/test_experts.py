"""LoRA experts against the formula, against PEFT's own switching, and their bookkeeping."""

import copy

import pytest
import torch
from torch import nn

from common.backbones.sam.network import sam_encoder
from common.errors import ConfigError
from common.layers.lora.experts import LEVELS, add_experts, expert_names, expert_parameters, expert_target, set_expert
from common.layers.lora.files import base_hash
from common.layers.lora.qkv import (
    SplitQKV,
    base_qkv,
    batched_deltas,
    batched_qkv,
    expert_deltas,
    qkv_modules,
    qkv_widths,
    split_qkv,
)

IMAGE = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
NORMED = torch.randn(2, 4, 4, 32, generator=torch.Generator().manual_seed(1))


def spoken(encoder, std=0.3):
    """Experts say something: B starts at zero."""
    torch.manual_seed(7)
    for level in expert_names(encoder):
        for parameter in expert_parameters(encoder, level).values():
            nn.init.normal_(parameter, std=std)
    return encoder


@pytest.fixture(params=["qv", "fused"])
def encoder(request):
    made = sam_encoder("tiny", image_size=64, seed=0)
    add_experts(made, target=request.param)
    return spoken(made)


def naive_delta(qkv, level, x):
    """W_q += B_q A_q, W_v += B_v A_v, written with explicit weights."""
    width = qkv.out_features // 3
    rows = torch.zeros(qkv.out_features, qkv.in_features)
    if isinstance(qkv, SplitQKV):
        rows[:width] = qkv.q.lora_B[level].weight @ qkv.q.lora_A[level].weight
        rows[2 * width :] = qkv.v.lora_B[level].weight @ qkv.v.lora_A[level].weight
    else:
        rows = qkv.lora_B[level].weight @ qkv.lora_A[level].weight
    return x @ rows.t()


def test_a_projection_has_the_same_widths_in_all_its_forms(encoder):
    plain = sam_encoder("tiny", image_size=64, seed=0)
    split = copy.deepcopy(plain)
    split_qkv(split)
    for one in (plain, split, encoder):  # a linear layer, three of them, adapted by PEFT
        assert {qkv_widths(qkv) for qkv in qkv_modules(one).values()} == {(32, 96)}


def test_parameters_per_expert_are_the_published_number():
    with torch.device("meta"):
        vit_b = sam_encoder("vit_b")
    add_experts(vit_b)
    for level in LEVELS:
        assert sum(p.numel() for p in expert_parameters(vit_b, level).values()) == 147_456


def test_parameters_of_a_hierarchical_encoder_whose_projections_change_width():
    """SAM2's B+: widths 112 to 896 in stages of 2, 3, 16 and 3 blocks; three projections also double the width."""
    widths = [w for w, n in ((112, 2), (224, 3), (448, 16), (896, 3)) for _ in range(n)]
    trunk = nn.Module()
    trunk.blocks = nn.ModuleList()
    for before, after in zip([112, *widths[:-1]], widths, strict=True):
        block = nn.Module()
        block.attn = nn.Module()
        block.attn.qkv = nn.Linear(before, 3 * after, device="meta")
        trunk.blocks.append(block)
    add_experts(trunk, ("image",))
    assert sum(p.numel() for p in expert_parameters(trunk, "image").values()) == 165_760


def test_a_split_projection_is_the_fused_one_under_the_same_names():
    plain = sam_encoder("tiny", image_size=64, seed=0)
    split = copy.deepcopy(plain)
    split_qkv(split)
    assert isinstance(split.blocks[0].attn.qkv, SplitQKV)
    before, after = plain.state_dict(), split.state_dict()
    assert set(before) == set(after)
    assert all(torch.equal(before[k], after[k]) for k in before)
    torch.testing.assert_close(split(IMAGE).tokens, plain(IMAGE).tokens)
    assert torch.equal(split.blocks[1].attn.qkv.weight, plain.blocks[1].attn.qkv.weight)
    other = sam_encoder("tiny", image_size=64, seed=1)
    split.load_state_dict(other.state_dict())
    torch.testing.assert_close(split(IMAGE).tokens, other(IMAGE).tokens)
    split_qkv(split)  # once is enough
    assert set(split.state_dict()) == set(before)


def test_a_projection_without_bias_stays_without():
    split = SplitQKV(fused=nn.Linear(4, 12, bias=False))
    assert split.bias is None
    assert set(split.state_dict()) == {"weight"}


def test_new_experts_do_not_change_the_function_and_freeze_the_base():
    plain = sam_encoder("tiny", image_size=64, seed=0)
    expected = plain(IMAGE).tokens
    add_experts(plain)
    assert expert_names(plain) == LEVELS
    assert expert_target(plain) == "qv"
    for level in (*LEVELS, None):
        set_expert(plain, level)
        torch.testing.assert_close(plain(IMAGE).tokens, expected)
    trained = {n for n, p in plain.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in plain.named_parameters() if ".lora_" in n}
    first, second = plain.blocks[0].attn.qkv.q, plain.blocks[0].attn.qkv.v
    for layer in (first, second):
        a = layer.lora_A["image"].weight
        assert 0 < a.abs().max() <= 32**-0.5  # Kaiming uniform with a = sqrt 5: 1 / sqrt(C)
        assert not layer.lora_B["image"].weight.any()
    assert not torch.equal(first.lora_A["image"].weight, first.lora_A["patch"].weight)
    assert isinstance(plain.blocks[0].attn.qkv.k, nn.Linear)


def test_deltas_are_the_formula_and_what_peft_adds(encoder):
    for module in qkv_modules(encoder).values():
        base = base_qkv(module, NORMED)
        every = batched_deltas(module, LEVELS, NORMED)
        for number, level in enumerate(LEVELS):
            set_expert(encoder, level)
            delta = expert_deltas(module, level, NORMED)
            torch.testing.assert_close(delta, naive_delta(module, level, NORMED), atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(base + delta, module(NORMED), atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(every[number], delta, atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(base_qkv(module, NORMED), base)
        torch.testing.assert_close(batched_qkv(module, LEVELS, NORMED, base), base + every, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(batched_qkv(module, LEVELS, NORMED), base + every, atol=1e-5, rtol=1e-5)


def test_keys_are_untouched():
    encoder = sam_encoder("tiny", image_size=64, seed=0)
    add_experts(encoder)
    deltas = batched_deltas(spoken(encoder).blocks[0].attn.qkv, LEVELS, NORMED)
    assert not deltas[..., 32:64].any()
    assert deltas[..., :32].abs().min() > 0


def test_gradients_of_the_batched_way_are_those_of_peft(encoder):
    module = encoder.blocks[0].attn.qkv
    x = NORMED.clone().requires_grad_()
    wanted = [x, *(p for n, p in module.named_parameters() if ".patch." in n)]
    set_expert(encoder, "patch")
    reference = torch.autograd.grad(module(x).square().sum(), wanted)
    got = torch.autograd.grad(batched_qkv(module, LEVELS, x)[1].square().sum(), wanted)
    for mine, theirs in zip(got, reference, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_experts_of_several_ranks_are_batched_too():
    encoder = sam_encoder("tiny", image_size=64, seed=0)
    add_experts(encoder, ("image",), rank=2)
    add_experts(encoder, ("patch",), rank=5, alpha=10)
    spoken(encoder)
    module = encoder.blocks[0].attn.qkv
    for number, level in enumerate(("image", "patch")):
        set_expert(encoder, level)
        got = batched_qkv(module, ("image", "patch"), NORMED)[number]
        torch.testing.assert_close(got, module(NORMED), atol=1e-5, rtol=1e-5)


def test_switching_keeps_what_is_trained(encoder):
    frozen = expert_parameters(encoder, "pixel")
    for parameter in frozen.values():
        parameter.requires_grad_(False)
    before = {n: p.requires_grad for n, p in encoder.named_parameters()}
    for level in ("pixel", None, "image"):
        set_expert(encoder, level)
        assert {n: p.requires_grad for n, p in encoder.named_parameters()} == before


def test_a_copy_of_an_encoder_is_independent(encoder):
    twin = copy.deepcopy(encoder)
    set_expert(twin, "pixel")
    set_expert(encoder, "image")
    expected = encoder(IMAGE).tokens
    spoken(twin, std=1.0)
    torch.testing.assert_close(encoder(IMAGE).tokens, expected, atol=0, rtol=0)


def test_a_state_dict_with_experts_loads_strictly(encoder):
    twin = sam_encoder("tiny", image_size=64, seed=5)
    add_experts(twin, target=expert_target(encoder))
    twin.load_state_dict(encoder.state_dict(), strict=True)
    for level in (*LEVELS, None):
        set_expert(encoder, level)
        set_expert(twin, level)
        assert torch.equal(twin(IMAGE).tokens, encoder(IMAGE).tokens)


def test_the_hash_of_the_base_ignores_experts_and_image_size(encoder):
    own = base_hash(encoder)
    assert own == base_hash(sam_encoder("tiny", image_size=64, seed=0))
    assert own != base_hash(sam_encoder("tiny", image_size=64, seed=1))
    larger = sam_encoder("tiny", image_size=112, seed=3)
    fitting = {k: v for k, v in sam_encoder("tiny", image_size=64, seed=0).state_dict().items() if "pos" not in k}
    larger.load_state_dict(fitting, strict=False)
    assert base_hash(larger) == own
    with torch.no_grad():
        larger.neck[0].weight[0, 0, 0, 0] += 1e-3
    assert base_hash(larger) != own


@pytest.mark.parametrize(
    "call",
    [
        lambda e: add_experts(e, ("image",)),
        lambda e: add_experts(e, ("new", "new")),
        lambda e: add_experts(e, ()),
        lambda e: add_experts(e, ("new",), rank=0),
        lambda e: add_experts(e, ("new",), target="k"),
        lambda e: set_expert(e, "unknown"),
        lambda e: expert_parameters(e, "unknown"),
        lambda e: expert_deltas(e.blocks[0].attn.qkv, "unknown", NORMED),
    ],
)
def test_ill_arguments(encoder, call):
    names = expert_names(encoder)
    with pytest.raises(ConfigError):
        call(encoder)
    assert expert_names(encoder) == names


def test_one_target_for_all_experts():
    encoder = sam_encoder("tiny", image_size=64)
    add_experts(encoder, ("image",), rank=2)
    with pytest.raises(ConfigError, match="fused"):
        add_experts(encoder, ("patch",), target="fused")


def test_an_encoder_without_projections_is_refused():
    with pytest.raises(ConfigError, match=r"attn\.qkv"):
        add_experts(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(ConfigError, match="three equal parts"):
        SplitQKV(fused=nn.Linear(4, 10))
