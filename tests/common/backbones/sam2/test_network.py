"""SAM2's image path: interface, sizes, and equality with the package's own model."""

import ast
import builtins
import copy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from common.backbones.sam2.network import SAM2_VARIANTS, require_sam2, sam2_encoder, sam2_network
from common.errors import ConfigError
from common.layers.lora.experts import add_experts, expert_parameters

PACKAGE = pytest.importorskip("sam2", reason="Meta's package sam2 is not installed")

K1 = 3


@pytest.fixture(scope="module")
def network():
    return sam2_network("tiny", image_size=64, classes=K1, seed=0).eval()


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_shapes(network):
    out = network(torch.rand(2, 3, 64, 64))
    assert out.coarse.shape == (2, K1, 16, 16)
    assert out.fine is None
    answer = network.logits(out)
    assert answer.shape == (2, K1, 64, 64)
    assert torch.equal(answer, F.interpolate(out.coarse, scale_factor=4, mode="bilinear"))
    assert (network.image_size, network.classes, network.image_encoder.embed_dim) == (64, K1, 64 + 128)


def test_half_precision_and_copies(network):
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        exact = network.logits(network(image))
        assert torch.equal(copy.deepcopy(network)(image).coarse, network(image).coarse)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network.logits(network(image))
    assert float((rough - exact).abs().max() / exact.abs().max()) < 0.05


def test_images_do_not_mix(network):
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        both, second = network(image).coarse, network(image[1:]).coarse
    torch.testing.assert_close(both[1:], second, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_encoder():
    state = torch.random.get_rng_state()
    a = sam2_network("tiny", image_size=64, classes=2, seed=7)
    b = sam2_network("tiny", image_size=64, classes=5, seed=7).image_encoder
    c = sam2_encoder("tiny", image_size=32, seed=7)
    assert torch.equal(state, torch.random.get_rng_state())
    for other in (b, c):
        assert all(torch.equal(x, y) for x, y in zip(a.image_encoder.parameters(), other.parameters(), strict=True))
    assert float(c.trunk.pos_embed.detach().std()) > 0


def test_every_trained_parameter_of_the_decoder_gets_a_gradient():
    network = sam2_network("tiny", image_size=64, classes=K1, seed=0)
    network(torch.rand(1, 3, 64, 64)).coarse.square().sum().backward()
    decoder = network.mask_decoder
    assert decoder is network.sam_mask_decoder and network.prompt_encoder is network.sam_prompt_encoder
    assert [n for n, p in decoder.named_parameters() if p.requires_grad and p.grad is None] == []
    assert {n.split(".")[0] for n, p in decoder.named_parameters() if not p.requires_grad} == {
        "iou_prediction_head",
        "pred_obj_score_head",
    }
    assert network.no_mem_embed.grad is not None


def package_model(width=32):
    """The package's whole model at the size of `tiny`, memory included, from its own configuration file."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    file = next(iter(PACKAGE.__path__)) + "/configs/sam2/sam2_hiera_b+.yaml"
    config = OmegaConf.load(file).model
    own = SAM2_VARIANTS["tiny"]
    config.image_encoder.trunk.update(
        {
            "embed_dim": own["embed"],
            "num_heads": own["heads"],
            "stages": list(own["stages"]),
            "global_att_blocks": list(own["global_blocks"]),
            "window_pos_embed_bkg_spatial_size": [own["grid"]] * 2,
            "window_spec": list(own["windows"]),
        }
    )
    config.image_encoder.neck.update({"d_model": width, "backbone_channel_list": [128, 64, 32, 16]})
    config.memory_attention = config.memory_encoder = None
    config.image_size = 64
    return instantiate(config).eval()


def test_the_answer_is_the_packages(monkeypatch):
    """Four tokens, so that the package's own model has the same shapes; its decoder has width 32 and MLPs of 2048."""
    theirs = package_model()
    monkeypatch.setitem(SAM2_VARIANTS, "tiny", {**SAM2_VARIANTS["tiny"], "hidden": 2048})
    ours = sam2_network("tiny", image_size=64, classes=4, seed=0).eval()
    state = theirs.state_dict()
    names = [n for n in ours.state_dict() if "iou_prediction_head" not in n]  # has another width there
    ours.load_state_dict({n: state[n] for n in names}, strict=False)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        out = theirs.forward_image(image)
        _, features, _, _ = theirs._prepare_backbone_features(out)
        embedding = (features[-1] + theirs.no_mem_embed).permute(1, 2, 0).reshape(2, 32, 4, 4)
        sparse, dense = theirs.sam_prompt_encoder(points=None, boxes=None, masks=None)
        expected = theirs.sam_mask_decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=theirs.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse.repeat(2, 1, 1),
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=out["backbone_fpn"][:2],
        )[0]
        found = ours(image).coarse
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", [v for v in SAM2_VARIANTS if v != "tiny"])
def test_variants_are_the_packages(variant):
    from omegaconf import OmegaConf

    short = variant.removeprefix("hiera_")
    for version in ("sam2/sam2", "sam2.1/sam2.1"):
        file = f"{next(iter(PACKAGE.__path__))}/configs/{version}_hiera_{short}.yaml"
        encoder = OmegaConf.load(file).model.image_encoder
        own, trunk = SAM2_VARIANTS[variant], encoder.trunk
        assert (own["embed"], own["heads"]) == (trunk.embed_dim, trunk.num_heads)
        assert own["stages"] == tuple(trunk.get("stages", (2, 3, 16, 3)))
        assert own["global_blocks"] == tuple(trunk.get("global_att_blocks", (12, 16, 20)))
        assert (own["grid"],) * 2 == tuple(trunk.get("window_pos_embed_bkg_spatial_size", (14, 14)))
        assert own["windows"] == tuple(trunk.get("window_spec", (8, 4, 14, 7)))
        assert (encoder.neck.d_model, encoder.scalp, encoder.neck.fpn_interp_model) == (256, 1, "nearest")
        assert list(encoder.neck.fpn_top_down_levels) == [2, 3]


