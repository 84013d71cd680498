"""What was chosen lies in one file; every step reads it, and nothing else is taken for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError, DataError
from common.experts.spec import write_manifest
from tests.tools.amalgamate.made import expert
from tools.amalgamate.beside import stay_lines, together
from tools.amalgamate.contradictions import contradicted
from tools.amalgamate.forecast import forecast_lines
from tools.amalgamate.page import _disputes, _overview
from tools.amalgamate.verdict import rows_from, verdicts
from tools.amalgamate.work import Wanted, Work, knobs_text
from tools.chain.command import typed_overrides


@pytest.mark.parametrize(
    "given",
    [{"student": "unet"}, {"labels_used": "some"}, {"labels_used": "-1"}, {"labels_used": "1.5"},
     {"labels_used": "٣"}, {"labels_used": "²"}, {"labels_used": "9" * 5000}, {"labels_used": "01"}, {"labels_used": 1},
     {"seed": -1}, {"seed": "1"}, {"seed": True}, {"seed": 1.0}, {"seed": 2**64}, {"preset": None}, {"student": 1},
     {"start_from": ["a"]}, {"train": (("network::_target_", "os.system"),)}, {"train": (("_target_", "x"),)},
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
    assert Work.read(tmp_path, work.wanted.train).wanted == work.wanted
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


@pytest.mark.parametrize(
    "change",
    [{"more": 1}, {"train": 1}, {"labels_used": 1}, {"train": ["a"]}, {"train": [["a"]]}, {"train": [["a", 1]]},
     {"train": {"a": "b"}}, {"seed": "0"}, {"seed": 0.5}, {"seed": -1}, {"seed": None}, {"preset": 3}, {"preset": []},
     {"preset": "nothing"}, {"student": {}}, {"student": "unet"}, {"start_from": 1}, {"start_from": "nobody"},
     {"labels_used": "٣"}, {"labels_used": "9" * 5000}, {"train": [["bundle_root", "elsewhere"]]}],
)  # fmt: skip
def test_another_file_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    write_manifest(tmp_path / "experts.json", [expert("a", "liver")])
    Work(tmp_path).write()
    file = tmp_path / "wanted.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ConfigError, match=r"not what an amalgamation wrote") as refusal:
        Work.read(tmp_path)
    assert str(file) in str(refusal.value) and refusal.value.hint and len(str(refusal.value)) < 1500
    file.unlink()
    with pytest.raises(ConfigError, match="no amalgamation was started here"):
        Work.read(tmp_path)


PLACE = (("store_dir", "/elsewhere"), ("max_steps", "5"), ("x", 'it\'s a "b" $c'))


def test_a_file_chooses_no_knob_that_the_command_does_not_say(tmp_path: Path) -> None:
    """A knob may be a place to write to, and the folder may be anybody's."""
    Work(tmp_path, Wanted(train=PLACE[:2])).write()
    for said in ((), PLACE[:1], (("store_dir", "here"), PLACE[1])):
        with pytest.raises(ConfigError, match="chooses other knobs than this command") as refusal:
            Work.read(tmp_path, said)
        assert "--train='--store_dir=/elsewhere --max_steps=5'" in str(refusal.value.hint)
    assert Work.read(tmp_path, PLACE[:2]).wanted.train == PLACE[:2]
    Work(tmp_path).write()
    with pytest.raises(ConfigError, match="chooses other knobs"):
        Work.read(tmp_path, PLACE)


def test_knobs_are_said_again_as_they_were() -> None:
    assert typed_overrides(knobs_text(PLACE)) == PLACE and knobs_text(()) == ""


def test_an_empty_list_of_experts_and_an_unknown_one_are_refused(tmp_path: Path) -> None:
    work = Work(tmp_path, Wanted(start_from="b"))
    write_manifest(work.manifest, [])
    with pytest.raises(ConfigError, match="the list of experts is empty"):
        _ = work.specs
    write_manifest(work.manifest, [expert("a", "liver")])
    with pytest.raises(ConfigError, match="there is no such expert"):
        work.knobs(tmp_path)


