"""Which experts' passes can go, structure by structure, and which to keep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from common.errors import DataError

__all__ = [
    "AGREES",
    "AS_GOOD",
    "FOUND",
    "GO",
    "KEEP",
    "NEITHER",
    "UNSEEN",
    "Pass",
    "Row",
    "Verdict",
    "passes",
    "rows_from",
    "verdicts",
]

AS_GOOD = 0.95  # of the expert's Dice that the student must reach where there are labels
FOUND = 0.5  # Dice of a structure that an expert finds
AGREES = 0.9  # Dice between the student and the expert where there are none

GO, KEEP, NEITHER, UNSEEN = "go", "keep", "neither", "unseen"  # words of a verdict


class Row(NamedTuple):
    """What was measured of one structure in one scan that was held back; NaN where it cannot be.

    Args:
        task: whose scan.
        case: its id.
        structure: its name.
        expert: who knows the structure; empty where nobody but the label maps does.
        agreement: Dice between the student's answer and the expert's.
        student: Dice between the student's answer and the label map.
        own: Dice between the expert's answer and the label map.
    """

    task: str
    case: str
    structure: str
    expert: str
    agreement: float
    student: float
    own: float


class Verdict(NamedTuple):
    """Of one structure and one expert.

    Args:
        expert: its name.
        structure: its name.
        scans: in which the structure was seen by one of those that are compared.
        agreement: mean over them.
        student: mean Dice of the student against labels, NaN without.
        own: the expert's.
        word: ``go`` where the student answers as well, ``keep`` where it does not, ``neither`` where label maps say
            that neither of them finds the structure, ``unseen`` where no scan says it.
    """

    expert: str
    structure: str
    scans: int
    agreement: float
    student: float
    own: float
    word: str


class Pass(NamedTuple):
    """Of one expert.

    Args:
        expert: its name.
        goes: whether its pass can go; of a pass that finds nothing at all it is not said.
        kept_for: structures for which it is kept.
        unseen: structures of which no scan says anything.
        poor: structures that neither the expert nor the student finds: they speak neither for the pass nor against it.
    """

    expert: str
    goes: bool
    kept_for: tuple[str, ...]
    unseen: tuple[str, ...]
    poor: tuple[str, ...] = ()

    @property
    def stays(self) -> bool:
        """Whether it is to keep: the student does not answer as well, or nobody knows."""
        return bool(self.kept_for or self.unseen)


def rows_from(data: Sequence[Mapping[str, Any]], *, where: object | None = None, hint: str | None = None) -> list[Row]:
    """Rows of a file.

    Args:
        data: what it holds.
        where: the file, for the message.
        hint: what to do next.

    Raises:
        DataError: for what are none.
    """
    texts, numbers = Row._fields[:4], Row._fields[4:]
    found = []
    for one in data:
        good = isinstance(one, Mapping) and set(one) == set(Row._fields) and all(isinstance(one[t], str) for t in texts)
        if not good or not all(type(one[n]) in (int, float) and not abs(one[n]) > 1 for n in numbers):
            raise DataError("a row of the scores cannot be read", where=where, got=f"{one!a:.200}",
                            expected=", ".join(Row._fields), hint=hint)  # fmt: skip
        found.append(Row(**one))
    return found


def verdicts(rows: Iterable[Row]) -> list[Verdict]:
    """Means over scans, and what they say.

    With label maps the student must reach :data:`AS_GOOD` of the expert's mean Dice on the scans that both were scored
    on; where both stay below :data:`FOUND`, neither finds the structure, whoever is ahead by a little. Without label
    maps the student must agree with the expert by :data:`AGREES`.

    Args:
        rows: all that was measured; those without expert are left out.
    """
    own: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.expert:
            own.setdefault((row.expert, row.structure), []).append(row)
    return [_verdict(expert, structure, found) for (expert, structure), found in own.items()]


def _verdict(expert: str, structure: str, rows: Sequence[Row]) -> Verdict:
    agreement = [r.agreement for r in rows if math.isfinite(r.agreement)]
    scored = [r for r in rows if math.isfinite(r.student) and math.isfinite(r.own)]
    student, other = _mean([r.student for r in scored]), _mean([r.own for r in scored])
    seen = sum(math.isfinite(r.agreement) or math.isfinite(r.student) for r in rows)
    if scored and student < FOUND > other:
        word = NEITHER
    elif scored:
        word = GO if student >= AS_GOOD * other else KEEP
    elif agreement:
        word = GO if _mean(agreement) >= AGREES else KEEP
    else:
        word = UNSEEN
    return Verdict(expert, structure, seen, _mean(agreement), student, other, word)


def passes(found: Sequence[Verdict]) -> list[Pass]:
    """Whether each expert's pass can go: it can when the student answers as well for all that the expert finds."""
    result = []
    for expert in dict.fromkeys(v.expert for v in found):
        own = [v for v in found if v.expert == expert]
        kept, unseen, poor = (tuple(v.structure for v in own if v.word == word) for word in (KEEP, UNSEEN, NEITHER))
        goes = not kept and not unseen and len(poor) < len(own)
        result.append(Pass(expert, goes, kept, unseen, poor))
    return result


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
