"""The command itself: what it refuses, and the first part of its work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError, ExpertError
from common.experts.describe import describe_expert
from common.experts.spec import ExpertSpec
from tests.nnunet_folders import write_folder
from tests.tools.amalgamate.made import expert, write_scans
from tools.__main__ import main
from tools.amalgamate.command import STEPS, _finished, amalgamate, by_itself
from tools.amalgamate.described import Told
from tools.amalgamate.gather import gather
from tools.amalgamate.given import Folder
from tools.amalgamate.prepare import prepare, started, staying
from tools.amalgamate.verdict import Row
from tools.amalgamate.work import Work
from tools.chain.record import Record


def test_what_is_lacking_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["amalgamate", "--out", str(tmp_path)]) == 2
    assert "no scans are given" in capsys.readouterr().err
    write_scans(tmp_path / "scans", 2)
    assert main(["amalgamate", "--scans", f"ct={tmp_path / 'scans'}"]) == 2
    assert "no expert is given" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="overrides must be pairs"):
        amalgamate("a", scans={"ct": str(tmp_path)}, train="max_steps")


def test_a_step_alone_needs_an_amalgamation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="there is no such step"):
        by_itself(tmp_path, "train")
    with pytest.raises(ConfigError, match="no amalgamation was started here"):
        amalgamate(out=str(tmp_path), only="scores")
    Work(tmp_path).write()
    monkeypatch.setitem(STEPS, "scores", lambda work: {"of": str(work.out)})
    assert amalgamate(out=str(tmp_path), only="scores") == f"wrote {tmp_path / 'scores' / 'scores.json'}"
    assert json.loads((tmp_path / "scores" / "scores.json").read_text()) == {"of": str(tmp_path)}


def test_the_last_lines_say_what_neither_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [("a", "liver", 0.9, 0.9), ("a", "scar", 0.0, 0.017), ("b", "rib", 0.0, 0.0), ("c", "femur", 0.1, 0.9)]
    rows = [Row("ct", "x", structure, name, 0.0, student, own)._asdict() for name, structure, student, own in given]
    (tmp_path / "scores").mkdir()
    others = {"cost": {}, "scans": {}, "disputed": [], "passes": {}, "pictures": [], "viewer": [], "structures": []}
    (tmp_path / "scores" / "scores.json").write_text(json.dumps({"rows": rows, **others}))
    (tmp_path / "beside").mkdir()
    monkeypatch.setattr("tools.amalgamate.command.write_page", lambda work, record: "page")
    assert _finished(Work(tmp_path), Record(tmp_path, {})).splitlines()[:3] == [
        "passes that can go: a",
        "to keep: c (femur)",
        "not found by either, student or expert: a (scar); b (rib)",
    ]
    Work(tmp_path).keep(("c",))
    (tmp_path / "beside" / "beside.json").write_text('{"experts": {"c": ["femur"]}, "rows": []}')
    assert "beside the student stays c, which decides about femur" in _finished(Work(tmp_path), Record(tmp_path, {}))


def test_the_first_part_describes_lists_and_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {"background": 0, "liver": 1, "spleen": 2, "rib": 3}
    experts = [write_folder(tmp_path / "r", f"Dataset00{i}_x", channel_names=("CT",),
                            labels=labels if i else {"background": 0, "Liver": 1}) for i in range(2)]  # fmt: skip
    scans = {"ct": str(write_scans(tmp_path / "scans", 4))}
    work = prepare(experts, scans, "", tmp_path / "out", told=Told("RAS"), wanted={"preset": "smoke"})
    told = capsys.readouterr()
    assert "What the student will be taught" in told.out and "? of" in told.out
    assert "'Liver' and 'liver' are taken for two structures" in told.err
    assert work.wanted.start_from == "Dataset001_x" and Work.read(tmp_path / "out").wanted == work.wanted
    assert [s.name for s in work.specs] == ["Dataset000_x", "Dataset001_x"]
    assert work.description("Dataset001_x").is_file()
    assert work.collection.labels.names == ("Liver", "liver", "spleen", "rib")


def test_an_expert_for_no_scan_and_one_for_no_structure_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct, second, pet = (str(write_folder(tmp_path / "r", f"Dataset00{i}_x", channel_names=(channel,), seed=i))
                       for i, channel in enumerate(("CT", "CT", "PET")))  # fmt: skip
    given = {"ct": str(write_scans(tmp_path / "scans", 3))}, "", tmp_path / "out"
    with pytest.raises(ExpertError, match="the expert reads none of the scans") as error:
        prepare([ct, pet], *given, wanted={})
    assert "Dataset002_x" in str(error.value) and "it reads PET, they are CT" in str(error.value)
    capsys.readouterr()
    prepare([ct, second], *given, wanted={})
    told = " ".join(capsys.readouterr().err.split())
    assert "Dataset001_x knows nothing that others do not know of the same scans (Dataset000_x)" in told


def test_who_stays_is_named_as_the_experts_are() -> None:
    specs = [expert("a", "liver"), expert("b, c", "rib"), expert("d", "rib")]
    assert staying(specs, "") == () == staying(specs, ())
    assert staying(specs, "b, c") == ("b, c",) and staying(specs, "d, a") == ("a", "d") == staying(specs, ["d", "a"])
    with pytest.raises(ConfigError, match="there is no such expert to keep") as error:
        staying(specs, "a,x")
    assert "b, c" in str(error.value) and "--keep" in str(error.value)


def test_the_student_starts_from_who_reads_most(tmp_path: Path) -> None:
    scans = [Folder("ct", write_scans(tmp_path / "x", 2)), Folder("mr", write_scans(tmp_path / "y", 2))]
    ct, more, mr = expert("a", "liver"), expert("b", "liver", "rib"), expert("c", *"defg", channels=("MR",))
    collection = gather(scans, [], [ct, more, mr], tmp_path / "out")
    assert started([ct, more, mr], collection, "auto", "nnunet") == "b"
    assert started([ct, more, mr], collection, "c", "nnunet") == "c"
    assert started([ct, more, mr], collection, "none", "nnunet") == ""
    assert started([ct, more, mr], collection, "auto", "swin_unetr") == ""
    with pytest.raises(ConfigError, match=r"(?s)cannot start from this expert.*expected: a$"):
        started([ct], collection, "x", "nnunet")


def test_regions_start_a_student_where_nobody_else_does(tmp_path: Path) -> None:
    """One of them has to be a class by itself: the head takes its row."""
    specs: list[ExpertSpec] = []
    for number, labels in enumerate[dict[str, Any]](({"whole": [1, 2], "core": 2}, {"left": [1, 2], "right": [2, 3]})):
        folder = write_folder(tmp_path / "r", f"Dataset{number}_x", labels={"background": 0, **labels},
                              extra={"regions_class_order": [1, 2]}, channel_names=("CT",))  # fmt: skip
        specs.append(describe_expert(folder, name=f"r{number}", role="external", orientation="RAS"))
    collection = gather([Folder("ct", write_scans(tmp_path / "x", 2))], [], specs, tmp_path / "out")
    assert started(specs, collection, "auto", "nnunet") == "r0"
    assert started(specs[1:], collection, "auto", "nnunet") == ""
    assert started([*specs, expert("a", "core")], collection, "auto", "nnunet") == "a", "all of its head"
