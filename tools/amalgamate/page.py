"""The page of an amalgamation: what came out, which passes can go, what was taught."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.atomic import atomic_write
from common.engine.monitor.case_pictures import COLOURS
from common.experts.answers.beside import kept_file
from common.methods.ka2er.planned import student_overlap
from common.methods.ka2er.results import predict_command
from common.weights import read_card

from ..bundle_describe import tiles_told
from ..chain.record import Record
from ..report.cells import NOTHING, Cell, Head, Line, Table
from ..report.frame import document
from ..report.gallery import Image, image
from ..report.page import duration, facts
from ..report.page import step as row_of
from ..report.viewer import viewer
from ..run_files import inside
from .beside import together
from .contradictions import contradicted
from .lesson_map import lesson_map
from .lessons import LABELS, Lesson, lessons, unlearnt
from .verdict import AGREES, AS_GOOD, FOUND, GO, KEEP, NEITHER, UNSEEN, Pass, Row, Verdict, passes, rows_from, verdicts
from .work import Work

__all__ = ["render", "sentence", "write_page"]

_WORDS = {KEEP: "keep", NEITHER: "not found by either", UNSEEN: "not seen"}


class Tile(NamedTuple):
    """A big number."""

    name: str
    big: str
    below: str


def write_page(work: Work, record: Record) -> Path:
    """Write ``report/index.html``.

    Args:
        work: the folder, all steps done.
        record: what was done.

    Returns:
        the file.
    """
    page = work.out / "report" / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(page) as temporary:
        temporary.write_text(render(work, record.data), encoding="utf-8")
    return page


def render(work: Work, chain: dict[str, Any]) -> str:
    """The whole HTML document."""
    scores, asked = work.result("scores"), work.result("answers")
    stays = work.result("beside") if work.kept else None
    taught = lessons(work.specs, work.collection, asked["seen"], work.wanted.labels_used)
    rows = rows_from(scores["rows"])
    found = verdicts(rows)
    colours = {name: f"run{1 + i % 15}" for i, name in enumerate([s.name for s in work.specs])} | {LABELS: "run0"}
    volumes = {"cases": scores["viewer"], "labels": [
        {"name": n, "colour": COLOURS[i % len(COLOURS)]} for i, n in enumerate(scores["structures"])]}  # fmt: skip
    sections = {
        "overview": _overview(work, found, scores, chain, stays),
        "passes": _passes(rows, found, colours, stays) if found else None,
        "lessons": {
            "notices": [*unlearnt(taught), *contradicted(asked.get("contradictions", ()))],
            "picture": lesson_map(taught, colours),
            "table": _taught([one for one in taught if not one.why]),
        },
        "disputes": _disputes(scores["disputed"]),
        "pictures": _pictures(work, scores["pictures"]),
        "viewer": viewer(volumes),
        "reproduce": _reproduce(work, chain),
    }
    return document("amalgamation.html.j2", f"{work.out.resolve().name}: amalgamated", sections)


def sentence(found: Sequence[Verdict], ratio: float = math.nan) -> str:
    """What came out, in one sentence that claims no more than was measured.

    Args:
        found: the verdicts.
        ratio: seconds that the experts who read a scan take for it, over those of the student.
    """
    if not found:
        return "Nothing was scored: no scan was held back."
    gone = [p for p in passes(found) if p.goes]
    names = {v.structure for v in found}
    words = {n: {v.word for v in found if v.structure == n} for n in names}
    good = [n for n in names if words[n] <= {GO, NEITHER} and GO in words[n]]
    lost = [n for n in names if words[n] == {NEITHER}]
    experts = len(passes(found))
    text = f"One pass answers for {len(names)} structures of {experts} experts; for {len(good)} of them as well as " \
           f"whoever knows them, and {len(gone)} of {experts} passes can go."  # fmt: skip
    text += f" It takes {ratio:.1f} times less time than the experts that read a scan." if ratio > 1 else ""
    return text + (f" For {len(lost)} nothing is said: neither the student nor an expert finds them." if lost else "")


def _overview(
    work: Work,
    found: Sequence[Verdict],
    scores: Mapping[str, Any],
    chain: Mapping[str, Any],
    stays: Mapping[str, Any] | None,
) -> dict[str, Any]:
    tiles, ratio = [], math.nan
    if found:
        every = passes(found)
        tiles.append(Tile("Passes that can go", f"{sum(p.goes for p in every)} of {len(every)}", "see below for what"))
    if scores["cost"] and scores["passes"]:
        own, theirs = scores["cost"][""], scores["passes"]
        ratio = theirs["seconds"] / own if own else math.nan
        tiles.append(Tile("One pass", f"{own:.1f} s", "the student’s, of a scan held back, read and written"))
        count = f"{theirs['experts']:.1f}".removesuffix(".0")
        told = f"of the {count} experts that read a scan, one after another, each as at home"
        tiles.append(Tile("The experts’ passes", f"{theirs['seconds']:.1f} s",
                          told if count != "1" else "of the one expert that reads a scan, as at home"))  # fmt: skip
    asked = [name for name, about in stays["experts"].items() if about and name in scores["cost"]] if stays else []
    if asked:
        seconds = sum(scores["cost"][name] for name in ("", *asked))
        told = f"with {', '.join(asked)}, of a scan that they read"
        tiles.append(Tile("Student and what stays", f"{seconds:.1f} s", told))
    scored = [v for v in found if math.isfinite(v.student)]
    if scored:
        mean = sum(v.student for v in scored) / len(scored)
        own = sum(v.own for v in scored) / len(scored)
        tiles.append(Tile("Dice against labels", f"{mean:.3f}", f"the experts’: {own:.3f}"))
    agreed = [v.agreement for v in found if math.isfinite(v.agreement)]
    if agreed:
        tiles.append(Tile("Agreement", f"{sum(agreed) / len(agreed):.3f}", "mean Dice between student and experts"))
    when = str(chain.get("created", ""))[:16].replace("T", " ")
    return {
        "eyebrow": f"amalgamation · {when}",
        "heading": f"{len(work.specs)} experts, one student",
        "sentence": sentence(found, ratio),
        "notices": [],
        "tiles": tiles,
    }


def _passes(
    rows: Sequence[Row], found: Sequence[Verdict], colours: Mapping[str, str], stays: Mapping[str, Any] | None
) -> dict[str, Any]:
    beside: Mapping[str, Sequence[str]] = stays["experts"] if stays else {}
    cards = [{**p._asdict(), "stays": p.stays, "key": colours.get(p.expert, "run1"), "count": _count(found, p),
              "beside": beside.get(p.expert)} for p in passes(found)]  # fmt: skip
    heads = [Head("Structure"), Head("Expert"), Head("Scans", hint="that show it"), Head("Student’s Dice"),
             Head("Expert’s Dice"), Head("Agreement", hint="Dice between the two"), Head("Its pass")]  # fmt: skip
    both = together(rows, stays["rows"]) if stays else {}
    more = [[_number(both.get((v.expert, v.structure), math.nan))] if stays else [] for v in found]
    lines = [Line([Cell(v.structure), Cell(v.expert, key=colours.get(v.expert, "")), Cell(str(v.scans)),
                   _number(v.student), *m, _number(v.own), _number(v.agreement), _word(v)])
             for v, m in zip(found, more, strict=True)]  # fmt: skip
    if stays:
        heads.insert(4, Head("Student + kept", hint="Dice of the student with the experts that stay"))
    return {
        "as_good": f"{AS_GOOD:.0%}",
        "agrees": f"{AGREES:g}",
        "found": f"{FOUND:g}",
        "cards": cards,
        "table": Table(heads, lines),
    }


def _count(found: Sequence[Verdict], one: Pass) -> int:
    return sum(v.expert == one.expert for v in found)


def _word(one: Verdict) -> Cell:
    words = _WORDS.get(one.word, "can go")
    return Cell(words, cls={"keep": "down", "can go": "up"}.get(words, "none"))


def _number(value: float) -> Cell:
    return Cell(f"{value:.3f}", str(value)) if math.isfinite(value) else NOTHING


def _taught(found: Sequence[Lesson]) -> Table:
    heads = [Head("Structure"), Head("Who knows it"), Head("Scans"), Head("Modality"), Head("Read"), Head("Seen in")]
    lines = []
    for one in found:
        seen = one.seen or 0
        lines.append(Line([Cell(one.structure), Cell(one.expert), Cell(one.task), Cell(one.modality),
                           Cell(str(one.scans)), Cell(str(seen), cls="" if seen else "down")]))  # fmt: skip
    return Table(heads, lines)


def _disputes(found: Sequence[Sequence[Any]]) -> Table | None:
    heads = [Head("Expert"), Head("says"), Head("Other expert"), Head("says"), Head("Voxels")]
    lines = [Line([*(Cell(str(word)) for word in names), Cell(f"{voxels:,}", str(voxels))]) for *names, voxels in found]
    return Table(heads, lines) if lines else None


def _pictures(work: Work, found: Sequence[Mapping[str, str]]) -> list[tuple[Image, str]]:
    folder = work.out / "scores" / "pictures"
    shown = []
    for one in found:
        file = inside(folder, str(one["file"]), where="scores.json, pictures")
        shown.append((image(file, str(one["case"])), str(one["task"])))
    return shown


def _reproduce(work: Work, chain: dict[str, Any]) -> dict[str, Any]:
    places = {"Model": work.model, "Bundle": work.out / "bundle", "Experts": work.manifest}
    places |= {"Experts that stay": kept_file(work.model), "nnU-Net results": work.out / "student" / "nnunet"}
    steps = chain.get("steps", ())
    total = sum(s["seconds"] for s in steps if isinstance(s.get("seconds"), (int, float)))
    return {
        "command": chain.get("command", ""),
        "results": [*((name, str(place)) for name, place in places.items() if place.exists()), *_nnunets(work)],
        "facts": [("Time", duration(total)), ("One pass", _tiles(work)), *facts(chain)],
        "steps": [row_of(s) for s in steps],
    }


def _tiles(work: Work) -> str:
    """How the student's tiles lie, and from where it has that."""
    card = read_card(work.model) if work.model.is_file() else None
    return "" if card is None else tiles_told(card, work.model)


def _nnunets(work: Work) -> list[tuple[str, str]]:
    """nnU-Net's command for each results folder of the student."""
    folders = sorted(p.parent for p in (work.out / "student" / "nnunet").glob("*/*/plans.json"))
    card = read_card(work.model) if folders and work.model.is_file() else None
    if card is None:
        return []
    step = 1 - student_overlap(settings=card.extra.get("settings") or {}, path=work.model)
    return [("" if number else "In nnU-Net’s hands", predict_command(folder, round(step, 6)))
            for number, folder in enumerate(folders)]  # fmt: skip
