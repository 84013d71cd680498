"""The network of one modality and data set gives what the whole one gives for them."""

import pytest
import torch

from common.errors import ConfigError
from common.labels import LabelSpace
from common.methods.m4oe.build import m4oe_network
from common.methods.m4oe.single import M4oEFile

HEADS = {"one": ["liver", "aorta"], "two": ["spleen"]}
OPTIONS = [{}, {"gate": "none"}, {"gate": "channel_official"}, {"gate_input": "image_mean"}, {"top_k": 1}]


def network(**options):
    torch.manual_seed(0)
    net = m4oe_network(labels=LabelSpace(("liver", "spleen", "aorta")), modalities=["CT", "MR"], heads=HEADS, embed=12,
                       depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 6), window=2, drop_path=0.0, **options)  # fmt: skip
    for parameter in net.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    return net.eval()


@pytest.mark.parametrize("options", OPTIONS)
def test_equal_to_the_network(options):
    net, image = network(**options), torch.rand(2, 1, 32, 32)
    for modality, head in [(0, 0), (1, 1), (1, 0)]:
        one = M4oEFile(network=net, modality=modality, head=head)
        with torch.no_grad():
            want = net(image, torch.full((2,), modality), torch.full((2,), head)).logits
            torch.testing.assert_close(one(image), want, rtol=1e-4, atol=1e-5)
    assert any(type(m).__name__ == "MLPExperts" for m in net.modules())


@pytest.mark.parametrize("wrong", [{"modality": 2}, {"head": -1}])
def test_an_index_that_there_is_not(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        M4oEFile(network=network(), **wrong)
