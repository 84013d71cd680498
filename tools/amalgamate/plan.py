"""The steps of an amalgamation: each a command of its own, in a folder of its own, recorded as a chain's are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.command_words import option
from common.experts.answers.beside import kept_file

from ..chain.checks import checks
from ..chain.step import Step, config_argument, data_files, run_words
from .work import BUNDLE, Work, knobs_text

__all__ = ["alone", "plan", "until", "waiting_for_none"]


def plan(work: Work, *, check: bool = True, pack: bool = True) -> list[Step]:
    """All steps, in order.

    Args:
        work: the folder, with its collection and experts.
        check: first ask each nnU-Net on one scan whether it is heard as at home.
        pack: at last write the self-contained bundle.

    Raises:
        ConfigError: for an unknown preset, or a configuration that is not there.
    """
    data = (work.manifest, *(f for d in work.collection.datasets for f in data_files(d)))
    given = (work.file, *data)
    described = ((work.description(spec.name), spec) for spec in work.specs)
    steps = checks(described, work.collection, work.out / "checks") if check else []
    steps.append(alone(work, "forecast", "What it will take", given, after=steps))
    steps.append(alone(work, "answers", "The experts' answers", given, after=steps))
    student = _student(work, data)
    exported = student.output_dir / "model.pt"
    scores = alone(work, "scores", "Scores on the scans held back", (*given, exported), after=[student])
    steps += [student, scores]
    stays = [kept_file(exported)] if work.kept else []
    if stays:
        seen = (*given, exported, work.keep_file, scores.output_dir / scores.produces)
        steps.append(alone(work, "beside", "Experts that stay beside the student", seen, after=[scores]))
    if pack:
        steps.append(_packed(work, exported, stays))
    return steps


def alone(work: Work, name: str, title: str, inputs: tuple[Path, ...], after: Sequence[Step] = ()) -> Step:
    """A step that this command does when it is asked for it alone.

    Args:
        work: the folder.
        name: of the step, its folder and its result.
        title: for people.
        inputs: files whose change matters.
        after: steps before it.
    """
    argv = (sys.executable, "-m", "tools", "amalgamate", option("out", work.out), option("only", name),
            *([option("train", knobs_text(work.wanted.train))] if work.wanted.train else []))  # fmt: skip
    needs = tuple(step.id for step in after)
    return Step(name, name, title, work.out / name, argv, inputs, needs, produces=f"{name}.json")


def _student(work: Work, given: tuple[Path, ...]) -> Step:
    folder = work.out / "student"
    config = config_argument(work.settings, BUNDLE, work.files)
    argv = run_words(work.settings, config, {**work.knobs(folder), **work.typed}, "student")
    return Step("student", "amalgamated", "The student", folder, argv, given, ("answers",))


def _packed(work: Work, model: Path, stays: Sequence[Path]) -> Step:
    folder = work.out / "bundle"
    argv = (sys.executable, "-m", "tools", "bundle", "pack", BUNDLE, option("out", folder), option("weights", model),
            "--force=True")  # fmt: skip
    return Step("bundle", "bundle", "The bundle", folder, argv, (model, *stays), ("beside" if stays else "student",),
                produces=f"{BUNDLE}/configs/metadata.json")  # fmt: skip


def until(steps: Sequence[Step], name: str) -> list[Step]:
    """The steps up to this one, which is the last."""
    return list(steps[: [step.id for step in steps].index(name) + 1])


def waiting_for_none(steps: Sequence[Step], done: Sequence[Step]) -> list[Step]:
    """Steps without the needs that are done."""
    finished = {step.id for step in done}
    return [replace(s, needs=tuple(n for n in s.needs if n not in finished)) for s in steps if s.id not in finished]
