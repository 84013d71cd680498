"""Checkpoints with the exact public layouts, generated, into networks of other sizes and numbers of masks."""

import copy

import pytest
import torch
from segment_anything import sam_model_registry
from torch import nn
from torch.nn import functional as F

from common.backbones.sam.network import sam_network
from common.backbones.sam.weights import DECODER_GROUPS, load_sam, load_samed_experts, resize_positions
from common.errors import ConfigError, WeightError
from common.layers.lora.experts import add_experts, expert_names, expert_parameters
from common.layers.lora.qkv import expert_deltas

TRAINED_AT = 128  # the tiny public checkpoint: 8 x 8 tokens
DROPPED = tuple(f"mask_decoder.{group}." for group in DECODER_GROUPS)


@pytest.fixture(scope="module")
def public():
    """A checkpoint as SAM's, tiny: 4 masks, 128 pixels, every tensor random."""
    network = sam_network("tiny", image_size=TRAINED_AT, classes=4)
    generator = torch.Generator().manual_seed(2)
    return {k: torch.randn(v.shape, generator=generator) for k, v in network.state_dict().items()}


@pytest.fixture(scope="module")
def samed():
    """SAMed's file for 9 masks: matrices q0, v0, q1, v1, ..., then prompt encoder and mask decoder."""
    network = sam_network("tiny", image_size=TRAINED_AT, classes=9)
    generator = torch.Generator().manual_seed(4)
    state = {f"w_a_{i:03d}": torch.randn(4, 32, generator=generator) for i in range(8)}
    state |= {f"w_b_{i:03d}": torch.randn(32, 4, generator=generator) for i in range(8)}
    rest = {k: v for k, v in network.state_dict().items() if not k.startswith("image_encoder.")}
    return state | {k: torch.randn(v.shape, generator=generator) for k, v in rest.items()}


def loaded(source, size=TRAINED_AT, classes=4, **options):
    network = sam_network("tiny", image_size=size, classes=classes, seed=9)
    coverage = load_sam(network, source, **options)
    return network, coverage


