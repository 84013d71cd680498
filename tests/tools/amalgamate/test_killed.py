"""Killed at any moment and typed again, the command loses nothing that was done and does none of it twice."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from common.card import save_weights
from common.data.store import entry
from common.data.transforms.loading import LoadCased
from common.errors import ConfigError, ExpertError, cause_of
from common.experts.answers.ask import AskExpertd
from common.experts.answers.saved import save_answer
from tests.nnunet_folders import write_folder
from tests.tools.amalgamate.made import write_scans
from tools.amalgamate.answers import answers
from tools.amalgamate.command import amalgamate
from tools.amalgamate.forecast import _asked, _training
from tools.amalgamate.prepare import prepare
from tools.amalgamate.scores import _Expert
from tools.amalgamate.work import Work
from tools.chain.command import typed_overrides
from tools.chain.record import alone_in
from tools.chain.run import Processes

TRAIN = "--store_workers 0 --answer_mirroring False"


def forked(done: Callable[[], object], log: Path) -> int:
    """Exit code of a process of its own that does it; negative: killed by that signal."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        torch.set_num_threads(1)
        with log.open("w") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
            done()
        code = 0
    except BaseException as error:
        log.write_text(f"{log.read_text()}\n{error!r}")
    finally:
        os._exit(code)


def dead() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def note(file: Path, *words: str) -> None:
    with file.open("a") as stream:
        stream.write(" ".join(words) + "\n")


def noted(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.is_file() else []


@pytest.fixture
def given(tmp_path: Path) -> tuple[list[str], dict[str, Any]]:
    """Two experts and four scans, of which three teach."""
    experts = []
    for seed, names in enumerate((("liver", "spleen"), ("aorta",))):
        labels = {"background": 0, **{name: i for i, name in enumerate(names, 1)}}
        folder = write_folder(tmp_path / "r", f"Dataset00{seed}_x", labels=labels, seed=seed, channel_names=("CT",),
                              norm="CTNormalization", spacing=(3.0, 2.0, 2.0))  # fmt: skip
        experts.append(str(folder))
    scans = {"ct": str(write_scans(tmp_path / "scans", 4))}
    return experts, {"scans": scans, "out": str(tmp_path / "out"), "preset": "smoke", "train": TRAIN}


def test_within_the_answers(given: tuple[list[str], dict[str, Any]], tmp_path: Path) -> None:
    """Killed while an expert is asked, and while its answer is written: these are asked again, and no others."""
    experts, options = given
    train = (("store_workers", "0"), ("answer_mirroring", "False"))
    work = prepare(experts, options["scans"], "", tmp_path / "out", wanted={"preset": "smoke", "train": train})
    asked, result = tmp_path / "asked", tmp_path / "result"
    real, put = AskExpertd.__call__, entry._put

    def run(ask: int, write: int) -> int:
        """Until the so-manieth ask or writing of an answer."""

        def asking(self: AskExpertd, data: Any) -> Any:
            nonlocal ask
            ask -= 1
            if ask == 0:
                dead()
            note(asked, self.spec.name, str(data["case"]))
            return real(self, data)

        def putting(aside: Path, folder: Path) -> None:
            nonlocal write
            if b'"answer"' in (aside / entry.TEXT).read_bytes():
                write -= 1
                if write == 0:
                    dead()
            put(aside, folder)

        def done() -> None:
            AskExpertd.__call__, entry._put = asking, putting  # type: ignore[method-assign]
            result.write_text(json.dumps(answers(work)))

        return forked(done, tmp_path / "log")

    assert run(3, 0) == -signal.SIGKILL, (tmp_path / "log").read_text()
    first = noted(asked)
    assert len(first) == 2 and len(set(first)) == 2 and not result.exists()
    assert run(0, 2) == -signal.SIGKILL, (tmp_path / "log").read_text()
    second = noted(asked)[2:]
    assert len(second) == 2 and not {*first} & {*second}
    assert run(0, 0) == 0, (tmp_path / "log").read_text()
    third = noted(asked)[4:]
    assert third[0] == second[1], "its answer was not yet in its place"
    assert len({*first, *second, *third}) == 6 == len(noted(asked)) - 1
    found = json.loads(result.read_text())
    assert found["answers"] == 6 and found["scans"] == {"ct": 3}
    assert run(1, 0) == 0, "nobody is asked again"
    assert json.loads(result.read_text()) == found


def test_an_expert_that_changed_meanwhile_is_not_asked(given: tuple[list[str], dict[str, Any]], tmp_path: Path) -> None:
    experts, options = given
    work = prepare(experts, options["scans"], "", tmp_path / "out", wanted={"preset": "smoke"})
    file = Path(experts[1]) / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(file, weights_only=False), "current_epoch": 7}, file)
    with pytest.raises(RuntimeError) as error:  # MONAI's, of the configuration's part
        answers(work)
    why = cause_of(error.value, ExpertError)
    assert why is not None and "changed since they were recorded" in why.problem and "Dataset001_x" in str(why.where)


