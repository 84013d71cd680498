"""Which scans and slices a training with few labels sees."""

import json
import pickle

import pytest
import torch

from common.data.datasets.splits import labelled
from common.data.slices.few_shot import LabelledSlices
from common.errors import ConfigError

NAMES = [f"c{i}" for i in range(40)]


def test_parts_are_nested_and_do_not_depend_on_order_or_company():
    small, large = (labelled(NAMES, fraction=f) for f in (0.1, 0.5))
    assert len(small) == 4 and len(large) == 20 and set(small) < set(large)
    backwards = labelled(NAMES[::-1], fraction=0.1)
    assert {NAMES[i] for i in small} == {NAMES[::-1][i] for i in backwards}
    without = [n for n in NAMES if n != NAMES[small[0]]]
    assert {NAMES[i] for i in small[1:]} < {without[i] for i in labelled(without, fraction=0.1)}
    assert labelled(NAMES, fraction=0.1, seed=1) != small


def test_shares_are_rounded_and_never_nothing():
    assert len(labelled(NAMES[:10], fraction=0.25)) == 3 and len(labelled(NAMES[:10], fraction=0.01)) == 1
    assert labelled(NAMES) == list(range(40)) == labelled(NAMES, fraction=1) and len(labelled(NAMES, count=7)) == 7
    assert len(labelled([str(i) for i in range(2211)], fraction=0.1)) == 221  # Synapse's tenth


@pytest.mark.parametrize("wrong", [{"fraction": 0.0}, {"fraction": 1.5}, {"count": 0}, {"count": 41},
                                   {"fraction": 0.5, "count": 3}])  # fmt: skip
def test_impossible_parts_are_refused(wrong):
    with pytest.raises(ConfigError, match="labelled_"):
        labelled(NAMES, **wrong)


def read(item):
    generator = torch.Generator().manual_seed(int(item["case"][1:]))
    label = torch.zeros(1, 4, 4, 6)
    label[..., 2:4] = 1
    return {**item, "image": torch.rand(1, 4, 4, 6, generator=generator), "label": label}


def build(**options):
    data = [{"case": f"c{i}", "task": "a" if i < 6 else "b"} for i in range(10)]
    return LabelledSlices(data, read, **options)


def test_slices_of_all_scans(tmp_path):
    whole, part = build(), build(labelled_fraction=0.2, output_dir=tmp_path)
    assert len(whole) == 60 and len(part) == 12 and set(part.index) < set(whole.index)
    written = json.loads((tmp_path / "labelled.json").read_text())
    assert written["chosen"] == part.chosen and written["of_slices"] == 60 and written["digest"] == part.digest
    assert part.card["slices"] == 12 and part.card["fraction"] == 0.2 and part.card["by"] == "slices"
    case, number = part[3]["case"], part[3]["slice"]
    assert number in part.chosen[f"{part[3]['task']}/{case}"]
    assert build(labelled_fraction=0.2).digest == part.digest != build(labelled_fraction=0.2, labelled_seed=1).digest


def test_scans_of_each_task():
    part = build(labelled_fraction=0.5, labelled_by="scans")
    assert len(part.data) == 5 and [c["task"] for c in part.data].count("a") == 3 and len(part) == 30
    assert len(build(labelled_count=1, labelled_by="scans").data) == 2


def test_empty_slices_may_be_left_out_first():
    part = build(annotated_only=True, labelled_fraction=0.5)
    assert len(part) == 10 and all(k in (2, 3) for _, k in part.index)


def test_it_can_be_sent_to_workers():
    part = pickle.loads(pickle.dumps(build(labelled_fraction=0.2)))
    assert len(part) == 12 and part[0]["image"].shape == (1, 4, 4)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="slices or scans"):
        build(labelled_by="patients")