@pytest.mark.parametrize("layout", ["sam", "medsam", "parallel", "with constants"])
def test_public_layouts_load_completely(tmp_path, public, layout):
    content = {
        "sam": public,
        "medsam": {"model": public, "optimizer": {}, "epoch": 3},
        "parallel": {"model": {f"module.{k}": v for k, v in public.items()}},
        "with constants": public | {"pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)},
    }[layout]
    torch.save(content, tmp_path / "sam.pth")
    network, coverage = loaded(tmp_path / "sam.pth")
    assert coverage.fraction == 1.0
    assert all(torch.equal(v, public[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [64, 112, 224])
def test_positions_are_resized_and_windowed_tables_are_not(public, size, interpolation):
    network, _ = loaded(public, size, interpolation=interpolation)
    state, grid = network.state_dict(), size // 16
    image = public["image_encoder.pos_embed"].permute(0, 3, 1, 2)
    expected = F.interpolate(image, size=(grid, grid), mode=interpolation, align_corners=False).permute(0, 2, 3, 1)
    torch.testing.assert_close(state["image_encoder.pos_embed"], expected)
    for index in range(4):
        for axis in "hw":
            name = f"image_encoder.blocks.{index}.attn.rel_pos_{axis}"
            if index not in (1, 3):
                assert torch.equal(state[name], public[name])
            elif interpolation == "bilinear":  # the same as linear along the distances
                rows = F.interpolate(public[name].t()[None], size=2 * grid - 1, mode="linear")[0].t()
                torch.testing.assert_close(state[name], rows)
            else:
                assert state[name].shape == (2 * grid - 1, 16)
    others = [k for k in public if "pos" not in k]
    assert all(torch.equal(state[k], public[k]) for k in others)


def test_the_same_size_is_the_identity(public):
    network = sam_network("tiny", image_size=TRAINED_AT, classes=4)
    resized = resize_positions(public, network.image_encoder)
    assert all(torch.equal(resized[k], public[k]) for k in public)


def test_global_blocks_are_found_by_the_network_not_by_digits_in_their_names():
    """Block 2, 5, 8 or 11 of ViT-L and H need not be global, block 23 or 31 is."""
    with torch.device("meta"):
        network = sam_network("vit_l", image_size=224, classes=4)
        published = sam_model_registry["vit_l"]().state_dict()
    state = {k: torch.zeros(v.shape) for k, v in published.items() if "rel_pos" in k}
    resized = resize_positions(state, network.image_encoder)
    rows = {int(k.split(".")[2]): v.shape[0] for k, v in resized.items()}
    windows = {i: b.window_size for i, b in enumerate(network.image_encoder.blocks)}
    assert {i for i, w in windows.items() if w == 0} == {5, 11, 17, 23}
    assert set(rows.values()) == {27}  # 2 * 14 - 1 for both kinds at 224 pixels
    assert all(torch.equal(resized[k], state[k]) for k in state if int(k.split(".")[2]) not in (5, 11, 17, 23))


def test_another_number_of_masks_leaves_three_groups_as_they_were(public):
    before = sam_network("tiny", image_size=TRAINED_AT, classes=9, seed=9).state_dict()
    network, coverage = loaded(public, classes=9)
    missing = {name for name, _ in coverage.missing}
    assert missing == {k for k in before if k.startswith(DROPPED)}
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name] if name in missing else public[name]), name


def test_experts_stay_when_the_base_is_loaded(public):
    for target in ("qv", "fused"):
        network = sam_network("tiny", image_size=64, classes=9, seed=1)
        add_experts(network.image_encoder, target=target)
        before = {k: v.clone() for k, v in expert_parameters(network.image_encoder, "patch").items()}
        load_sam(network, public)
        plain, _ = loaded(public, 64, 9)
        image = torch.rand(1, 3, 64, 64)
        got, expected = network.encode(image).embedding, plain.encode(image).embedding
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
        for name, parameter in expert_parameters(network.image_encoder, "patch").items():
            assert torch.equal(parameter, before[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("image_encoder.blocks.2.attn.qkv.weight"), "qkv.weight"),
        (lambda s: s.pop("image_encoder.pos_embed"), "pos_embed"),
        (lambda s: s.pop("mask_decoder.iou_token.weight"), "iou_token"),
        (lambda s: s.update({"image_encoder.blocks.0.attn.rel_pos_h": torch.zeros(9, 16)}), "rel_pos_h"),
        (lambda s: s.update({"image_encoder.pos_embed": torch.zeros(1, 8, 8, 16)}), "pos_embed"),
        (lambda s: s.update({"image_encoder.blocks.4.norm1.weight": torch.zeros(32)}), "no place"),
        (lambda s: s.update({"mask_decoder.iou_token.weight": torch.full((1, 32), float("inf"))}), "infinite"),
        (lambda s: [s.update({f"sam.{k}": s.pop(k)}) for k in list(s)], "strip"),
    ],
    ids=["projection", "positions", "decoder", "window", "width", "depth", "infinite", "prefix"],
)
@pytest.mark.parametrize("classes", [4, 9])
def test_whatever_does_not_fit_is_refused_and_nothing_changes(public, change, message, classes):
    state = dict(public)
    change(state)
    network = sam_network("tiny", image_size=64, classes=classes, seed=9)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(WeightError, match=message):
        load_sam(network, state)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_another_variant_is_refused(public):
    with torch.device("meta"):
        network = sam_network("vit_b", image_size=TRAINED_AT, classes=4)
    with pytest.raises(WeightError):
        load_sam(network, public)


def test_unknown_interpolation_is_refused(public):
    with pytest.raises(ConfigError, match="nearest"):
        loaded(public, 64, interpolation="nearest")


