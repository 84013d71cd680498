"""Cases of each task or modality drawn equally often, by one knob of each training that draws cases."""

from __future__ import annotations

import json
from pydoc import locate
from types import SimpleNamespace

import numpy as np
import pytest

from common.errors import ConfigError
from tests.bundles.commands import ROOT, parsed

CASES = [{"task": "a", "modality": "CT"}] * 8 + [{"task": "b", "modality": "CT"}, {"task": "c", "modality": "MR"}]
EQUAL = {"task": [1 / 24] * 8 + [1 / 3] * 2, "modality": [1 / 18] * 9 + [1 / 2]}
STRUCTURES = {"sam_med3d_moe", "sam_med3d_moe_expert"}


class Cases(list):
    def item_of(self, position):
        return self[position]


def sampler(bundle, configs, **given):
    plan = {"plan": SimpleNamespace(batch_size=2)} if bundle == "ka2er_expert" else {}
    parser = parsed(bundle, ["train", *configs], bundle_root=ROOT / "bundles" / bundle, seed=1, **given)
    for name, value in {"train::dataset": Cases(CASES), **plan}.items():
        parser[name] = value
    return parser.get_parsed_content("train::sampler")


def of(bundle):
    return json.loads((ROOT / f"bundles/{bundle}/configs/train.json").read_text())


ALL = sorted(p.name for p in (ROOT / "bundles").iterdir() if (p / "configs/train.json").is_file())
MERGED = [(b, configs) for b in ALL if b not in STRUCTURES for configs in ([], ["smoke"])]


@pytest.mark.parametrize(("bundle", "configs"), [*MERGED, ("ka2er", ["nnunet", "stored"]), ("samora", ["lora_one"])])
def test_a_knob_balances_the_cases_of_a_training(bundle, configs):
    assert sampler(bundle, configs).weights is None, "off unless it is asked for"
    for balance, wanted in EQUAL.items():
        assert np.allclose(sampler(bundle, configs, balance_cases=balance).weights, wanted)
    with pytest.raises(RuntimeError) as refused:
        sampler(bundle, configs, balance_cases="colour")
    assert isinstance(refused.value.__cause__, ConfigError) and "unknown balance" in str(refused.value.__cause__)


@pytest.mark.parametrize("bundle", ALL)
def test_its_data_set_says_of_which_task_a_case_is(bundle):
    content = of(bundle)
    target = content["train"]["dataset"]["_target_"]
    assert hasattr(locate(target), "item_of"), target
    assert ("balance_cases" in content) == (bundle not in STRUCTURES)


@pytest.mark.parametrize("bundle", sorted(STRUCTURES))
def test_objects_are_balanced_by_structure_instead(bundle):
    assert of(bundle)["train"]["sampler"]["weights"] == "$@train::dataset.weights.tolist()"
