"""Pictures of any size, and what the experts see in one."""

import pytest
import torch
from monai.data import MetaTensor
from torch.nn import functional as F

from common.errors import ConfigError
from common.labels import LabelSpace
from common.methods.ic_moe.build import ic_moe_network
from common.methods.ic_moe.network import with_background
from common.methods.ic_moe.picture import ICMoEPicture
from common.methods.ic_moe.views import grad_cam, principal_colours


def build(classes=2, **options):
    labels = LabelSpace(tuple("abc"[:classes]))
    network = ic_moe_network(labels=labels, variant="tiny", image_size=64, adapter_init="default", **options)
    return ICMoEPicture(network=network).eval()


def test_it_is_the_network_at_its_own_size_and_has_its_names():
    whole, image = build(), torch.rand(2, 3, 64, 64)
    assert torch.equal(whole(image), with_background(whole.network(image).logits))
    assert list(whole.state_dict()) == list(whole.network.state_dict())
    assert torch.equal(whole(MetaTensor(image)), whole(image))


def test_other_sizes_are_resized_and_back():
    whole, image = build(), torch.rand(1, 1, 40, 90)
    small = F.interpolate(image, size=(64, 64), mode="bilinear", antialias=True)
    expected = F.interpolate(whole(small), size=(40, 90), mode="bilinear")
    assert torch.allclose(whole(image), expected, atol=1e-6)
    box = torch.tensor([[[10.0, 20], [30, 60]]])
    scaled = box * torch.tensor([64 / 40, 64 / 90])
    assert torch.allclose(
        whole(image, box), F.interpolate(whole(small, scaled), size=(40, 90), mode="bilinear"), atol=1e-5
    )
    with pytest.raises(ConfigError, match="two axes"):
        whole(torch.rand(1, 1, 8, 8, 8))


def test_training_reaches_the_network():
    whole = build()
    assert whole.train().network.training and not whole.eval().network.training
    assert not whole.train().network.encoders.encoder.training


@pytest.mark.parametrize("answer", ["vote", "mean", "semantic"])
def test_views(answer):
    whole = build(answer=answer, sgcl=0.0)
    views = whole.views(torch.rand(1, 3, 64, 64))
    experts = {"semantic"} if answer == "semantic" else {"basic", "semantic", "adaptive"}
    named = {"answer"} if answer == "semantic" else {*experts, "mean", "answer"}
    assert set(views.answers) == named and all(a.shape == (64, 64) for a in views.answers.values())
    assert set(views.features) == set(views.cams) == experts
    assert all(f.shape == (3, 64, 64) and f.min() >= 0 and f.max() <= 1 for f in views.features.values())
    assert (views.votes is not None) == (len(views.chosen) == 2) == (set(views.scores) == {"basic", "semantic", "mean"})
    assert (answer == "vote") == (views.votes is not None)
    if views.votes is not None:
        masks = [views.answers[n] > 0 for n in ("basic", "semantic", "mean")]
        assert torch.equal(views.votes, sum(m.int() for m in masks))


def test_colours_are_principal_components():
    torch.manual_seed(0)
    planted = torch.randn(3, 4, 5) * torch.tensor([8.0, 4, 2])[:, None, None]
    directions = torch.linalg.qr(torch.randn(16, 3))[0]
    embedding = torch.einsum("ck,khw->chw", directions, planted)[None] + 0.01 * torch.randn(2, 16, 4, 5)
    found = principal_colours(embedding)
    assert found.shape == (2, 3, 4, 5) and found.min() == 0 and found.max() == 1
    scores = embedding.permute(0, 2, 3, 1).reshape(-1, 16)
    values, vectors = torch.linalg.eigh((scores - scores.mean(0)).T @ (scores - scores.mean(0)))
    for k in range(3):
        own = (scores - scores.mean(0)) @ vectors[:, -1 - k]
        inner = (found[:, k].flatten() > 0) & (found[:, k].flatten() < 1)
        r = torch.corrcoef(torch.stack([own[inner], found[:, k].flatten()[inner]]))[0, 1]
        assert abs(float(r)) > 0.999
    assert float(values[-1]) > float(values[-4])


def test_grad_cam_finds_the_channel_that_the_answer_comes_from():
    embedding = torch.zeros(1, 3, 4, 4)
    embedding[0, 1, 1, 2], embedding[0, 2, 3, 3] = 2.0, 5.0

    def head(features, box):
        return features[:, 1:2] - 0.5 * features[:, 2:3]

    cam = grad_cam(head, embedding)
    assert float(cam[0, 1, 2]) == 1 and float(cam.sum()) == 1  # what speaks against is left out
    assert float(grad_cam(head, torch.zeros(1, 3, 4, 4)).abs().sum()) == 0