@pytest.mark.slow
def test_parameters_of_base_plus():
    """SAM2 B+ has 80.83 M with its memory; the image path has 73.33 M of them; an expert of rank 4 has 165,760."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    whole = instantiate(OmegaConf.load(next(iter(PACKAGE.__path__)) + "/configs/sam2/sam2_hiera_b+.yaml").model)
    assert round(count(whole) / 1e6, 2) == 80.83
    network = sam2_network("hiera_b+", classes=4)
    names = set(network.state_dict())
    assert names <= set(whole.state_dict())
    rest = sum(p.numel() for n, p in whole.named_parameters() if n not in names)
    assert count(network) == 73_328_401 == count(whole) - rest
    assert count(sam2_network("hiera_b+", image_size=512, classes=9)) == 74_030_006
    add_experts(network.image_encoder, ("image",), rank=4)
    assert sum(p.numel() for p in expert_parameters(network.image_encoder, "image").values()) == 165_760


@pytest.mark.parametrize(
    ("options", "match"),
    [({"variant": "hiera_x"}, "unknown SAM2"), ({"classes": 1}, "background"), ({"image_size": 40}, "multiple of 32")],
)
def test_ill_arguments(options, match):
    with pytest.raises(ConfigError, match=match):
        sam2_network(**{"variant": "tiny", "image_size": 64, **options})


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch):
    genuine = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "sam2":
            raise ModuleNotFoundError("No module named 'sam2'")
        return genuine(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="pip install --no-build-isolation sam2"):
        require_sam2()
    with pytest.raises(ConfigError, match="pip install"):
        sam2_network("tiny", image_size=64)


def test_nothing_imports_the_package_on_its_own():
    """Only functions do, so that everything else runs without it."""
    for file in (Path(__file__).parents[4] / "common").rglob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names.append(node.module)
            assert not [n for n in names if n.split(".")[0] == "sam2"], file
