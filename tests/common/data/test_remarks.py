"""What is told of a scan's voxels: nothing of those that a model learned from, a sentence for each difference."""

import numpy as np

from common.contract import Contract
from common.data.remarks import remarks

MR = {"channels": ["T2 MR"], "dim": 3, "intensities": [{"lows": [0.0, 0.0], "highs": [700.0, 1200.0]}]}


def test_a_sentence_for_each_difference():
    known, scan = Contract(("T2 MR",), {"T2 MR": MR}), np.linspace(0, 900, 512).reshape(1, 8, 8, 8)
    assert remarks(scan, known) == [] == remarks(scan, Contract())
    (said,) = remarks(scan * 1e3, known, ["T2 MR"])
    assert "scale" in said and "900000" in said
    assert [s[:5] for s in remarks(scan[..., :1] * 1e4, known)] == ["a sin", "inten"]
