"""SAM without prompts: the library's decoder on a batch, one mask per class."""

import pytest
import torch
from segment_anything import sam_model_registry
from torch import nn
from torch.nn import functional as F

from common.backbones.sam.network import SamLogits, sam_network
from common.errors import ConfigError


def image(size=64, batch=2):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network():
    return sam_network("tiny", image_size=64, classes=3, seed=0)


@pytest.mark.parametrize("size", [48, 64, 112])
def test_shapes(size):
    network = sam_network("tiny", image_size=size, classes=5, seed=0)
    out = network(image(size))
    assert isinstance(out, SamLogits)
    assert out.coarse.shape == (2, 5, size // 4, size // 4)
    assert out.fine is None
    assert network.logits(out).shape == (2, 5, size, size)
    assert (network.image_size, network.classes) == (size, 5)


def test_a_batch_is_its_images_one_by_one_through_the_librarys_decoder(network):
    features = network.encode(image())
    sparse, dense = network.prompt_encoder(None, None, None)
    for embedding, mine in zip(features.embedding, network.decode(features).coarse, strict=True):
        arguments = (embedding[None], network.prompt_encoder.get_dense_pe(), sparse, dense)
        several = network.mask_decoder(*arguments, multimask_output=True)[0]
        first = network.mask_decoder(*arguments, multimask_output=False)[0]
        torch.testing.assert_close(mine[None], torch.cat([first, several], 1), atol=1e-5, rtol=1e-5)


def test_the_answer_is_the_coarse_logits_enlarged(network):
    out = network(image())
    assert torch.equal(out.coarse, network.decode(network.encode(image())).coarse)
    expected = F.interpolate(out.coarse, size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.equal(network.logits(out), expected)


def test_steps_reach_the_encoder(network):
    seen = []

    def step(index, tokens):
        seen.append(index)
        return network.image_encoder.run_block(index, tokens)

    expected = network.encode(image())
    assert torch.equal(network.encode(image(), step).embedding, expected.embedding)
    assert seen == [0, 1, 2, 3]


def test_every_mask_token_learns(network):
    network(image()).coarse.square().sum().backward()
    assert (network.mask_decoder.mask_tokens.weight.grad.abs().sum(1) > 0).all()
    assert network.prompt_encoder.no_mask_embed.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("size", "classes", "millions"), [(224, 9, 91.39), (512, 9, 92.05), (256, 2, 90.46)])
def test_parameters_are_the_published_number(size, classes, millions):
    with torch.device("meta"):
        network = sam_network("vit_b", image_size=size, classes=classes)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=6e-3)


@pytest.mark.parametrize("variant", ["vit_b", "vit_l", "vit_h"])
def test_names_and_shapes_are_the_published_ones(variant):
    with torch.device("meta"):
        theirs = sam_model_registry[variant]().state_dict()
        ours = sam_network(variant, image_size=1024, classes=4).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_the_encoders_random_weights_do_not_depend_on_the_classes(network):
    other = sam_network("tiny", image_size=64, classes=7, seed=0)
    mine, theirs = network.image_encoder.state_dict(), other.image_encoder.state_dict()
    assert all(torch.equal(mine[k], theirs[k]) for k in mine)
    again = sam_network("tiny", image_size=64, classes=3, seed=0).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in network.state_dict().items())


def test_weights_are_loaded_where_a_file_is_named(tmp_path, network):
    torch.save(network.state_dict(), tmp_path / "sam.pth")
    other = sam_network("tiny", image_size=64, classes=3, weights=tmp_path / "sam.pth")
    assert torch.equal(other(image()).coarse, network(image()).coarse)


def test_too_few_classes_are_refused():
    with pytest.raises(ConfigError, match="background"):
        sam_network("tiny", image_size=64, classes=1)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_gives_what_the_cpu_gives(dtype):
    network = sam_network("tiny", image_size=112, classes=3, seed=0)
    for name, parameter in network.image_encoder.named_parameters():
        if "rel_pos" in name:
            nn.init.normal_(parameter, std=0.3)
    expected = network(image(112)).coarse
    with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):
        got = network.cuda()(image(112).cuda()).coarse.float().cpu()
    limit = 1e-3 if dtype == torch.float32 else 0.1
    assert ((got - expected).abs().max() / expected.abs().max()).item() < limit
