"""What the pictures of a fusion are drawn from."""

import pytest
import torch
from torch import nn

from common.errors import ConfigError
from common.methods.samora.stage_two.build import samora_network
from common.methods.samora.stage_two.views import expert_views
from common.methods.samora.stage_two.volume import SAMoraVolume


def build(**options):
    torch.manual_seed(0)
    network = samora_network(variant="tiny", image_size=64, classes=3, d_attn=8, heads=2, **options)
    for name, parameter in network.named_parameters():
        if "lora_B" in name or name.startswith("fusers."):
            nn.init.normal_(parameter, std=0.2)
    return network.eval()


IMAGE = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_each_run_is_the_network_without_some_experts():
    network = build()
    views = expert_views(network, IMAGE)
    assert list(views.answers) == ["all experts", "without image", "without patch", "without pixel", "no expert"]
    assert torch.equal(views.answers["all experts"], network.logits(network(IMAGE))[0].argmax(0))
    with network.silenced("patch"):
        assert torch.equal(views.answers["without patch"], network.logits(network(IMAGE))[0].argmax(0))
        other = network.encode(IMAGE).embedding[0]
    full = network.encode(IMAGE).embedding[0]
    cosine = (full * other).sum(0) / (full.norm(dim=0) * other.norm(dim=0))
    expected = nn.functional.interpolate((1 - cosine)[None, None], size=(64, 64), mode="bilinear")[0, 0]
    assert torch.allclose(views.changed["without patch"], expected, atol=1e-5)
    assert float(views.changed["no expert"].mean()) > 0 and "all experts" not in views.changed


@torch.no_grad()
def test_attention_is_the_mean_over_blocks():
    network = build()
    views, heard = expert_views(network, IMAGE), []
    for i, fuser in enumerate(network.fusers):
        fuser.register_forward_hook(lambda m, given, _, i=i: heard.append(m.asked(*given)["patch asks pixel"]))
    network.encode(IMAGE)
    large = [nn.functional.interpolate(m[None], size=(64, 64), mode="bilinear")[0, 0] for m in heard]
    assert torch.allclose(views.asked["all experts"]["patch asks pixel"], sum(large) / 4, atol=1e-5)
    assert (
        set(views.asked["without image"]) == {"patch asks pixel", "image asks fused"} and "no expert" not in views.asked
    )


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        ({"fuser": "none", "levels": []}, ["no experts"]),
        ({"fuser": "single", "levels": ["pixel"]}, ["all experts", "no expert"]),
        (
            {"fuser": "mole", "levels": ["image", "pixel"]},
            ["all experts", "without image", "without pixel", "no expert"],
        ),
    ],
)
def test_other_fusers_have_no_attention(options, runs):
    views = expert_views(build(**options), IMAGE)
    assert list(views.answers) == runs and not any(views.asked.values())


def test_a_slice_of_another_size_is_refused():
    network = SAMoraVolume(network=build())
    assert network.views(IMAGE).answers
    with pytest.raises(ConfigError, match="own size"):
        network.views(IMAGE[..., :32])
