import pytest
import torch
from segment_anything import sam_model_registry

from common.backbones.sam.prompt import load_prompt_encoder, prompt_encoder
from common.errors import WeightError

KEYS = 17


@pytest.fixture(scope="module")
def public():
    """The prompt-encoder part of a SAM ViT-B checkpoint, with two keys of the rest; shapes as published."""
    torch.manual_seed(1)
    encoder = prompt_encoder()
    state = {f"prompt_encoder.{k}": torch.randn_like(v) for k, v in encoder.state_dict().items()}
    rest = {
        "image_encoder.pos_embed": torch.zeros(1, 64, 64, 768),
        "mask_decoder.mask_tokens.weight": torch.ones(4, 256),
    }
    return {**rest, **state}


def test_names_and_shapes_are_the_published_ones(public):
    with torch.device("meta"):
        sam = sam_model_registry["vit_b"]()
    published = {k: v.shape for k, v in sam.state_dict().items()}
    assert len(published) == 314
    ours = {k: v.shape for k, v in public.items() if k.startswith("prompt_encoder.")}
    assert len(ours) == KEYS
    assert ours == {k: v for k, v in published.items() if k.startswith("prompt_encoder.")}


@pytest.mark.parametrize("layout", ["sam", "medsam", "parallel"])
def test_public_layouts_load(tmp_path, public, layout):
    content = {
        "sam": public,
        "medsam": {"model": public, "optimizer": {}, "epoch": 3},
        "parallel": {"model": {f"module.{k}": v for k, v in public.items()}},
    }[layout]
    file = tmp_path / "medsam_vit_b.pth"
    torch.save(content, file)
    encoder = prompt_encoder(file)
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, public[f"prompt_encoder.{key}"]), key
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())


def test_coverage_is_complete(public):
    coverage = load_prompt_encoder(prompt_encoder(), public)
    assert (len(coverage.matched), coverage.fraction) == (KEYS, 1.0)


def test_refused_when_a_part_is_missing_or_of_another_shape(public):
    part = {k: v for k, v in public.items() if "not_a_point" not in k}
    with pytest.raises(WeightError, match="not_a_point"):
        load_prompt_encoder(prompt_encoder(), part)
    name = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    with pytest.raises(WeightError, match="gaussian_matrix"):
        load_prompt_encoder(prompt_encoder(), {**public, name: torch.zeros(3, 128)})


def test_refused_when_there_is_no_prompt_encoder(tmp_path):
    file = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, file)
    with pytest.raises(WeightError, match=r"other\.pth"):
        prompt_encoder(file)
