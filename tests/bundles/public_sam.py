"""Files in SAM's public layout, with random weights."""

import torch
from segment_anything import sam_model_registry

from common.backbones.sam.network import sam_network


def tiny_public():
    """A file in SAM's layout for another image size and another number of masks."""
    return sam_network("tiny", image_size=128, classes=4, seed=11).state_dict()


def whole_public():
    """The layout of ``sam_vit_b_01ec64.pth``: 314 tensors for 1024 pixels."""
    torch.manual_seed(0)
    state = sam_model_registry["vit_b"]().state_dict()
    assert len(state) == 314
    return state
