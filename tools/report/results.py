"""What lies in run folders: scores, histories, overlays, pictures and the chain's record."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.paths import check_path

from ..run_files import CAPTIONS, CHAIN, LARGEST, OVERLAYS, SUMMARY, inside, read_record, read_scores, read_table

__all__ = ["WORDS", "Overlay", "Picture", "Run", "Study", "read_study"]

TRAINED = ("expert", "external", "alone", "amalgamated", "variant")


@dataclass(frozen=True)
class Overlay:
    """A drawn case.

    Args:
        file: the PNG.
        kind: "best" or "worst".
        case: its name.
        task: its dataset.
        structure: what the slices go through.
        dice: of that structure.
    """

    file: Path
    kind: str
    case: str
    task: str
    structure: str
    dice: float


@dataclass(frozen=True)
class Picture:
    """A picture that a run left in ``pictures/``, with its caption."""

    file: Path
    caption: str


@dataclass(frozen=True)
class Run:
    """One trained model with its evaluation.

    Args:
        id: the step's id in the chain, or the folder's name.
        kind: "expert", "external", "alone", "amalgamated", "variant" or "run".
        title: for people.
        folder: its output folder.
        status: of its training, "done" when unknown.
        seconds: that the training took, None when unknown.
        rows: of ``cases.csv``.
        rules: head of ``summary.json``.
        history: rows of ``history.csv``.
        overlays: best and worst cases.
        pictures: attention maps and the like.
    """

    id: str
    kind: str
    title: str
    folder: Path
    status: str = "done"
    seconds: float | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    rules: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, float | None]] = field(default_factory=list)
    overlays: list[Overlay] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    @property
    def variant(self) -> str:
        """The name of a stage-2 run without its seed, by its id."""
        return self.id.split(":", 1)[0]

    @property
    def task(self) -> str:
        """The task of an expert, by its id."""
        return self.id.split(":", 1)[1] if ":" in self.id else self.id


WORDS: dict[str, Any] = {
    "amalgamated": "Amalgamated student",
    "alone": "Student alone",
    "hub": ["amalgamation", "the student asks,", "frozen experts answer"],
    "note_amalgamated": "runs without the experts",
    "note_alone": "same budget, no experts",
}
"""What a chain's ``chain.json`` may say differently."""


@dataclass(frozen=True)
class Study:
    """Everything that one report shows."""

    name: str
    runs: list[Run]
    chain: dict[str, Any] | None = None

    @property
    def words(self) -> dict[str, Any]:
        """Names of the models and lines of the drawing."""
        return {**WORDS, **((self.chain or {}).get("words") or {})}

    def kind(self, kind: str) -> list[Run]:
        """The runs of one kind."""
        return [r for r in self.runs if r.kind == kind]


def read_study(folders: Sequence[Path]) -> Study:
    """Read a chain folder, or several run folders.

    Raises:
        DataError: when a folder is missing or holds nothing to report.
    """
    for folder in folders:
        if not check_path(folder, what="folder").is_dir():
            raise DataError("there is no such folder", where=folder, hint="python -m tools chain run ka2er makes one")
    if len(folders) == 1 and (folders[0] / "chain.json").is_file():
        return _chain(folders[0])
    runs = [_run(f.name, "run", f.name, f, [f]) for f in folders]
    empty = [r.folder for r in runs if not (r.rows or r.history)]
    if empty:
        raise DataError(
            "the folder holds no run",
            where=empty[0],
            expected="chain.json, evaluation/cases.csv or history.csv",
        )
    return Study(" · ".join(r.title for r in runs), _distinct(runs))


def _distinct(runs: list[Run]) -> list[Run]:
    titles = [r.title for r in runs]
    if len(set(titles)) == len(titles):
        return runs
    return [Run(**{**r.__dict__, "id": str(r.folder), "title": str(r.folder)}) for r in runs]


def _chain(folder: Path) -> Study:
    path = folder / "chain.json"
    record = read_record(path, CHAIN)
    steps = record["steps"]
    places = [inside(folder, s["output_dir"], where=f"{path}, steps[{i}].output_dir") for i, s in enumerate(steps)]
    runs = []
    for step, own in ((s, p) for s, p in zip(steps, places, strict=True) if s.get("kind") in TRAINED):
        scored = [p for s, p in zip(steps, places, strict=True) if _scores(s, step["id"])]
        runs.append(_run(step["id"], step["kind"], step.get("title", step["id"]), own, [*scored, own], step))
    runs += [_given(s, folder) for s in steps if _scores_given(s, {r.id for r in runs})]
    return Study(record.get("name", folder.name), runs, record)


def _scores(step: dict[str, Any], subject: str) -> bool:
    named = step.get("subject") or step["id"].removeprefix("evaluate:")
    return bool(step.get("kind") == "evaluate" and named == subject)


def _scores_given(step: dict[str, Any], known: set[str]) -> bool:
    subject = step.get("subject") or ""
    return step.get("kind") == "evaluate" and subject.startswith("expert:") and subject not in known


def _given(step: dict[str, Any], folder: Path) -> Run:
    """An expert that the chain evaluated but did not train."""
    own, name = folder / step["output_dir"], step["subject"].removeprefix("expert:")
    return _run(step["subject"], "expert", f"Expert {name} (given)", own, [own], {"status": step.get("status", "done")})


def _run(
    identity: str, kind: str, title: str, folder: Path, scored: Iterable[Path], step: dict[str, Any] | None = None
) -> Run:
    evaluation = next((s / "evaluation" for s in scored if (s / "evaluation" / "summary.json").is_file()), None)
    summary = {} if evaluation is None else read_record(evaluation / "summary.json", SUMMARY)
    cases = None if evaluation is None else evaluation / "cases.csv"
    return Run(
        identity,
        kind,
        title,
        folder,
        status=(step or {}).get("status", "done"),
        seconds=(step or {}).get("seconds"),
        rows=read_scores(cases) if cases is not None and cases.is_file() else [],
        rules={k: v for k, v in summary.items() if k not in ("all", "tasks", "labels")},
        history=_history(folder / "history.csv"),
        overlays=[] if evaluation is None else _overlays(evaluation / "overlays"),
        pictures=_pictures(folder / "pictures"),
    )


def _history(path: Path) -> list[dict[str, float | None]]:
    if not path.is_file():
        return []
    return [{k: _number(v) for k, v in row.items()} for row in read_table(path)]


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    return value if abs(value) < LARGEST else None  # neither NaN nor what no drawing has a scale for


def _overlays(folder: Path) -> list[Overlay]:
    listing = folder / "overlays.json"
    if not listing.is_file():
        return []
    found = []
    for i, e in enumerate(read_record(listing, OVERLAYS)):
        file = inside(folder, Path(e["file"]).name, where=f"{listing}, [{i}].file")
        dice = math.nan if e["dice"] is None else float(e["dice"])
        if file.is_file():
            found.append(Overlay(file, e["kind"], e["case"], e.get("task", ""), e["structure"], dice))
    return found


def _pictures(folder: Path) -> list[Picture]:
    """``pictures/*.png`` with ``captions.json``, ``{file name: caption}``; the name is the caption without it."""
    listing = folder / "captions.json"
    captions = read_record(listing, CAPTIONS) if listing.is_file() else {}
    files = sorted(folder.glob("*.png")) if folder.is_dir() else []
    files = [inside(folder, f.name, where=str(folder)) for f in files]
    return [Picture(f, str(captions.get(f.name, re.sub(r"[_-]+", " ", f.stem)))) for f in files]
