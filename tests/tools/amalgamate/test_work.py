"""What was chosen lies in one file; every step reads it, and nothing else is taken for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from common.experts.spec import write_manifest
from tests.tools.amalgamate.made import expert
from tools.amalgamate.work import Wanted, Work


@pytest.mark.parametrize(
    "given",
    [{"student": "unet"}, {"labels_used": "some"}, {"labels_used": "-1"}, {"labels_used": "1.5"},
     {"start_from": "a", "student": "swin_unetr"}, {"train": (("x", "$__import__('os').system('touch EVIL')"),)},
     {"train": (("x", "[1,'@y']"),)}, {"train": (("$x", "1"),)}, {"train": (("output_dir", "elsewhere"),)},
     {"train": (("x", "%other.json::y"),)}, {"train": (("bundle_root", "x"),)}],
)  # fmt: skip
def test_a_choice_that_is_none_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Wanted(**given)


def test_the_choice_is_read_as_it_was_written(tmp_path: Path) -> None:
    work = Work(tmp_path, Wanted(preset="smoke", train=(("max_steps", "5"), ("a::b", "[1,2]")), labels_used="2"))
    work.write()
    assert Work.read(tmp_path).wanted == work.wanted
    before = work.file.stat().st_mtime_ns
    work.write()
    assert work.file.stat().st_mtime_ns == before


def test_who_stays_has_a_file_of_its_own(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.write()
    before = work.file.read_bytes()
    assert work.kept == ()
    work.keep(())
    work.keep(("a", "b c"))
    assert Work.read(tmp_path).kept == ("a", "b c") and work.file.read_bytes() == before
    state = work.keep_file.stat().st_mtime_ns
    work.keep(("a", "b c"))
    assert work.keep_file.stat().st_mtime_ns == state
    for wrong in ('{"experts": "a"}', '{"experts": [1]}', "{"):
        work.keep_file.write_text(wrong)
        with pytest.raises(ConfigError):
            assert work.kept
    work.keep(())
    assert work.kept == () and not work.keep_file.exists()


def test_code_in_a_file_from_elsewhere_is_not_run(tmp_path: Path) -> None:
    Work(tmp_path).write()
    file = tmp_path / "wanted.json"
    hostile = [["seed", "$__import__('pathlib').Path('EVIL').touch()"]]
    file.write_text(json.dumps({**json.loads(file.read_text()), "train": hostile}))
    with pytest.raises(ConfigError, match="a knob's value is plain"):
        Work.read(tmp_path)


@pytest.mark.parametrize("change", [{"more": 1}, {"train": 1}, {"labels_used": 1}, {"train": ["a"]}])
def test_another_file_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    Work(tmp_path).write()
    file = tmp_path / "wanted.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ConfigError, match="not what an amalgamation wrote"):
        Work.read(tmp_path)
    file.unlink()
    with pytest.raises(ConfigError, match="no amalgamation was started here"):
        Work.read(tmp_path)


def test_files_and_knobs_of_the_training(tmp_path: Path) -> None:
    write_manifest(tmp_path / "experts.json", [expert("a", "liver"), expert("b", "spleen")])
    work = Work(tmp_path, Wanted(preset="smoke", start_from="b", labels_used="3", train=(("x", "1,2"), ("y", "z"))))
    assert work.files == ["train.json", "smoke.json", "nnunet.json", "stored.json"]
    knobs = work.knobs(tmp_path / "s")
    assert knobs["start_from"] == str(tmp_path / "experts" / "1.json") and knobs["labels_used"] == 3
    assert knobs["plan_splits"] == ["training", "unlabelled"]
    assert work.read_typed == {"x": (1, 2), "y": "z"}
    other = Work(tmp_path, Wanted(student="swin_unetr"))
    assert other.files == ["train.json", "stored.json"]
    assert not {"start_from", "plan_splits"} & set(other.knobs(tmp_path))
    with pytest.raises(ConfigError, match="unknown preset"):
        _ = Work(tmp_path, Wanted(preset="nothing")).files
    with pytest.raises(ConfigError, match="cannot read"):
        work.result("scores")