FOUND: dict[str, dict[str, Any]] = {
    "forecast": {"scans": 1, "step": 0.5, "steps": 3, "prepared": 9, "held_back": 2, "scored": 7, "experts": [
        {"name": "a", "scans": 1, "seconds": 0.1, "bytes": 5, "whole": 9}]},
    "answers": {"scans": {"ct": 1}, "seen": {"a": {"ct": {"liver": 1}}}, "disputed": [["liver", "rib", 3]],
                "answers": 1, "bytes": 5, "contradictions": [["a", "liver", "b", "rib", 0.5, 2]]},
    "scores": {
        "rows": [{"task": "ct", "case": "c", "structure": "liver", "expert": "a", "agreement": 0.5,
                  "student": float("nan"), "own": 1.0}],
        "cost": {"": 1.0, "a": 2}, "passes": {"experts": 1, "seconds": 2}, "scans": {"ct": 1},
        "disputed": [["a", "liver", "b", "rib", 3]], "pictures": [{"task": "ct", "case": "c", "file": "x.png"}],
        "viewer": [{"task": "ct", "case": "c", "dim": 3, "kind": "held back", "image": "", "present": [1],
                    "layers": [{"name": "Student", "dice": None, "data": ""}]}], "structures": ["liver"]},
    "beside": {"experts": {"a": ["liver"]}, "rows": [{"task": "ct", "case": "c", "structure": "liver", "dice": 0.5}]},
}  # fmt: skip
WRONG: list[Any] = [None, 1, -1, 1.5, "x", True, [], {}, [1], [[1]], {"a": 1}, {"a": "x"}, {"a": {"ct": 1}}, [{}],
                    float("nan"), 1e300, [["a", "b", "c", "d", "e"]], [["a", "b"]]]  # fmt: skip


def _written(work: Work, step: str, content: Any) -> None:
    (work.out / step).mkdir(exist_ok=True)
    (work.out / step / f"{step}.json").write_text(json.dumps(content))


@pytest.mark.parametrize("step", FOUND)
def test_a_result_that_is_none_is_refused_before_it_is_used(step: str, tmp_path: Path) -> None:
    """Any key gone, any value of another kind: the refusal names the file and how to find it anew, or it is used."""
    work = Work(tmp_path, Wanted(train=(("max_steps", "5"),)))
    write_manifest(work.manifest, [expert("a", "liver")])
    use: dict[str, Callable[[dict[str, Any]], object]] = {
        "forecast": forecast_lines,
        "answers": lambda found: (contradicted(found.get("contradictions", ())), _spelt(found["seen"])),
        "scores": lambda found: (_overview(work, verdicts(rows_from(found["rows"])), found, {}, None),
                                 _disputes(found["disputed"]), [p["file"] + p["case"] for p in found["pictures"]],
                                 [layer["data"] + one["image"] for one in found["viewer"] for layer in one["layers"]],
                                 [len(n) for n in found["structures"]]),
        "beside": lambda found: (stay_lines(found["experts"]), together([], found["rows"])),
    }  # fmt: skip
    _written(work, step, FOUND[step])
    use[step](work.result(step))
    refused = 0
    for key in FOUND[step]:
        changed = [{k: v for k, v in FOUND[step].items() if k != key}, *({**FOUND[step], key: w} for w in WRONG)]
        for content in changed:
            _written(work, step, content)
            try:
                use[step](work.result(step))
            except (ConfigError, DataError) as error:
                refused += 1
                assert str(work.out / step / f"{step}.json") in str(error.where)
                again = f"--out {work.out} --only {step} --train=--max_steps=5"
                assert again in str(error.hint)
    assert refused > 5 * len(FOUND[step])
    for whole in ([], None, 3, "x"):
        _written(work, step, whole)
        with pytest.raises(ConfigError, match="not a JSON object"):
            work.result(step)


def _spelt(seen: dict[str, Any]) -> int:
    return sum(n + 0 for by_task in seen.values() for own in by_task.values() for n in own.values())


def test_files_and_knobs_of_the_training(tmp_path: Path) -> None:
    write_manifest(tmp_path / "experts.json", [expert("a", "liver"), expert("b", "spleen")])
    work = Work(tmp_path, Wanted(preset="smoke", start_from="b", labels_used="3", train=(("x", "1,2"), ("y", "z"))))
    assert work.files == ["train.json", "smoke.json", "nnunet.json", "stored.json"]
    knobs = work.knobs(tmp_path / "s")
    assert knobs["start_from"] == str(tmp_path / "experts" / "1.json") and knobs["labels_used"] == 3
    assert knobs["plan_splits"] == ["training", "unlabelled"]
    assert knobs["use"] == ["task", "external"]  # presets of chains leave out experts of no task: none would be left
    assert work.read_typed == {"x": (1, 2), "y": "z"}
    other = Work(tmp_path, Wanted(student="swin_unetr"))
    assert other.files == ["train.json", "stored.json"]
    assert not {"start_from", "plan_splits"} & set(other.knobs(tmp_path))
    with pytest.raises(ConfigError, match="unknown preset"):
        _ = Work(tmp_path, Wanted(preset="nothing")).files
    with pytest.raises(ConfigError, match="cannot read"):
        work.result("scores")
