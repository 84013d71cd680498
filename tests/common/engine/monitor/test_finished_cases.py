"""Cases come one by one, whether batch and output are lists or collated; the output's own word counts."""

from types import SimpleNamespace

import pytest
import torch

from common.engine.monitor.finished_cases import finished_cases

BATCH = [{"case": "a", "image": torch.zeros(1, 2)}, {"case": "b", "image": torch.ones(1, 2)}]
OUTPUT = [{"pred": torch.zeros(1, 2), "image": torch.full((1, 2), 5.0)}, {"pred": torch.ones(1, 2)}]


def _collated(items):
    keys = [k for k in items[0] if all(k in i for i in items)]
    return {k: torch.stack([i[k] for i in items]) if k != "case" else [i[k] for i in items] for k in keys}


@pytest.mark.parametrize("batch", [BATCH, _collated(BATCH)], ids=["list", "collated"])
@pytest.mark.parametrize("output", [OUTPUT, _collated(OUTPUT)], ids=["list", "collated"])
def test_each_case_is_one_dict(batch, output):
    found = list(finished_cases(SimpleNamespace(state=SimpleNamespace(batch=batch, output=output))))
    assert [f["case"] for f in found] == ["a", "b"]
    assert [float(f["pred"].mean()) for f in found] == [0, 1]
    assert float(found[0]["image"].mean()) == (5 if isinstance(output, list) else 0)


def test_what_the_batch_no_longer_has_is_left_out():
    (first, second) = finished_cases(SimpleNamespace(state=SimpleNamespace(batch=BATCH[:1], output=OUTPUT)))
    assert first["case"] == "a" and "case" not in second
