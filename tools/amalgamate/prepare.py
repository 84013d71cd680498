"""Before anything is asked or trained: experts described, scans listed, and what will be taught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.data.datasets.datalist import Collection
from common.errors import ConfigError, DataError, few
from common.experts.regions import taught_space
from common.experts.spec import ExpertSpec, write_manifest
from common.modalities import is_ct

from ..terminal import console, say
from .described import Told, read_experts
from .gather import gather
from .given import Given, folders
from .lessons import check_taught, doubts, idle, lessons, lessons_table, unread
from .work import Wanted, Work

__all__ = ["prepare", "started", "staying"]


def prepare(
    experts: Sequence[str | Path],
    scans: Given,
    labels: Given,
    out: Path,
    *,
    wanted: Mapping[str, Any],
    structures: Mapping[str, int] | None = None,
    share: float = 0.2,
    trust: bool = False,
    told: Told | None = None,
    start_from: str = "auto",
    keep: str | Sequence[str] = (),
) -> Work:
    """Describe the experts, list the scans and say what will be taught.

    Args:
        experts: as of :func:`amalgamate`.
        scans: also.
        labels: also.
        out: the folder.
        wanted: fields of :class:`.work.Wanted`.
        structures: values of the label maps by name.
        share: of scans held back.
        trust: as of :func:`amalgamate`.
        told: what a user says of results folders.
        start_from: also.
        keep: also.

    Raises:
        ConfigError: for an option that is none.
        DataError: for scans that cannot be read, or about which nobody teaches.
        ExpertError: for experts that cannot be opened, or read no scan.
    """
    if not scans:
        raise ConfigError("no scans are given", where="--scans", expected="ct=FOLDER, for example")
    chosen = Wanted(**wanted)
    given = folders(scans, "scans"), folders(labels, "labels") if labels else []
    specs = read_experts(experts, trust=trust, told=told)
    stay = staying(specs, keep)
    collection = gather(*given, specs, out / "collection", structures=structures, share=share)
    for doubt in doubts(specs, collection):
        if doubt.severity == "error":
            raise DataError(doubt.problem, where=", ".join(doubt.tasks), got=doubt.got, hint=doubt.hint)
        say(f"{', '.join(doubt.tasks)}: {doubt.got}; {doubt.hint}", error=True)
    found = lessons(specs, collection, labels_used=chosen.labels_used)
    check_taught(found, collection)
    console().print(lessons_table(found))
    for line in idle(specs, collection):
        say(line, error=True)
    write_manifest(out / "experts.json", specs)
    for number, spec in enumerate(specs):
        write_manifest(out / "experts" / f"{number}.json", [spec])
    work = Work(out, Wanted(**{**wanted, "start_from": started(specs, collection, start_from, chosen.student)}))
    work.write()
    work.keep(stay)
    return work


def staying(specs: Sequence[ExpertSpec], given: str | Sequence[str]) -> tuple[str, ...]:
    """The names of the experts whose passes stay beside the student.

    Args:
        specs: the experts.
        given: a name, several with commas between them, or a list of them.

    Raises:
        ConfigError: for an expert that there is not.
    """
    names = [s.name for s in specs]
    words = list(given) if not isinstance(given, str) else [given] if given in names else given.split(",")
    found = [w.strip() for w in words if w.strip()]
    if unknown := [w for w in found if w not in names]:
        raise ConfigError("there is no such expert to keep", where="--keep", got=few(unknown), expected=few(names),
                          hint="by its name, several with commas between them")  # fmt: skip
    return tuple(n for n in names if n in found)


def started(specs: Sequence[ExpertSpec], collection: Collection, given: str, student: str) -> str:
    """The name of the expert from which the student starts; empty for none.

    Args:
        specs: the experts.
        collection: the scans.
        given: a name, ``auto`` or ``none``.
        student: ``nnunet`` or another kind, which starts from none.

    Raises:
        ConfigError: for an expert that there is not, or that is no nnU-Net.
    """
    fitting = [s for s in specs if s.kind == "nnunet" and set(s.labels.names) & set(taught_space(s).names)
               and taught_space(s).exclusive]  # fmt: skip
    if given == "auto":
        own = [(_rank(s, collection), s.name) for s in fitting if s.configuration != "2d"]
        return max(own)[1] if own and student == "nnunet" else ""
    if given == "none":
        return ""
    if given not in [s.name for s in fitting]:
        raise ConfigError("the student cannot start from this expert", where="--start_from", got=given,
                          expected=", ".join(s.name for s in fitting) or "none: no nnU-Net is given")  # fmt: skip
    return given


def _rank(spec: ExpertSpec, collection: Collection) -> tuple[int, bool, bool, int]:
    """How much a student gets of an expert's plans: scans' kinds that it reads, CT's intensities, its structures.

    Of one whose structures overlap it gets fewer rows of the head, and none of the background.
    """
    read = [d for d in collection.datasets if not unread(spec, d)]
    ct = any(is_ct(c) for d in read for c in d.channels)
    return len(read), ct, spec.labels.exclusive, len(spec.labels)