def test_a_forecast_measures_again_what_was_answered(
    given: tuple[list[str], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the forecast, or after it: reading an answer is no measure of asking for it."""
    experts, options = given
    train = (("store_workers", "0"), ("answer_mirroring", "False"))
    work = prepare(experts[1:], options["scans"], "", tmp_path / "out", wanted={"preset": "smoke", "train": train})
    real, asked = AskExpertd.__call__, list[str]()

    def slow(self: AskExpertd, data: Any) -> Any:
        asked.append(str(data["case"]))
        time.sleep(0.5)
        return real(self, data)

    monkeypatch.setattr(AskExpertd, "__call__", slow)
    (scan, *_) = _training(work)
    first, again = (_asked(work, work.specs[0], scan) for _ in range(2))
    assert min(first["seconds"], again["seconds"]) >= 0.5 and first["bytes"] == again["bytes"] > 0
    assert first["prepared"] == again["prepared"] > first["bytes"], "the volume, and the map of what was said"
    assert asked == [scan["case"]] * 2
    image = LoadCased(keys="image")({"image": scan["image"], "case": scan["case"]})["image"]
    monkeypatch.setattr(AskExpertd, "__call__", real)
    own, _ = _Expert(work.specs[0], work.collection).asked(image)
    save_answer(tmp_path / "own.npy.gz", own.record)
    assert 0.6 < first["saved"] / (tmp_path / "own.npy.gz").stat().st_size < 1.6, "as the scores keep it"


RESULTS: dict[str, dict[str, Any]] = {
    "forecast": {"scans": 3, "experts": [], "step": 0.1, "steps": 1},
    "answers": {"scans": {"ct": 3}, "seen": {}, "disputed": [], "answers": 0, "bytes": 0},
    "scores": {
        "rows": [],
        "cost": {},
        "passes": {},
        "scans": {},
        "disputed": [],
        "pictures": [],
        "viewer": [],
        "structures": [],
    },
}


def pretended(argv: Sequence[str]) -> str:
    """Do a step as its command would, but for the work; its name."""
    told = {w.partition("=")[0]: w.partition("=")[2] for w in argv if w.startswith("--")}
    out = Path(told.get("--out", told.get("--ckpt_dir", "")))
    if "--only" in told:
        file = out / told["--only"] / f"{told['--only']}.json"
        file.write_text(json.dumps(RESULTS[told["--only"]]))
        return told["--only"]
    if "check" in argv:
        out.write_text("{}")
        return f"check {out.parent.name}"
    if "pack" in argv:
        (out / "ka2er" / "configs").mkdir(parents=True, exist_ok=True)
        (out / "ka2er" / "configs" / "metadata.json").write_text("{}")
        return "bundle"
    save_weights(out / "model.pt", {"w": torch.zeros(1)})
    return "student"


def test_between_the_steps(given: tuple[list[str], dict[str, Any]], tmp_path: Path) -> None:
    """Killed in every step, and after each before it was noted: no other is done twice, and the page is written."""
    experts, options = given
    steps = tmp_path / "steps"

    def run(before: int, after: int) -> int:
        """Killed when so many steps are begun, or done."""

        def doing(self: Processes, argv: Sequence[str], environment: Any, log: Any) -> int:
            nonlocal before, after
            before -= 1
            if before == 0:
                dead()
            note(steps, pretended(argv))
            after -= 1
            if after == 0:
                dead()
            return 0

        def done() -> None:
            Processes.run = doing  # type: ignore[method-assign]
            note(tmp_path / "told", amalgamate(*experts, **options))

        return forked(done, tmp_path / "log")

    every = ["check Dataset000_x", "check Dataset001_x", "forecast", "answers", "student", "scores", "bundle"]
    for number in range(len(every)):
        assert run(2 if number else 1, 0) == -signal.SIGKILL, (tmp_path / "log").read_text()
        assert noted(steps) == every[:number]
    assert run(0, 1) == -signal.SIGKILL, "done, and not noted"
    model = (tmp_path / "out" / "student" / "model.pt").stat().st_mtime_ns
    assert run(0, 0) == 0, (tmp_path / "log").read_text()
    assert noted(steps) == [*every, "bundle"]
    assert (tmp_path / "out" / "report" / "index.html").is_file()
    assert (tmp_path / "out" / "student" / "model.pt").stat().st_mtime_ns == model
    assert run(1, 0) == 0, "nothing is begun"
    assert not list((tmp_path / "out").glob("*.before-*")), "nothing that was done was put aside"
    assert Work.read(tmp_path / "out", typed_overrides(options["train"])).wanted.preset == "smoke"


def test_one_command_at_a_time(given: tuple[list[str], dict[str, Any]], tmp_path: Path) -> None:
    """A second one changes nothing of what the first one reads."""
    experts, options = given
    with alone_in(tmp_path / "out"):
        code = forked(lambda: amalgamate(*experts, **options), tmp_path / "log")
    assert code == 1 and ConfigError.__name__ in (tmp_path / "log").read_text()
    assert not (tmp_path / "out" / "wanted.json").exists()
