"""The training's configuration is opened with values that stay values, and with knobs that there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from common.errors import ConfigError
from common.experts.answers.record import LEVELS
from common.experts.spec import write_manifest
from tests.nnunet_folders import write_folder
from tests.tools.amalgamate.made import expert, write_scans
from tools.amalgamate.prepare import prepare
from tools.amalgamate.training import DATA, TRAINER, opened
from tools.amalgamate.work import Wanted, Work


def test_values_are_what_they_are(tmp_path: Path) -> None:
    out = tmp_path / "$x #1"
    write_manifest(out / "experts.json", [expert("a", "liver")])
    work = Work(out, Wanted(preset="smoke", labels_used="2", train=(("max_epochs", "7"), ("spacing", "[1,2,3]"))))
    parser = opened(work, out / "student", {f"{DATA}::data": [{"case": "@x", "image": "%y"}]})
    assert parser.get_parsed_content("output_dir") == str(out / "student")
    assert parser.get_parsed_content("experts") == str(out / "experts.json")
    assert parser.get_parsed_content(f"{DATA}::data") == [{"case": "@x", "image": "%y"}]
    told = [parser.get_parsed_content(k) for k in ("labels_used", "max_epochs", "spacing", "batch_size")]
    assert told == [2, 7, [1, 2, 3], 2]
    assert parser[f"{DATA}::_target_"] == "common.experts.answers.cases.AnsweredCases" and parser[TRAINER]


def test_a_knob_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'max_epoch'"):
        opened(Work(tmp_path, Wanted(train=(("max_epoch", "7"),))), tmp_path)


def test_regions_teach_without_a_label_map(tmp_path: Path) -> None:
    """An expert whose structures overlap judges the sums of the classes between them; its own files say which."""
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    folder = write_folder(tmp_path / "r", labels=labels, extra={"regions_class_order": [1, 2]}, channel_names=("CT",),
                          norm="CTNormalization", spacing=(3.0, 2.0, 2.0))  # fmt: skip
    scans = str(write_scans(tmp_path / "scans", 3))
    train = (("store_workers", "0"), ("answer_mirroring", "False"))
    work = prepare([folder], {"ct": scans}, "", tmp_path / "out", wanted={"preset": "smoke", "train": train})
    assert work.wanted.start_from == "Dataset900_tiny", "its plans, and the rows of what is a region by itself"
    parser = opened(work, tmp_path / "out" / "student")
    data = parser.get_parsed_content(DATA)
    assert data.labels.names == ("whole without core", "core") == data.judges[0].known
    assert data.judges[0].matrix.tolist() == [[0, 1, 1], [0, 0, 1]]
    case = data.case(0)
    record = torch.as_tensor(_read(case["answers"]))
    whole, core = record > LEVELS // 2
    nested, label = whole | ~core, torch.as_tensor(_read(case["label"]))[0].long()
    assert torch.equal(label[nested], (whole.long() + core.long())[nested]) and len(label.unique()) > 1
    loss = parser.get_parsed_content("train::loss")
    assert loss.judges[0].matrix.tolist() == data.judges[0].matrix.tolist()


def _read(stored: Any) -> Any:
    return stored.whole() if hasattr(stored, "whole") else stored
