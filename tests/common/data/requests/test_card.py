"""A server compares a scan with the card: channels are refused, strange intensities remarked on."""

import numpy as np
import pytest
import torch

from common.data.requests.card import CompareWithCardd
from common.errors import DataError

CT = {"kind": "CT", "channels": ["CT"], "scans": 4, "intensities": [
    {"p00_5": -1000.0, "p50": 20.0, "p99_5": 400.0, "mean": 0.0, "std": 200.0, "min": -1024.0, "max": 1500.0}
]}  # fmt: skip


def image(shift: float = 0.0, channels: int = 1) -> torch.Tensor:
    rng = np.random.default_rng(0)
    voxels = np.where(rng.random((channels, 12, 12, 12)) < 0.5, -1000.0, rng.normal(40, 30, (channels, 12, 12, 12)))
    return torch.as_tensor(voxels + shift, dtype=torch.float32)


def test_a_scan_like_those_of_the_training_passes_without_a_word():
    data = {"image": image(), "x": 1}
    assert CompareWithCardd(["CT"], {"CT": CT}, "CT")(data).keys() == data.keys()


def test_a_scan_in_another_unit_gets_a_remark_beside_earlier_ones():
    found = CompareWithCardd(["CT"], {"CT": CT}, "CT")({"image": image(1024.0), "notes": ["before"]})
    assert found["notes"][0] == "before" and "not to be trusted" in found["notes"][1] and len(found["notes"]) == 2


def test_other_channels_are_refused():
    with pytest.raises(DataError, match=r"(?s)2 channels.*CT"):
        CompareWithCardd(["CT"], {"CT": CT}, "CT")({"image": image(channels=2)})


@pytest.mark.parametrize("card", [{}, {"modalities": {"MR": {}}}, {"channels": ["T2 MR"]}])
def test_cards_of_earlier_versions_say_nothing_of_intensities(card):
    data = {"image": image(5000.0)}
    assert CompareWithCardd(**card)(data).keys() == data.keys()
    assert "HU" in CompareWithCardd(["CT"])(data)["notes"][0]  # which a CT is in all the same


def test_a_picture_of_other_colours_and_a_slice_alone():
    rgb = {"channels": ["red", "green", "blue"], "dim": 2, "intensities": [{"lows": [0, 0], "highs": [200, 255]}] * 3}
    compare = CompareWithCardd(rgb["channels"], {"fundus": rgb}, flat=True)
    coloured = torch.arange(256.0).view(1, 16, 16) * torch.tensor([1.0, 0.5, 0.8]).view(3, 1, 1)
    assert "notes" not in compare({"image": coloured})
    for planes, words in ((coloured[:1], "a grey picture"), (coloured[:1].repeat(3, 1, 1), "a grey picture"),
                          (torch.cat([coloured, coloured[:1]]), "4 channels")):  # fmt: skip
        assert words in compare({"image": planes})["notes"][0]
    ct = CompareWithCardd(["CT"], {"CT": {**CT, "dim": 3}}, "CT")
    assert "single slice" in ct({"image": image()[..., :1]})["notes"][0]
    grey = CompareWithCardd(["CT slice"], {"CT": {"channels": ["CT slice"], "dim": 2}}, flat=True)
    assert "notes" not in grey({"image": coloured[:1]})  # nobody knows whether such pictures are in HU
