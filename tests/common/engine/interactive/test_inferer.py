"""A promptable network as an inferer: one session per scan and network, another network begins anew."""

import json

import torch
from monai.data import MetaTensor

from common.data.prompts.click_protocol import click_protocol
from common.engine.interactive.inferer import PromptedInferer
from common.engine.interactive.volume import PromptedVolume

OPTIONS = {"structures": ["a"], "spacing": 1.5, "protocol": click_protocol(steps=1)}


def scan():
    image = torch.zeros(1, 1, 20, 20, 20)
    image[..., 4:12, 4:12, 4:12] = 1
    told = MetaTensor(image, affine=torch.eye(4, dtype=torch.float64))
    told.meta["prompts"] = json.dumps({"a": {"inside": [[8, 8, 8]]}})
    return told


def test_it_answers_as_the_volume_does_and_keeps_its_session(growing):
    network, inferer = growing(), PromptedInferer(**OPTIONS)
    expected = PromptedVolume(network=growing(), **OPTIONS)(scan())
    assert torch.equal(inferer(scan(), network), expected)
    session = inferer.volume.session
    assert inferer.volume.network is network and session is not None


def test_another_network_begins_anew(growing):
    inferer, other = PromptedInferer(**OPTIONS), growing()
    inferer(scan(), growing())
    before = inferer.volume.session
    inferer(scan(), other)
    assert inferer.volume.network is other and inferer.volume.session is not before and other.asked
