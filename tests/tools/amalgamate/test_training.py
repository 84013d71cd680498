"""The training's configuration is opened with values that stay values, and with knobs that there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from common.experts.spec import write_manifest
from tests.tools.amalgamate.made import expert
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
