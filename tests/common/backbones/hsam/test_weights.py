"""Checkpoints in H-SAM's released layout, generated: names and shapes as published."""

import logging

import pytest
import torch

from common.backbones.hsam.network import hsam_network
from common.backbones.hsam.weights import load_hsam
from common.backbones.sam.network import sam_network
from common.errors import WeightError
from common.layers.lora.experts import expert_names, expert_parameters

SIZE, K1, RANK = 64, 3, 5
LINEAR = ("weight", "bias")


def attention_names(prefix):
    return {f"{prefix}.{p}_proj.{k}" for p in ("q", "k", "v", "out") for k in LINEAR}


def second_decoder_names(classes):
    """What the released network calls the parameters of its second decoder."""
    names = {"mask_tokens.weight"}
    names |= {f"transformer2.norm_final_attn.{k}" for k in LINEAR}
    names |= attention_names("transformer2.final_attn_token_to_image")
    for i in (0, 1):
        layer = f"transformer2.layers.{i}"
        names |= {f"{layer}.norm{n}.{k}" for n in (1, 2, 3, 4) for k in LINEAR}
        names |= {f"{layer}.mlp.lin{n}.{k}" for n in (1, 2) for k in LINEAR}
        for part in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
            names |= attention_names(f"{layer}.{part}")
    names |= {f"output_upscaling.{i}.{k}" for i in (0, 1, 3) for k in LINEAR}
    names |= {f"skip_connect.{i}.{k}" for i in (0, 1, 3, 4) for k in LINEAR}
    names |= {
        f"output_hypernetworks_mlps2.{c}.layers.{i}.{k}" for c in range(classes) for i in range(5) for k in LINEAR
    }
    names |= {f"iou_prediction_head.layers.{i}.{k}" for i in range(3) for k in LINEAR}
    names |= attention_names("self_attn") | attention_names("self_attn2")
    names |= {f"{part}.{k}" for part in ("norm1", "norm2", "mlp.lin1", "mlp.lin2", "med_sel.0") for k in LINEAR}
    return names


def unused_norms():
    found = {}
    for i in (0, 1):
        for part in ("cross_attn_token_to_image", "cross_attn_image_to_token"):
            for n, width in ((1, 196), (2, 9), (3, 1024)):
                for k in LINEAR:
                    found[f"mask_decoder2.transformer2.layers.{i}.{part}.norm{n}.{k}"] = torch.ones(width)
    return found


def released(network, *, rank=RANK):
    """H-SAM's file: LoRA matrices, both names of the prompt encoder, both decoders."""
    state = {}
    for i, block in enumerate(network.image_encoder.blocks):
        width = block.attn.qkv.in_features
        for part in (0, 1):
            state[f"w_a_{2 * i + part:03d}"] = torch.randn(rank, width)
            state[f"w_b_{2 * i + part:03d}"] = torch.randn(width, rank)
    own = {n: torch.randn_like(t) for n, t in network.state_dict().items() if not n.startswith("image_encoder.")}
    twins = {n.replace("prompt_encoder.", "prompt_encoder2."): t for n, t in own.items() if n.startswith("prompt_")}
    return {**state, **own, **twins, **unused_norms()}


def tiny(**options):
    return hsam_network("tiny", **{"image_size": SIZE, "classes": K1, "seed": 1, **options})


