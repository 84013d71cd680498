"""The shipped profile names TotalSegmentator's structures; a user's own is data, strictly read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import ExpertError
from tools.experts.profile import read_profile

ASK = {"program": "mine", "version": "1", "orientation": "LPS"}
OWN = {"format": 1, "ask": ASK, "parts": [{"dataset": 900, "structures": ["one", "two"]}]}


def test_the_shipped_profile_has_all_parts_of_total() -> None:
    found = read_profile("totalsegmentator")
    assert list(found.parts) == [291, 292, 293, 294, 295]
    assert [len(p) for p in found.parts.values()] == [24, 26, 18, 23, 26]
    names = [n for p in found.parts.values() for n in p]
    assert len(set(names)) == 117  # `total` of version 2: 1 spleen, 25 sacrum, 51 heart, 69 humerus_left, 92 rib_left_1
    assert [names[i - 1] for i in (1, 24, 25, 50, 51, 68, 69, 91, 92, 117)] == [
        "spleen", "kidney_cyst_right", "sacrum", "vertebrae_C1", "heart", "iliac_vena_right", "humerus_left", "skull",
        "rib_left_1", "costal_cartilages"]  # fmt: skip
    ask = found.ask
    assert (ask.orientation, ask.spacing, ask.order, ask.whole_numbers) == ("RAS", (1.5, 1.5, 1.5), 3, True)
    assert (ask.tile_step, ask.mirroring, ask.version) == (0.8, False, "2")


@pytest.mark.parametrize(
    "content",
    [{"format": 2}, {"code": "x"}, {"ask": None}, {"ask": {**ASK, "extra": 1}}, {"parts": "liver"}, {"parts": {}},
     {"parts": [{"dataset": "900", "structures": ["a"]}]}, {"parts": [{"dataset": 900, "structures": []}]},
     {"parts": [{"dataset": 900, "structures": ["a", "a"]}]}, {"parts": [{"dataset": 900, "structures": ["$a"]}]},
     {"parts": [{"dataset": 900, "structures": ["../a"]}]}, {"parts": [{"dataset": 900, "structures": [5]}]},
     {"parts": [{"dataset": 900, "structures": ["a"]}] * 2}, {"parts": [{"dataset": 900}]}],
)  # fmt: skip
def test_a_user_s_own_is_strictly_read(content: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(OWN))
    assert read_profile(file).parts == {900: ("one", "two")}
    file.write_text(json.dumps({**OWN, **content}))
    with pytest.raises(ExpertError):
        read_profile(file)
    with pytest.raises(ExpertError, match="totalsegmentator, or a JSON file"):
        read_profile("nobody's")


def test_names_go_by_value_and_by_the_data_set(nnunet_folder: Callable[..., Path], tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(OWN))
    folder = nnunet_folder(labels={"background": 0, "b": 2, "one": 1})
    assert read_profile(file).names(folder) == {"b": "two"}
    plans = json.loads((folder / "plans.json").read_text())
    for other, words in (("Dataset901_tiny", "no expert of this data set"), ("tiny", "no expert of this data set")):
        (folder / "plans.json").write_text(json.dumps({**plans, "dataset_name": other}))
        with pytest.raises(ExpertError, match=words):
            read_profile(file).names(folder)
    (folder / "plans.json").write_text(json.dumps(plans))
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps({**content, "labels": {"background": 0, "a": 1}}))
    with pytest.raises(ExpertError, match="another number of structures"):
        read_profile(file).names(folder)
    file.write_text(json.dumps({"format": 1, "ask": ASK}))
    assert read_profile(file).names(folder) == {}
