"""Steps are commands of their own, whose words mean what they say whatever the folders are called."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from common.experts.spec import write_manifest
from tests.architecture.tree import ROOT
from tests.monai_words import arguments_of
from tests.tools.amalgamate.made import expert, write_scans
from tools.__main__ import main
from tools.amalgamate.gather import gather
from tools.amalgamate.given import Folder
from tools.amalgamate.plan import plan, until, waiting_for_none
from tools.amalgamate.work import Wanted, Work


def work_in(out: Path) -> Work:
    specs = [expert("a", "liver"), expert("b", "spleen")]
    gather([Folder("ct", write_scans(out.parent / "scans", 4))], [], specs, out / "collection")
    write_manifest(out / "experts.json", specs)
    return Work(out, Wanted(preset="smoke"))


def test_the_order_is_check_forecast_ask_train_score_pack(tmp_path: Path) -> None:
    steps = plan(work_in(tmp_path / "out"))
    assert [s.id for s in steps] == [
        "check:a", "check:b", "forecast", "answers", "student", "scores", "bundle"]  # fmt: skip
    assert set(steps[2].needs) == {"check:a", "check:b"}
    assert plan(work_in(tmp_path / "out"), check=False, pack=False)[0].id == "forecast"
    done: set[str] = set()
    for step in steps:
        assert done.issuperset(step.needs)
        done.add(step.id)
    assert len({s.output_dir for s in steps}) == len(steps)
    rest = waiting_for_none(steps, until(steps, "answers"))
    assert [(s.id, s.needs) for s in rest] == [("student", ()), ("scores", ("student",)), ("bundle", ("student",))]


def test_what_stays_is_a_step_of_its_own_and_changes_no_other(tmp_path: Path) -> None:
    work = work_in(tmp_path / "out")
    alone = plan(work)
    work.keep(("a",))
    steps = plan(work)
    assert [s.id for s in steps][-3:] == ["scores", "beside", "bundle"] and steps[:-2] == alone[:-1]
    assert {"keep.json", "scores.json", "model.pt"} <= {p.name for p in steps[-2].inputs}
    assert steps[-1].needs == ("beside",) and steps[-1].inputs[-1].name == "model.kept.json"
    work.keep(())
    assert plan(work) == alone


def test_every_scan_is_an_input(tmp_path: Path) -> None:
    (student,) = [s for s in plan(work_in(tmp_path / "out")) if s.id == "student"]
    files = {p.resolve() for p in student.inputs}
    assert files >= {p.resolve() for p in (tmp_path / "scans").iterdir()}
    assert {"experts.json", "dataset.json"} <= {p.name for p in files}


@pytest.mark.parametrize("name", ["-x", "$x #1", "@x", "%x", "a,b", "[x]", "12345", "it's", "a b"])
def test_folders_may_be_called_as_they_like(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Path, str]] = []
    monkeypatch.setattr("tools.amalgamate.command.by_itself", lambda out, only, train: seen.append((out, only)) or "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundles").symlink_to(ROOT / "bundles")
    out = Path(name)
    steps = plan(work_in(out))
    for step in steps:
        assert shlex.split(step.command)[1:] == list(step.argv[1:])
        if "amalgamate" in step.argv:
            assert main(step.argv[step.argv.index("amalgamate") :]) == 0
            assert seen.pop() == (out, step.id)
    (student,) = [s for s in steps if s.id == "student"]
    found = arguments_of(student.argv[student.argv.index("monai.bundle") + 1 :])
    found.pop("config_file")
    parser = ConfigParser(dict(found))
    told = {key: parser.get_parsed_content(key) for key in found}
    assert told["output_dir"] == str(out / "student") and told["dataset_dir"] == str(out / "collection")
