"""Done means verified: what was damaged, deleted or changed is done again, and what depends on it.

Also the test of ``tools.chain.text``.
"""

import json
from pathlib import Path

import pytest

from common.card import save_weights
from common.errors import AmalgamationError, CheckpointError
from common.integrity import seal, seal_of
from tools.chain import run as chain_run
from tools.chain.artefacts import changed, unfit
from tools.chain.command import Chain
from tools.chain.record import Record
from tools.chain.step import ChainSettings, Step, experiment_of


def _run(collection: Path, tmp_path: Path, **more: object) -> str:
    arguments = {"preset": "smoke", "report": False, "external": None, "tracking": "none"} | more
    return Chain().run("ka2er", dataset_dir=str(collection), output_dir=str(tmp_path / "out"), **arguments)  # type: ignore[arg-type]


def _plan(collection: Path, tmp_path: Path) -> list[str]:
    return [line for line in _run(collection, tmp_path, dry_run=True).splitlines() if "python" not in line]


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


CHECKPOINT = "nnunet/Dataset001/fold_0/checkpoint_final.pth"
CASES = [
    ("experts/a/model.pt", emptied, "expert:a", "model.pt was emptied"),
    ("experts/a/model.pt", flipped, "expert:a", "model.pt changed since it was made"),
    ("experts/a/model.pt", truncated, "expert:a", "model.pt changed since it was made"),
    ("experts/a/model.pt", Path.unlink, "expert:a", "model.pt is missing"),
    ("experts/b/expert.json", emptied, "expert:b", "expert.json was emptied"),
    ("experts/b/expert.json", flipped, "expert:b", "expert.json changed since it was made"),
    ("experts/b/expert.json", Path.unlink, "expert:b", "expert.json is missing"),
    (f"experts/a/{CHECKPOINT}", Path.unlink, "expert:a", "checkpoint_final.pth is missing"),
    (f"experts/a/{CHECKPOINT}", flipped, "expert:a", "checkpoint_final.pth changed since it was made"),
    ("experts.json", emptied, "manifest", "experts.json was emptied"),
    ("experts.json", flipped, "manifest", "experts.json changed since it was made"),
    ("experts.json", Path.unlink, "manifest", "experts.json is missing"),
    ("amalgamated/seed0/model.pt", flipped, "amalgamated:seed0", "model.pt changed since it was made"),
    ("alone/seed0/evaluation/summary.json", flipped, "evaluate:alone:seed0", "summary.json changed since it was made"),
    ("experts/a/evaluation/summary.json", emptied, "evaluate:expert:a", "summary.json was emptied"),
    ("experts/a/evaluation/cases.csv", Path.unlink, "evaluate:expert:a", "cases.csv is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "step", "reason"), CASES)
def test_damage_is_seen_and_only_that_is_done_again(
    collection: Path, tmp_path: Path, calls: list[str], name: str, damage, step: str, reason: str
) -> None:
    _run(collection, tmp_path)
    out = tmp_path / "out"
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert not [line for line in _plan(collection, tmp_path) if "to do" in line]
    damage(out / name)
    spoilt = (out / name).read_bytes() if (out / name).exists() else None
    record = Record.read(out)
    assert record is not None
    title = next(row["title"] for row in record.data["steps"] if row["id"] == step)
    told = [line.strip() for line in _plan(collection, tmp_path)]
    assert [reason in line for line in told if line.startswith(f"to do  {title}: ")] == [True]
    assert [f"s  {title}: " in line for line in Chain().status(str(out)).splitlines() if "damaged" in line] == [True]

    calls.clear()
    _run(collection, tmp_path)
    expected = {step} - {"manifest"}  # which the chain writes itself
    if not step.startswith(("manifest", "evaluate")):
        expected |= {f"evaluate:{step}"}  # lay in the same folder; the manifest and what follows come out the same
    assert set(calls) == expected
    assert (out / name).read_bytes() == before[out / name]
    kept = [p.read_bytes() for p in out.rglob("*") if p.is_file() and ".before-" in p.as_posix()]
    assert spoilt is None or spoilt in kept
    for path, content in before.items():  # whatever lay beside the damaged file is still there, under either name
        assert path == out / name or path.name == "chain.json" or content in kept or path.read_bytes() == content
    assert not [line for line in _plan(collection, tmp_path) if "to do" in line]
    calls.clear()
    _run(collection, tmp_path)
    assert calls == []


def test_what_depends_on_it_is_to_do_until_it_comes_out_the_same(
    collection: Path, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(collection, tmp_path)
    flipped(tmp_path / "out" / "experts" / "a" / "model.pt")
    told = {line.strip() for line in _plan(collection, tmp_path)}
    assert "to do  Expert manifest: Expert a, which it needs, is to do (it stays if that comes out the same)" in told
    assert any(t.startswith("to do  KA2ER student (seed 0): Expert manifest, which it needs") for t in told)
    assert "done  Student alone, same budget (seed 0)" in told and "done  Expert b" in told

    pretend = chain_run._call

    def other(step, processes):  # type: ignore[no-untyped-def]
        pretend(step, processes)
        if step.id == "expert:a":
            (step.output_dir / "expert.json").write_text(json.dumps({"name": "another", "path": "model.pt"}))

    monkeypatch.setattr(chain_run, "_call", other)
    calls.clear()
    _run(collection, tmp_path)
    assert {"expert:a", "amalgamated:seed0", "evaluate:amalgamated:seed0"} <= set(calls)
    assert "alone:seed0" not in calls and "expert:b" not in calls


def test_a_record_without_hashes_is_accepted_once(collection: Path, tmp_path: Path, calls: list[str]) -> None:
    _run(collection, tmp_path)
    file = tmp_path / "out" / "chain.json"

    def forget() -> None:
        record = json.loads(file.read_text())
        for row in record["steps"]:
            del row["sha256"]
        file.write_text(json.dumps(record))

    forget()
    calls.clear()
    _run(collection, tmp_path)
    assert calls == [] and all(row["sha256"] for row in json.loads(file.read_text())["steps"])
    flipped(tmp_path / "out" / "experts" / "a" / "model.pt")
    _run(collection, tmp_path)
    assert "expert:a" in calls

    forget()
    emptied(tmp_path / "out" / "alone" / "seed0" / "model.pt")
    emptied(tmp_path / "out" / "experts" / "b" / "expert.json")
    calls.clear()
    _run(collection, tmp_path)
    assert {"alone:seed0", "expert:b"} <= set(calls) and "expert:a" not in calls


def _killed(folder: Path, step: str) -> None:
    """The record as it is while a step runs."""
    record = json.loads((folder / "chain.json").read_text())
    row = next(r for r in record["steps"] if r["id"] == step)
    row["status"] = "running"
    del row["sha256"]
    (folder / "chain.json").write_text(json.dumps(record))


def test_killed_between_the_model_and_the_record(collection: Path, tmp_path: Path, calls: list[str]) -> None:
    """The run goes on where it was: in its own folder, and nothing else is repeated."""
    _run(collection, tmp_path)
    _killed(tmp_path / "out", "alone:seed0")
    checkpoint = tmp_path / "out" / "alone" / "seed0" / "checkpoints" / "last.pth"
    checkpoint.parent.mkdir()
    checkpoint.write_text("how far it came")
    assert any("Student alone" in line and "it was not finished" in line for line in _plan(collection, tmp_path))
    calls.clear()
    _run(collection, tmp_path)
    assert calls == ["alone:seed0"] and checkpoint.is_file()


def test_an_unfinished_expert_goes_on_without_its_description(
    collection: Path, tmp_path: Path, calls: list[str]
) -> None:
    _run(collection, tmp_path)
    _killed(tmp_path / "out", "expert:a")
    (tmp_path / "out" / "experts" / "a" / "expert.json").unlink()
    (tmp_path / "out" / "experts" / "a" / "mine.txt").write_text("still here")
    calls.clear()
    _run(collection, tmp_path)
    assert calls == ["expert:a"] and (tmp_path / "out" / "experts" / "a" / "mine.txt").is_file()


@pytest.mark.parametrize("hashed", [True, False])
def test_an_unfinished_run_with_a_damaged_model_starts_anew(
    collection: Path, tmp_path: Path, calls: list[str], hashed: bool
) -> None:
    """Going on from its checkpoint would leave the damaged model in place, and end well."""
    _run(collection, tmp_path)
    _killed(tmp_path / "out", "alone:seed0")
    model = tmp_path / "out" / "alone" / "seed0" / "model.pt"
    if hashed:
        seal(model)
        flipped(model)
    else:
        emptied(model)
    _run(collection, tmp_path)
    assert len(list((tmp_path / "out" / "alone").glob("seed0.before-*"))) == 1
    assert model.read_text() == "alone:seed0" and not seal_of(model).exists()


def test_a_result_that_is_none_is_a_failure(
    collection: Path, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend = chain_run._call

    def poor(step, processes):  # type: ignore[no-untyped-def]
        pretend(step, processes)
        if step.id == "expert:a":
            emptied(step.output_dir / "expert.json")

    monkeypatch.setattr(chain_run, "_call", poor)
    with pytest.raises(AmalgamationError, match=r"(?s)Expert a: the command ended well.*expert\.json is empty"):
        _run(collection, tmp_path, jobs=1)
    monkeypatch.setattr(chain_run, "_call", pretend)
    _run(collection, tmp_path)
    assert "to do" not in " ".join(_plan(collection, tmp_path))


def test_what_cannot_be_a_result(tmp_path: Path) -> None:
    step = Step("x", "expert", "X", tmp_path, also=("expert.json",))
    assert unfit(step) == "model.pt is missing" and unfit(step, absent=False) == ""
    save_weights(tmp_path / "model.pt", {})
    (tmp_path / "expert.json").write_text("{")
    assert unfit(step) == "expert.json cannot be read"
    (tmp_path / "expert.json").write_text("{}")
    assert unfit(step) == ""
    flipped(tmp_path / "model.pt")
    assert "model.pt: the weights are not those that were saved" in unfit(step, absent=False)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"steps": [1]}', '{"steps": [{"id": "a"}]}', '{"name": "x"}'])
def test_a_damaged_record_is_no_fresh_start(collection: Path, tmp_path: Path, calls: list[str], content: str) -> None:
    _run(collection, tmp_path)
    (tmp_path / "out" / "chain.json").write_text(content)
    calls.clear()
    with pytest.raises(CheckpointError, match=r"(?s)chain\.json.*cannot be read.*--output_dir"):
        _run(collection, tmp_path)
    assert calls == []


def test_a_plan_reads_unchanged_files_once(
    collection: Path, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import time

    from common import integrity

    _run(collection, tmp_path)
    for path in tmp_path.rglob("*"):
        os.utime(path, ns=(time.time_ns() - 10**11,) * 2)
    monkeypatch.setattr(integrity, "_SETTLED_NS", -(10**18))  # as if all of that had happened long ago
    _plan(collection, tmp_path)
    monkeypatch.setattr(integrity.hashlib, "file_digest", lambda *_: pytest.fail("a file was read again"))
    _plan(collection, tmp_path)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a\0b"])
def test_a_record_hashes_nothing_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "own").mkdir()
    assert "no place in its folder" in changed(tmp_path / "own", {name: "0"})


def test_a_chain_has_a_name_in_every_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "my runs"
    place.mkdir()
    monkeypatch.chdir(place)
    for folder, name in ((place, "my runs"), (Path(), "my runs"), (Path("a\udce9\x1b"), "a\\udce9\\x1b")):
        assert experiment_of(ChainSettings("ka2er", Path("data"), folder)) == name
