import copy

import pytest
import torch
from monai.data import MetaTensor, list_data_collate

from common.errors import ConfigError
from common.methods.m4oe.network import M4oE, swin_unet_with_experts
from common.methods.m4oe.volume import M4oEVolume


def build(**options):
    torch.manual_seed(0)
    backbone = swin_unet_with_experts(experts=2, gate="none", embed=12, num_heads=(1, 2, 3, 6), window=2)
    network = M4oE(backbone=backbone, modalities=("CT", "MR"), classes={"a": (0, 1), "b": (0, 2)}, total=3, embed=12)
    return M4oEVolume(network=network.eval(), **options)


@pytest.mark.parametrize("slices", [1, 3, 100])
@torch.inference_mode()
def test_equals_slice_by_slice(slices):
    module, volume = build(slices=slices), torch.randn(2, 1, 64, 32, 5)
    modality, head = torch.tensor([0, 1]), torch.tensor([1, 0])
    logits = module(volume, modality, head)
    for b in range(2):
        for z in range(5):
            one = module.network(volume[b : b + 1, ..., z], modality[b : b + 1], head[b : b + 1]).logits[0]
            torch.testing.assert_close(logits[b, ..., z], one, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_defaults_stand_in_for_what_is_not_given():
    module, volume = build(modality=1, head=1), torch.randn(1, 1, 32, 64, 3)
    assert torch.equal(module(volume), module(volume, torch.tensor([1]), torch.tensor([1])))
    assert not torch.equal(module(volume)[:, [0, 2]], module(volume, torch.tensor([0]))[:, [0, 2]])


@torch.inference_mode()
def test_a_batch_with_metadata_is_segmented_like_one_without():
    module, volume = build(slices=3), torch.randn(1, 1, 32, 32, 5)
    collated = list_data_collate([{"image": MetaTensor(volume[0], meta={"case": "a"})}])["image"]
    assert isinstance(collated, MetaTensor)
    found = module(collated)
    assert not isinstance(found, MetaTensor)
    assert torch.equal(found, module(volume))


def test_refusals():
    with pytest.raises(ConfigError):
        build(slices=0)
    with pytest.raises(ConfigError):
        build()(torch.randn(1, 1, 64, 64))


@torch.inference_mode()
def test_weights_of_a_slice_network_are_weights_of_a_volume_network():
    module = build()
    assert module.state_dict().keys() == module.network.state_dict().keys()
    copied, volume = copy.deepcopy(module), torch.randn(1, 1, 32, 32, 2)
    assert torch.equal(copied(volume), module(volume))
    with torch.no_grad():
        next(copied.parameters()).zero_()
    assert not torch.equal(copied(volume), module(volume))
