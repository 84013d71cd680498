"""``python -m tools amalgamate``: experts and scans in, one student that answers as they do in one pass out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.atomic import atomic_write
from common.command_words import shown_option
from common.errors import ConfigError

from ..chain.command import typed_overrides
from ..chain.record import Record, alone_in
from ..chain.run import execute
from ..chain.step import Step
from ..chain.text import plan_text
from ..data import read_structures
from ..terminal import console, say
from .answers import answers
from .beside import beside, stay_lines
from .contradictions import contradicted
from .described import Told
from .forecast import forecast, forecast_lines
from .lessons import lessons, lessons_table, unlearnt
from .page import write_page
from .plan import plan, until, waiting_for_none
from .prepare import prepare
from .scores import scores
from .verdict import passes, rows_from, verdicts
from .work import Work

__all__ = ["STEPS", "amalgamate", "by_itself"]


def amalgamate(
    *experts: str,
    scans: str | Sequence[str] | dict[str, str] = "",
    labels: str | Sequence[str] | dict[str, str] = "",
    structures: str | dict[str, int] | None = None,
    out: str = "runs/amalgamate",
    preset: str = "paper",
    student: str = "nnunet",
    start_from: str = "auto",
    labels_used: str = "all",
    held_back: float = 0.2,
    orientation: str | None = None,
    training_files: str | None = None,
    folds: str | None = None,
    profile: str | None = None,
    trust: bool = False,
    check: bool = True,
    pack: bool = True,
    seed: int = 0,
    train: str = "",
    keep: str | Sequence[str] = "",
    dry_run: bool = False,
    only: str = "",
) -> str:
    """Make one student of several experts: describe, check, say what it will teach, ask, train, score, report.

    The command can be interrupted and typed again: what is done is kept. In Python:
    ``amalgamate("a", "b", scans={"ct": "folder"})``.

    Args:
        experts: results folders of nnU-Net, MONAI bundles, or descriptions that ``experts describe`` wrote.
        scans: what they are asked about, ``ct=FOLDER mr=FOLDER``: folders of NIfTI or of DICOM series, raw folders of
            nnU-Net, data sets; ``t1+flair=FOLDER`` for two channels.
        labels: folders of label maps of these scans, ``ct=FOLDER``, where there are any.
        structures: names and values of the label maps, ``liver=1,spleen=2``.
        out: where everything goes.
        preset: sizes: ``paper``, ``laptop``, ``demo``, ``smoke`` and what else the bundle's ``chain.json`` has.
        student: ``nnunet`` or ``swin_unetr``.
        start_from: name of the expert whose plans and weights an nnU-Net student takes; ``none``; ``auto`` takes the
            nnU-Net that reads most kinds of scans, CT before others, and knows most structures.
        labels_used: ``all``, ``none``, or how many label maps of each task teach.
        held_back: share of each task's scans that is kept for scoring, where there is no test split.
        orientation: how the training files of nnU-Nets lay whose own files do not tell: ``RAS`` or ``LPS``, for
            example. This and the next three are of results folders; an ``expert.json`` says it of one expert.
        training_files: look at these files: ``nnUNet_raw``, or the raw folder of one data set.
        folds: folds of an nnU-Net that answer together: ``0,1,2,3,4``, or ``all``; the first alone when left out.
        profile: the program that the nnU-Nets live in, such as ``totalsegmentator``, which asks them in its own way and
            gives their structures its names.
        trust: open the code of MONAI bundles without asking.
        check: first ask each nnU-Net on one scan whether it is heard as at home.
        pack: write a self-contained bundle.
        seed: of the training.
        train: further knobs of the training, ``"--max_steps 500"``.
        keep: names of experts whose passes stay beside the student, ``NAME,NAME``: where ``predict`` is given a scan
            that it reads, each decides about the structures for which the page says to keep it, and about those that no
            scan held back shows. The command can be typed again with others: nothing is trained or asked again.
        dry_run: end with what it will teach and take: nothing is trained, no more than a scan per expert asked.
        only: do this one step of an amalgamation that was started, such as ``answers`` on further machines; with the
            same ``--train``, where it was started with one.

    Returns:
        what came out, and where it is.
    """
    if only:
        return by_itself(Path(out), only, typed_overrides(train))
    wanted = {"preset": preset, "student": student, "labels_used": str(labels_used), "seed": seed,
              "train": typed_overrides(train)}  # fmt: skip
    told = Told(orientation, training_files, folds, profile)
    with alone_in(Path(out)):
        work = prepare(experts, scans, labels, Path(out), structures=read_structures(structures), share=held_back,
                       trust=trust, told=told, start_from=start_from, keep=keep, wanted=wanted)  # fmt: skip
        return _done(work, plan(work, check=check, pack=pack), dry_run)


def _done(work: Work, steps: Sequence[Step], dry_run: bool) -> str:
    """Do the steps, with a word on what each part of them told."""
    record = Record.open(work.out, work.settings, steps)
    first = until(steps, "forecast")
    execute(first, record, work.settings, 1)
    _say_forecast(work)
    if dry_run:
        return plan_text(steps, record)
    asked = until(steps, "answers")
    execute(waiting_for_none(asked, first), record, work.settings, 1)
    _say_seen(work)
    execute(waiting_for_none(steps, asked), record, work.settings, 1)
    return _finished(work, record)


STEPS: dict[str, Callable[[Work], dict[str, Any]]] = {
    "forecast": forecast,
    "answers": answers,
    "scores": scores,
    "beside": beside,
}
"""Steps that are done by themselves."""


def by_itself(out: Path, name: str, train: Sequence[tuple[str, str]] = ()) -> str:
    """Do one step and write its result.

    Args:
        out: the folder of an amalgamation.
        name: of the step.
        train: the knobs that this command says, which must be those of the amalgamation.

    Raises:
        ConfigError: for an unknown step, or a folder in which none was started.
    """
    if name not in STEPS:
        raise ConfigError("there is no such step", where="--only", got=name, expected=", ".join(STEPS))
    work = Work.read(out, train)
    file = out / name / f"{name}.json"
    found = STEPS[name](work)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return f"wrote {file}"


def _say_forecast(work: Work) -> None:
    for line in forecast_lines(work.result("forecast")):
        say(line)


def _say_seen(work: Work) -> None:
    """What was seen, and warnings, before anything is trained."""
    asked = work.result("answers")
    found = lessons(work.specs, work.collection, asked["seen"], work.wanted.labels_used)
    console().print(lessons_table(found))
    for line in (*unlearnt(found), *contradicted(asked.get("contradictions", ()))):
        say(f"warning: {line}", error=True)


def _finished(work: Work, record: Record) -> str:
    page = write_page(work, record)
    found = passes(verdicts(rows_from(work.result("scores")["rows"])))
    gone = [p.expert for p in found if p.goes]
    kept = [f"{p.expert} ({', '.join([*p.kept_for, *p.unseen])})" for p in found if p.stays]
    lost = [f"{p.expert} ({', '.join(p.poor)})" for p in found if p.poor]
    lines = [f"passes that can go: {', '.join(gone) or 'none'}", f"to keep: {'; '.join(kept) or 'none'}"]
    lines += [f"not found by either, student or expert: {'; '.join(lost)}"] if lost else []
    if not found:
        lines = ["nothing was scored: no scan is held back"]
    lines += stay_lines(work.result("beside")["experts"]) if work.kept else []
    model = shown_option("weights", work.model)
    return "\n".join([*lines, f"use the student with {model}", f"The page is {page}"])