def naive_samed(network, samed, tokens):
    """SAMed's wrapped projection: q and v of block i get B A of the pair 2i and 2i + 1."""
    deltas = []
    for index in range(4):
        delta = torch.zeros(*tokens.shape[:-1], 96)
        delta[..., :32] = tokens @ samed[f"w_a_{2 * index:03d}"].t() @ samed[f"w_b_{2 * index:03d}"].t()
        delta[..., -32:] = tokens @ samed[f"w_a_{2 * index + 1:03d}"].t() @ samed[f"w_b_{2 * index + 1:03d}"].t()
        deltas.append(delta)
    return deltas


@pytest.mark.parametrize("prepared", [False, True])
def test_sameds_file_becomes_an_expert(tmp_path, public, samed, prepared):
    torch.save(samed, tmp_path / "samed.pth")
    network, _ = loaded(public, classes=9)
    before = copy.deepcopy(network.image_encoder.state_dict())
    if prepared:
        add_experts(network.image_encoder, ("samed", "other"))
    coverage = load_sam(network, tmp_path / "samed.pth")
    assert coverage.fraction == 1.0
    assert expert_names(network.image_encoder) == (("samed", "other") if prepared else ("samed",))
    tokens = torch.randn(2, 3, 32)
    for block, expected in zip(network.image_encoder.blocks, naive_samed(network, samed, tokens), strict=True):
        torch.testing.assert_close(expert_deltas(block.attn.qkv, "samed", tokens), expected, atol=1e-3, rtol=1e-4)
    state = network.state_dict()
    assert all(torch.equal(state[k], v) for k, v in samed.items() if not k.startswith("w_"))
    assert all(torch.equal(network.image_encoder.state_dict()[k], v) for k, v in before.items())


def test_sameds_file_for_other_masks_and_only_its_experts(public, samed):
    network, _ = loaded(public, classes=3)
    before = copy.deepcopy(network.mask_decoder.state_dict())
    load_sam(network, samed, level="one")
    assert torch.equal(network.mask_decoder.mask_tokens.weight, before["mask_tokens.weight"])
    assert torch.equal(network.mask_decoder.iou_token.weight, samed["mask_decoder.iou_token.weight"])
    encoder = sam_network("tiny", image_size=64, classes=3).image_encoder
    load_samed_experts(encoder, samed, "two")
    for mine, theirs in zip(
        expert_parameters(encoder, "two").values(),
        expert_parameters(network.image_encoder, "one").values(),
        strict=True,
    ):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("w_a_003"), "w_a_003 is missing"),
        (lambda s: s.update({"w_b_008": torch.zeros(32, 4)}), "w_b_008 is too many"),
        (lambda s: s.update({"w_a_002": torch.zeros(4, 16)}), "another shape"),
        (lambda s: s.update({"w_b_002": torch.zeros(32, 5)}), "another shape"),
        (lambda s: s.update({"w_a_002": torch.full((4, 32), float("nan"))}), "NaN"),
        (lambda s: s.pop("mask_decoder.iou_token.weight"), "iou_token"),
    ],
)
def test_a_samed_file_that_does_not_fit_is_refused_and_nothing_changes(public, samed, change, message):
    state = dict(samed)
    change(state)
    network, _ = loaded(public, classes=9)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(WeightError, match=message):
        load_sam(network, state)
    assert set(network.state_dict()) == set(before)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("size", [224, 512])
def test_a_file_with_the_published_314_tensors(tmp_path, size):
    with torch.no_grad():
        theirs = sam_model_registry["vit_b"]()
    assert len(theirs.state_dict()) == 314
    nn.init.normal_(theirs.image_encoder.pos_embed)
    torch.save(theirs.state_dict(), tmp_path / "sam_vit_b_01ec64.pth")
    network = sam_network("vit_b", image_size=size, classes=9, weights=tmp_path / "sam_vit_b_01ec64.pth")
    assert network.image_encoder.pos_embed.shape == (1, size // 16, size // 16, 768)
    weight = network.image_encoder.blocks[7].attn.qkv.weight
    assert torch.equal(weight, theirs.image_encoder.blocks[7].attn.qkv.weight)
