"""The step that leaves experts beside the student, and scores both together on the scans held back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.data.datasets.datalist import items
from common.errors import ConfigError
from common.experts.answers.beside import Kept, write_kept
from common.experts.spec import ExpertSpec
from common.overlap import dice
from common.weights import read_card

from .measured import masks_of
from .scores import SPLIT, annotated, inferred, read_map
from .verdict import KEEP, UNSEEN, Row, Verdict, rows_from, verdicts
from .work import Work

__all__ = ["beside", "decided", "stay_lines", "together"]


def beside(work: Work) -> dict[str, Any]:
    """Say beside the weights which experts stay and about what they decide, and score student and experts together.

    Nobody is asked who answered about these scans for the scores.

    Args:
        work: the folder, with its trained student and the scores.

    Returns:
        ``experts``: the structures about which each that stays decides, none where the student needs none of it;
        ``rows`` with ``task``, ``case``, ``structure`` and ``dice`` against label maps.

    Raises:
        ConfigError: for a student whose card is not there.
    """
    card = read_card(work.model)
    if card is None:
        raise ConfigError("the student has no card that names its structures", where=work.model)
    rows, names = verdicts(rows_from(work.result("scores")["rows"])), card.labels.names
    specs = [spec for spec in work.specs if spec.name in work.kept]
    stays = {spec.name: decided(spec, rows, names) for spec in specs}
    kept = [Kept(spec, stays[spec.name]) for spec in specs if stays[spec.name]]
    write_kept(work.model, kept)
    experts = {name: list(own) for name, own in stays.items()}
    entries = items(work.collection, SPLIT)
    if not entries or not kept:
        return {"experts": experts, "rows": []}
    folder = work.out / "beside" / "predictions"
    told = inferred(work, folder, entries, experts)
    found = [row for entry in entries for row in _rows(entry, work, folder, told["structures"])]
    return {"experts": experts, "rows": found}


def decided(spec: ExpertSpec, found: Sequence[Verdict], structures: Sequence[str]) -> tuple[str, ...]:
    """The structures about which an expert that stays decides.

    Those for which it is to keep, and those that no scan held back shows; where nothing of it was scored, all that it
    and the student know.

    Args:
        spec: the expert.
        found: all verdicts.
        structures: the student's.
    """
    own = {v.structure: v.word for v in found if v.expert == spec.name}
    return tuple(n for n in spec.labels.names if n in structures and own.get(n, UNSEEN) in (KEEP, UNSEEN))


def _rows(entry: Mapping[str, Any], work: Work, folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    task, case = str(entry["task"]), str(entry["case"])
    known = annotated(entry, work.collection) or {}
    own = masks_of(read_map(folder / task / f"{case}.nii.gz", case), names) if known else {}
    found = []
    for name in (n for n in own if n in known):
        value = dice(int((own[name] & known[name]).sum()), int(own[name].sum()), int(known[name].sum()))
        found += [{"task": task, "case": case, "structure": name, "dice": value}] if math.isfinite(value) else []
    return found


def together(rows: Sequence[Row], found: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """By expert and structure, the mean Dice of student and experts that stay on the scans of that verdict.

    Args:
        rows: of the scores.
        found: rows of this step.
    """
    value = {(str(r["task"]), str(r["case"]), str(r["structure"])): float(r["dice"]) for r in found}
    own: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        both = math.isfinite(row.student) and math.isfinite(row.own)
        if both and (row.task, row.case, row.structure) in value:
            own.setdefault((row.expert, row.structure), []).append(value[row.task, row.case, row.structure])
    return {key: sum(values) / len(values) for key, values in own.items()}


def stay_lines(experts: Mapping[str, Sequence[str]]) -> list[str]:
    """For people.

    Args:
        experts: as of :func:`beside`.
    """
    lines = [f"beside the student stays {name}, which decides about {', '.join(own)}; predict asks it, too, and with "
             "--keep False the student alone" for name, own in experts.items() if own]  # fmt: skip
    return lines + [f"{name} is asked about nothing: the student answers as well for all that it finds"
                    for name, own in experts.items() if not own]  # fmt: skip