@pytest.mark.parametrize("size", [224, 512])
def test_names_and_shapes_of_the_second_decoder_are_the_published_ones(size):
    with torch.device("meta"):
        decoder = hsam_network(image_size=size, classes=9).mask_decoder2
    state = {n: tuple(t.shape) for n, t in decoder.state_dict().items()}
    assert set(state) == second_decoder_names(9)
    n = (size // 16) ** 2
    assert state["self_attn.q_proj.weight"] == (n, n) and state["norm1.weight"] == (n,)
    assert state["mlp.lin1.weight"] == (2048, n) and state["med_sel.0.weight"] == (1, 9)
    assert state["mask_tokens.weight"] == (9, 256) and state["skip_connect.0.weight"] == (64, 32, 2, 2)
    assert state["transformer2.layers.0.cross_attn_token_to_image.q_proj.weight"] == (256, 256)
    assert state["transformer2.final_attn_token_to_image.q_proj.weight"] == (128, 256)
    assert state["output_hypernetworks_mlps2.0.layers.4.weight"] == (16, 256)
    assert state["iou_prediction_head.layers.2.weight"] == (9, 256)


def test_hsams_own_file(tmp_path):
    network = tiny(selection="released")
    content = released(network)
    torch.save(content, tmp_path / "epoch_299.pth")
    encoder = {n: t.clone() for n, t in network.image_encoder.state_dict().items()}
    coverage = load_hsam(network, tmp_path / "epoch_299.pth")
    assert expert_names(network.image_encoder) == ("samed",)
    state = network.state_dict()
    for name, tensor in content.items():
        if name in state:
            assert torch.equal(state[name], tensor), name
    experts = expert_parameters(network.image_encoder, "samed")
    assert torch.equal(experts["blocks.1.attn.qkv.v.lora_B.weight"], content["w_b_003"])
    assert all(torch.equal(network.image_encoder.state_dict()[n], t) for n, t in encoder.items())
    assert {"mask_decoder2.med_sel.0.weight", "mask_decoder.mask_tokens.weight"} <= set(coverage.matched)


def test_sams_file_fills_all_but_the_second_decoder():
    network, source = tiny(), sam_network("tiny", image_size=128, classes=4, seed=9)
    before = {n: t.clone() for n, t in network.mask_decoder2.state_dict().items()}
    tokens = network.mask_decoder.mask_tokens.weight.clone()
    coverage = load_hsam(network, {f"module.{n}": t for n, t in source.state_dict().items()})
    name = "transformer.layers.1.cross_attn_token_to_image.k_proj.weight"
    assert torch.equal(network.mask_decoder.state_dict()[name], source.mask_decoder.state_dict()[name])
    assert network.image_encoder.pos_embed.shape == (1, 4, 4, 32)
    assert torch.equal(network.mask_decoder.mask_tokens.weight, tokens)
    assert all(torch.equal(t, before[n]) for n, t in network.mask_decoder2.state_dict().items())
    assert any(n.startswith("mask_decoder2.") for n, _ in coverage.missing)


def test_another_number_of_classes_keeps_what_belongs_to_classes():
    network = tiny(classes=5)
    kept = {n: t.clone() for n, t in network.mask_decoder2.state_dict().items() if n.startswith("med_sel")}
    content = released(tiny(classes=K1))
    load_hsam(network, content)
    state = network.mask_decoder2.state_dict()
    assert torch.equal(state["norm2.bias"], content["mask_decoder2.norm2.bias"])
    assert all(torch.equal(state[n], t) for n, t in kept.items())


def test_the_selection_that_the_weights_were_trained_with_is_asked_for(caplog):
    with caplog.at_level(logging.WARNING):
        load_hsam(tiny(selection="released"), released(tiny()))
        assert "selection" not in caplog.text
        load_hsam(tiny(), released(tiny()))
    assert "selection='released'" in caplog.text


def unchanged(network, state, match):
    before = {n: t.clone() for n, t in network.state_dict().items()}
    with pytest.raises(WeightError, match=match):
        load_hsam(network, state)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[n], t) for n, t in before.items())


def test_another_grid_is_refused_with_the_one_to_build():
    unchanged(tiny(), released(tiny(image_size=96)), "grid=6")
    load_hsam(tiny(grid=6), released(tiny(image_size=96)))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("mask_decoder2.norm2.bias", "norm2.bias"),
        ("mask_decoder.iou_token.weight", "only 99"),
        ("prompt_encoder.no_mask_embed.weight", "only 99"),
    ],
)
def test_a_missing_tensor_is_refused_and_changes_nothing(name, match):
    state = released(tiny())
    del state[name]
    unchanged(tiny(), state, match)


def test_other_refusals_change_nothing():
    state = released(tiny())
    unchanged(tiny(), {**state, "mask_decoder2.other": torch.ones(1)}, "no place")
    unchanged(tiny(), {n: t for n, t in state.items() if n != "w_a_000"}, "missing")
    unchanged(tiny(), {**state, "mask_decoder2.norm2.bias": torch.full((16,), float("nan"))}, "NaN")
    unchanged(tiny(), {"weight": torch.ones(2)}, "no tensor")
