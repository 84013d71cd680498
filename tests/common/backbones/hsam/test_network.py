"""H-SAM as a whole: interface, stages, noise, parameter counts."""

import copy

import pytest
import torch
from torch.nn import functional as F

from common.backbones.hsam.network import HSam, hsam_network
from common.backbones.sam.network import SamLogits, sam_network
from common.errors import ConfigError

K1, SIZE = 3, 64
UNUSED_NORMS = 4 * 2 * (196 + 9 + 1024)  # registered by the released guided attention, never called


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def network():
    return hsam_network("tiny", image_size=SIZE, classes=K1, seed=0).eval()


def test_shapes_and_stages(network):
    image = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        out = network(image)
        again = network.decode(network.encode(image))
    assert (out.coarse.shape, out.fine.shape) == ((2, K1, SIZE // 4, SIZE // 4), (2, K1, SIZE, SIZE))
    assert all(torch.equal(a, b) for a, b in zip(out, again, strict=True))
    up = F.interpolate(out.coarse, scale_factor=4, mode="bilinear")
    torch.testing.assert_close(network.logits(out), (up + out.fine) / 2)
    second = hsam_network("tiny", image_size=SIZE, classes=K1, stage=2)
    assert torch.equal(second.logits(out), out.fine)
    assert (network.image_size, network.classes, network.uses_labels) == (SIZE, K1, True)


def test_a_step_reaches_the_encoder(network):
    seen = []

    def step(index, tokens):
        seen.append(index)
        return network.image_encoder.run_block(index, tokens)

    network.encode(torch.rand(1, 3, SIZE, SIZE), step)
    assert seen == [0, 1, 2, 3]


def test_encoder_and_prompts_are_those_of_sam_with_the_same_seed():
    ours, sam = hsam_network("tiny", image_size=SIZE, seed=5), sam_network("tiny", image_size=SIZE, seed=5)
    for part in ("image_encoder", "prompt_encoder"):
        pairs = zip(getattr(ours, part).state_dict().values(), getattr(sam, part).state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    again = hsam_network("tiny", image_size=SIZE, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), again.parameters(), strict=True))


def test_half_precision_and_copies(network):
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        exact = network.logits(network(image))
        assert torch.equal(copy.deepcopy(network)(image).coarse, network(image).coarse)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network.logits(network(image))
    assert float((rough - exact).abs().max() / exact.abs().max()) < 0.05


def test_images_do_not_mix(network):
    image = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        both, second = network(image), network(image[1:])
    torch.testing.assert_close(both.fine[1:], second.fine, rtol=1e-4, atol=1e-5)


def test_eval_is_deterministic_and_training_is_noisy():
    options = {"dropout": 0.0, "similarity_dropout": 0.0, "image_size": SIZE, "classes": K1, "seed": 0}
    image, labels = torch.rand(1, 3, SIZE, SIZE), torch.randint(0, K1, (1, 1, SIZE, SIZE))
    with torch.no_grad():
        plain = hsam_network("tiny", **options).eval()(image, labels)
        quiet = hsam_network("tiny", embedding_noise=0.0, noise=(), **options).train()(image, labels)
        assert all(torch.equal(a, b) for a, b in zip(plain, quiet, strict=True))
        for noisy in ({"embedding_noise": 0.2, "noise": ()}, {"embedding_noise": 0.0}):
            out = hsam_network("tiny", **options, **noisy).train()(image, labels)
            assert torch.equal(out.coarse, plain.coarse)
            assert not torch.equal(out.fine, plain.fine)


def test_noise_on_the_embedding_is_a_share_of_its_range():
    network = hsam_network("tiny", image_size=SIZE, classes=K1, embedding_noise=0.5, seed=0).train()
    seen = []
    network.mask_decoder2.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features = network.encode(torch.rand(1, 3, SIZE, SIZE))
    torch.manual_seed(4)
    network.decode(features)
    torch.manual_seed(4)
    span = features.embedding.max() - features.embedding.min()
    torch.testing.assert_close(seen[0], features.embedding + 0.5 * span * torch.randn_like(features.embedding))


def test_the_second_decoder_teaches_the_first():
    network = hsam_network("tiny", image_size=SIZE, classes=K1, seed=0).train()
    network(torch.rand(1, 3, SIZE, SIZE)).fine.square().sum().backward()
    assert float(network.mask_decoder.mask_tokens.weight.grad.abs().sum()) > 0
    missing = [n for n, p in network.mask_decoder2.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


def test_weights_of_one_grid_run_at_another_size():
    small = hsam_network("tiny", image_size=SIZE, classes=K1, seed=0)
    large = hsam_network("tiny", image_size=96, classes=K1, grid=SIZE // 16, seed=1).eval()
    large.mask_decoder2.load_state_dict(small.mask_decoder2.state_dict())
    assert large(torch.rand(1, 3, 96, 96)).fine.shape == (1, K1, 96, 96)


def test_parameters_are_the_published_ones():
    """98.96 M at 224 and 111.10 M at 512 pixels, with the norms that the released code registers without a use."""
    with torch.device("meta"):
        at_224, at_512 = hsam_network(classes=9), hsam_network(image_size=512, classes=9)
    assert count(at_224) + UNUSED_NORMS == 98_958_404
    assert count(at_512) + UNUSED_NORMS == 111_096_272
    assert (round(98_958_404 / 1e6, 2), round(111_096_272 / 1e6, 2)) == (98.96, 111.10)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"stage": 1}, "unknown stage"),
        ({"embedding_noise": -0.1}, "negative"),
        ({"variant": "vit_x"}, "unknown SAM"),
        ({"image_size": 60}, "patch size"),
        ({"classes": 1}, "background"),
        ({"selection": "none"}, "unknown selection"),
    ],
)
def test_ill_arguments(options, match):
    with pytest.raises(ConfigError, match=match):
        hsam_network(**{"variant": "tiny", "image_size": SIZE, "classes": K1, **options})


def test_coarse_logits_alone_are_no_answer(network):
    assert isinstance(network, HSam)
    with pytest.raises(ConfigError, match="both decoders"):
        network.logits(SamLogits(torch.zeros(1, K1, 16, 16)))
