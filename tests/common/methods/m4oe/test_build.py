"""An M4oE from plain values."""

import pytest
import torch

from common.errors import LabelError
from common.labels import LabelSpace
from common.methods.m4oe.build import m4oe_network

SIZES = {"embed": 12, "num_heads": (1, 2, 3, 6), "window": 2}
LABELS = LabelSpace(("liver", "spleen", "atrium"))
HEADS = {"abdomen": ["spleen", "liver"], "heart": ["atrium"]}


def test_heads_are_union_indices_in_the_order_of_their_names():
    network = m4oe_network(labels=LABELS, modalities=["CT", "MR"], heads=HEADS, moe_decoder=False, **SIZES).eval()
    assert network.heads.classes == [(0, 2, 1), (0, 3)]
    assert network.modalities == ["CT", "MR"] and network.tasks == ["abdomen", "heart"]
    with torch.inference_mode():
        logits = network(torch.zeros(2, 1, 64, 64), torch.tensor([0, 1]), torch.tensor([0, 1])).logits
    known = (logits > -torch.inf).flatten(2).all(2)
    assert known.tolist() == [[True, True, True, False], [True, False, False, True]]


def test_a_structure_that_the_union_lacks_is_refused():
    with pytest.raises(LabelError, match="abdomen: kidney"):
        m4oe_network(labels=LABELS, modalities=["CT"], heads={"abdomen": ["kidney"]}, **SIZES)
