"""Tokens are joined as MONAI joins them, of odd sizes, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.nets.swin_unetr import PatchMerging, PatchMergingV2
from torch import nn

from common.backbones.swin_unetr.encoder import _Merging


@pytest.mark.parametrize("kind", [PatchMerging, PatchMergingV2])
@pytest.mark.parametrize("size", [(4, 6, 2), (5, 4, 4), (4, 5, 4), (4, 4, 5), (3, 5, 7), (2, 3, 3), (1, 1, 2)])
def test_merging_is_monais(kind: Any, size: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    theirs = kind(dim=6, norm_layer=nn.LayerNorm, spatial_dims=3)
    tokens = torch.randn(2, *size, 6)
    found = _Merging(merging=theirs)(tokens)
    assert found.shape == (2, *(-(-n // 2) for n in size), 12)
    torch.testing.assert_close(found, theirs(tokens))
