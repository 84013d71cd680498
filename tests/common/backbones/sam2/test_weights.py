"""Checkpoints in SAM2's layout, generated: with and without what belongs to videos, 2.0 and 2.1."""

import pytest
import torch

from common.backbones.sam.network import sam_network
from common.backbones.sam2.network import sam2_network
from common.backbones.sam2.weights import load_sam2
from common.errors import WeightError
from common.layers.lora.experts import add_experts, set_expert

PACKAGE = pytest.importorskip("sam2", reason="Meta's package sam2 is not installed")

MEMORY = {
    "memory_attention.layers.0.self_attn.q_proj.weight": (4, 4),
    "memory_attention.norm.weight": (4,),
    "memory_encoder.out_proj.weight": (4, 4, 1, 1),
    "maskmem_tpos_enc": (7, 1, 1, 4),
    "no_mem_pos_enc": (1, 1, 4),
    "no_obj_ptr": (1, 4),
    "obj_ptr_proj.layers.0.weight": (4, 4),
    "mask_downsample.weight": (1, 1, 4, 4),
}
MEMORY_21 = {"no_obj_embed_spatial": (1, 4), "obj_ptr_tpos_proj.weight": (4, 4)}


def tiny(classes=3, seed=0):
    return sam2_network("tiny", image_size=64, classes=classes, seed=seed)


def public(version="2.1", classes=4):
    state = {n: torch.randn_like(t) for n, t in tiny(classes).state_dict().items()}
    extra = {**MEMORY, **(MEMORY_21 if version == "2.1" else {})}
    return {**state, **{n: torch.randn(shape) for n, shape in extra.items()}}


@pytest.mark.parametrize("version", ["2", "2.1"])
@pytest.mark.parametrize("layout", ["public", "flat", "parallel"])
def test_public_layouts(tmp_path, version, layout):
    content = public(version)
    stored = {f"module.{n}": t for n, t in content.items()} if layout == "parallel" else content
    torch.save(stored if layout == "flat" else {"model": stored}, tmp_path / "sam2.pt")
    network = tiny(classes=4)
    coverage = load_sam2(network, tmp_path / "sam2.pt")
    assert coverage.fraction == 1.0
    assert all(torch.equal(t, content[n]) for n, t in network.state_dict().items())


def test_another_number_of_masks_keeps_tokens_and_their_heads():
    network, content = tiny(classes=3), public()
    before = {n: t.clone() for n, t in network.state_dict().items()}
    load_sam2(network, content)
    kept = [n for n, t in network.state_dict().items() if torch.equal(t, before[n])]
    assert {n.split(".")[1] for n in kept} == {"mask_tokens", "output_hypernetworks_mlps", "iou_prediction_head"}
    assert sum(len(n) > 0 for n in kept) == 1 + 3 * 6 + 6


@pytest.mark.parametrize("target", ["qv", "fused"])
def test_experts_do_not_stand_in_the_way(target):
    network, content = tiny(classes=4), public()
    add_experts(network.image_encoder, target=target)
    load_sam2(network, content)
    plain = tiny(classes=4).eval()
    load_sam2(plain, content)
    set_expert(network.image_encoder, None)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image).coarse, plain(image).coarse, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["sam2/sam2", "sam2.1/sam2.1"])
def test_the_packages_whole_model_loads(version):
    """All names of the real checkpoints: those of the package's own model."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    config = OmegaConf.load(f"{next(iter(PACKAGE.__path__))}/configs/{version}_hiera_b+.yaml").model
    state = instantiate(config).state_dict()
    coverage = load_sam2(sam2_network("hiera_b+", classes=9), state)
    assert len(coverage.missing) == 1 + 9 * 6 + 6
    assert all(n.startswith("sam_mask_decoder.") for n, _ in coverage.missing)
    assert load_sam2(sam2_network("hiera_b+", classes=4), state).fraction == 1.0


def refused(state, match):
    network = tiny()
    before = {n: t.clone() for n, t in network.state_dict().items()}
    with pytest.raises(WeightError, match=match):
        load_sam2(network, state)
    assert all(torch.equal(t, before[n]) for n, t in network.state_dict().items())


def test_what_does_not_fit_is_refused():
    state = public()
    refused({n: t for n, t in state.items() if n != "no_mem_embed"}, "no_mem_embed")
    refused({**state, "sam_mask_decoder.extra": torch.ones(1)}, "no place")
    refused({**state, "image_encoder.trunk.pos_embed": torch.zeros(1, 16, 14, 14)}, "pos_embed")
    refused({}, "no SAM2 checkpoint")


def test_a_sam_checkpoint_is_named():
    refused(sam_network("tiny", image_size=64).state_dict(), "belongs to base sam or hsam")
