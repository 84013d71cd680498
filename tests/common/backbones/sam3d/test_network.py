"""SAM-Med3D as a whole: the released tensors, keys and sizes, and what a session relies on."""

import copy
import logging
import os
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from common.backbones.sam3d.decoder import mask_decoder_3d
from common.backbones.sam3d.network import VARIANTS, Sam3D, sam3d_network
from common.backbones.sam3d.weights import load_sam_med3d
from common.errors import ConfigError, PromptError, WeightError

PARITY = Path(os.environ.get("AMALGAM_PARITY", "missing")) / "sam_med3d_parity.pt"


@pytest.mark.data
@pytest.mark.skipif(not PARITY.is_file(), reason="AMALGAM_PARITY names the folder of reference tensors")
@pytest.mark.parametrize("fold", [True, False, None])
def test_equals_the_released_network(tmp_path, fold):
    given = torch.load(PARITY, weights_only=True)
    torch.save({"model_state_dict": given["state_dict"], "args": Namespace(lr=1e-4)}, tmp_path / "released.pth")
    network = sam3d_network("tiny", weights=tmp_path / "released.pth").eval()
    for block in network.image_encoder.blocks:
        block.attn.fold = fold
    with torch.inference_mode():
        embedding = network.encode(given["image"])
        clicks = {"points": given["points"], "labels": given["labels"]}
        plain, prompts = network.prompts(**clicks), network.prompts(**clicks, masks=given["mask_prompt"])
        one, three = network.decode(embedding, prompts), network.decode(embedding, prompts, multimask=True)
    found = {
        "image_embedding": embedding, "sparse": prompts.sparse, "dense": prompts.dense,
        "sparse_no_mask": plain.sparse, "dense_no_mask": plain.dense,
        "dense_pe": network.prompt_encoder.dense_positions(), "low_res_mask": one.masks, "iou": one.iou,
        "low_res_multimask": three.masks, "iou_multimask": three.iou,
    }  # fmt: skip
    assert found.keys() == given.keys() - {"config", "state_dict", "image", "points", "labels", "mask_prompt"}
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, given[name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.data
@pytest.mark.skipif(not PARITY.is_file(), reason="AMALGAM_PARITY names the folder of reference tensors")
def test_released_weights_need_the_released_bias():
    given = torch.load(PARITY, weights_only=True)
    network = sam3d_network("tiny", rel_pos="intended").eval()
    load_sam_med3d(network, given["state_dict"])
    with torch.inference_mode():
        assert (
            network.encode(given["image"]) - given["image_embedding"]
        ).abs().max() > 5e-5  # the reference tells them apart


def names(depth=12):
    """The released names, written down part by part."""
    pair = ("weight", "bias")
    attention = [f"{p}_proj.{x}" for p in ("q", "k", "v", "out") for x in pair]
    encoder = ["pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "neck.0.weight", "neck.2.weight"]
    encoder += [f"neck.{i}.{x}" for i in (1, 3) for x in pair]
    for i in range(depth):
        encoder += [f"blocks.{i}.attn.rel_pos_{axis}" for axis in "dhw"]
        parts = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.lin1", "mlp.lin2")
        encoder += [f"blocks.{i}.{part}.{x}" for part in parts for x in pair]
    prompt = ["pe_layer.positional_encoding_gaussian_matrix", "not_a_point_embed.weight", "no_mask_embed.weight"]
    prompt += ["point_embeddings.0.weight", "point_embeddings.1.weight"]
    prompt += [f"mask_downscaling.{i}.{x}" for i in (0, 1, 3, 4, 6) for x in pair]
    decoder = ["iou_token.weight", "mask_tokens.weight"]
    for i in range(2):
        kinds = ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")
        decoder += [f"transformer.layers.{i}.{kind}.{x}" for kind in kinds for x in attention]
        parts = ("norm1", "norm2", "norm3", "norm4", "mlp.lin1", "mlp.lin2")
        decoder += [f"transformer.layers.{i}.{part}.{x}" for part in parts for x in pair]
    decoder += [f"transformer.final_attn_token_to_image.{x}" for x in attention]
    decoder += [f"{part}.{x}" for part in ("transformer.norm_final_attn", "output_upscaling.0") for x in pair]
    decoder += [f"output_upscaling.{i}.{x}" for i in (1, 3) for x in pair]
    decoder += [f"output_hypernetworks_mlps.{m}.layers.{i}.{x}" for m in range(4) for i in range(3) for x in pair]
    decoder += [f"iou_prediction_head.layers.{i}.{x}" for i in range(3) for x in pair]
    parts = {"image_encoder": encoder, "prompt_encoder": prompt, "mask_decoder": decoder}
    return {f"{part}.{name}" for part, inner in parts.items() for name in inner}


@pytest.fixture(scope="module")
def paper():
    with torch.device("meta"):
        return sam3d_network("vit_b_ori")


def test_the_released_keys(paper):
    assert len(names()) == 324
    assert set(paper.state_dict()) == names()
    with torch.device("meta"):
        extra = set(sam3d_network("vit_b_ori", boxes=True).state_dict()) - names()
    assert extra == {"prompt_encoder.box_embeddings.weight"}


def test_the_released_sizes(paper):
    def millions(module):
        return round(sum(p.numel() for p in module.parameters()) / 1e6, 3)

    parts = (paper, paper.image_encoder, paper.prompt_encoder, paper.mask_decoder)
    assert [millions(part) for part in parts] == [100.509, 92.925, 0.009, 7.576]
    assert millions(mask_decoder_3d(384)) == 7.576
    state = paper.state_dict()
    assert paper.image_size == 128 and not paper.boxes
    assert state["image_encoder.pos_embed"].shape == (1, 8, 8, 8, 768)
    assert state["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"].shape == (3, 128)
    for index in range(12):
        rows = 15 if index in (2, 5, 8, 11) else 27
        assert state[f"image_encoder.blocks.{index}.attn.rel_pos_w"].shape == (rows, 64)


@pytest.fixture
def tiny():
    return sam3d_network("tiny", seed=0, boxes=True).eval()


@pytest.mark.parametrize("variant", ["small", "tiny"])
def test_shapes_of_a_session(variant):
    network = sam3d_network(variant, seed=0, boxes=True).eval()
    size, width = VARIANTS[variant]["image"], VARIANTS[variant]["width"]
    grid = size // VARIANTS[variant]["patch"]
    with torch.inference_mode():
        embedding = network.encode(torch.randn(2, 1, size, size, size))
        assert embedding.shape == (2, width, grid, grid, grid) and network.image_size == size
        first = network.decode(embedding, network.prompts(points=torch.rand(2, 3, 3) * size, labels=torch.ones(2, 3)))
        assert first.masks.shape == (2, 1, *(4 * grid,) * 3) and first.iou.shape == (2, 1)
        boxes = torch.tensor([[2.0, 3, 4], [20, 20, 20]]).expand(2, -1, -1)
        again = network.decode(embedding, network.prompts(boxes=boxes, masks=first.masks), multimask=True)
        assert again.masks.shape == (2, 3, *(4 * grid,) * 3) and again.iou.shape == (2, 3)
        assert network.upsample(again.masks).shape == (2, 3, size, size, size)


def test_forward_is_encode_prompts_decode_upsample(tiny):
    image, points, labels = torch.randn(1, 1, 32, 32, 32), torch.full((1, 1, 3), 9.0), torch.ones(1, 1)
    with torch.inference_mode():
        low = tiny.decode(tiny.encode(image), tiny.prompts(points=points, labels=labels)).masks
        assert torch.equal(tiny(image, points, labels), tiny.upsample(low))
        expected = torch.nn.functional.interpolate(low, scale_factor=2.0, mode="trilinear", align_corners=False)
        torch.testing.assert_close(tiny.upsample(low), expected)


def test_a_copied_decoder_is_an_expert(tiny):
    expert = copy.deepcopy(tiny.mask_decoder)
    embedding, prompts = torch.randn(1, 48, 4, 4, 4), tiny.prompts(points=torch.ones(1, 1, 3), labels=torch.ones(1, 1))
    with torch.inference_mode():
        general = tiny.decode(embedding, prompts).masks
        assert torch.equal(tiny.decode(embedding, prompts, decoder=expert).masks, general)
        expert.mask_tokens.weight += 1
        assert not torch.equal(tiny.decode(embedding, prompts, decoder=expert).masks, general)
        assert torch.equal(tiny.decode(embedding, prompts).masks, general)


def test_seeds_draw_the_same_encoder_whatever_else_is_built():
    before = torch.get_rng_state()
    one, two = sam3d_network("tiny", seed=3), sam3d_network("tiny", seed=3, boxes=True, rel_pos="released")
    assert torch.equal(torch.get_rng_state(), before)
    other = sam3d_network("tiny", seed=4)
    state, same = one.state_dict(), two.state_dict()
    assert all(torch.equal(value, same[name]) for name, value in state.items())
    assert not torch.equal(state["image_encoder.pos_embed"], other.state_dict()["image_encoder.pos_embed"])


def test_the_bias_follows_the_weights(tmp_path):
    assert sam3d_network("tiny").image_encoder.rel_pos == "intended"
    torch.save(sam3d_network("tiny").state_dict(), tmp_path / "w.pt")
    assert sam3d_network("tiny", weights=tmp_path / "w.pt").image_encoder.rel_pos == "released"
    assert sam3d_network("tiny", weights=tmp_path / "w.pt", rel_pos="intended").image_encoder.rel_pos == "intended"


def test_gradients_reach_every_parameter_that_a_click_uses(tiny):
    network = sam3d_network("tiny", seed=0, boxes=True)
    embedding = network.encode(torch.randn(1, 1, 32, 32, 32))
    points, labels = torch.full((1, 2, 3), 7.0), torch.tensor([[1, 0]])
    first = network.decode(embedding, network.prompts(points=points, labels=labels)).masks
    boxes = torch.tensor([[[2.0, 3, 4], [20, 20, 20]]])
    out = network.decode(embedding, network.prompts(points=points, labels=labels, boxes=boxes, masks=first))
    more = network.decode(embedding, network.prompts(masks=first), multimask=True)
    (out.masks.square().sum() + out.iou.sum() + more.masks.square().sum() + more.iou.sum()).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]


@pytest.mark.parametrize("wrong", [{"variant": "vit_b"}, {"image_size": 30}, {"image_size": 0}, {"rel_pos": "none"}])
def test_ill_arguments(wrong):
    with pytest.raises(ConfigError):
        sam3d_network(**{"variant": "tiny", **wrong})


def test_images_of_another_size_are_refused(tiny):
    for shape in ((1, 1, 32, 32, 24), (1, 2, 32, 32, 32), (1, 32, 32, 32)):
        with pytest.raises(ConfigError, match="encoder's size"):
            tiny.encode(torch.zeros(shape))


def test_boxes_need_box_embeddings():
    network = sam3d_network("tiny")
    with pytest.raises(PromptError, match="a checkpoint without box embeddings used with boxes"):
        network.prompts(boxes=torch.zeros(1, 2, 3))


def test_sam3d_takes_injected_parts(tiny):
    parts = {name: getattr(tiny, name) for name in ("image_encoder", "prompt_encoder", "mask_decoder")}
    assert Sam3D(**parts).state_dict().keys() == tiny.state_dict().keys()


def test_one_warning_says_that_boxes_are_untrained(tmp_path, caplog):
    torch.save(sam3d_network("tiny", seed=1).state_dict(), tmp_path / "points_only.pt")
    with caplog.at_level(logging.WARNING):
        network = sam3d_network("tiny", boxes=True, weights=tmp_path / "points_only.pt")
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "never trained on boxes" in warning.getMessage() and "points_only.pt" in warning.getMessage()
    inside = network.prompt_encoder.point_embeddings[1].weight
    moved = (network.prompt_encoder.box_embeddings.weight - inside).std()
    assert 0.01 < moved < 0.03
    caplog.clear()
    torch.save(network.state_dict(), tmp_path / "boxes.pt")
    again = sam3d_network("tiny", boxes=True, weights=tmp_path / "boxes.pt")
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert torch.equal(again.prompt_encoder.box_embeddings.weight, network.prompt_encoder.box_embeddings.weight)
    with pytest.raises(WeightError, match="no place in the network"):
        sam3d_network("tiny", weights=tmp_path / "boxes.pt")
