"""Which experts' passes stay beside a student: a file beside its weights, bound to them by their hash."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ...atomic import atomic_write
from ...errors import AmalgamationError, ConfigError, ExpertError, few
from ...integrity import file_hash
from ...plain_json import read_object
from ..expert_set import hash_expert
from ..spec import ExpertSpec

__all__ = ["ALONE", "Kept", "kept_file", "read_kept", "refusal", "write_kept"]

ALONE = "--keep False"
# What predict takes to run the student without the experts that were kept.
FORMAT = 1
_AGAIN = f"type amalgamate with --keep again, or run the student alone: {ALONE}"
_KEYS = ("decides", "expert")


class Kept(NamedTuple):
    """An expert that is asked beside the student.

    Args:
        spec: the expert.
        decides: names of the structures about which it decides in the student's place, some of both.
    """

    spec: ExpertSpec
    decides: tuple[str, ...]


def kept_file(model: str | Path) -> Path:
    """Where it is said which experts stay beside a student: ``model.kept.json`` beside ``model.pt``."""
    return Path(model).with_suffix(".kept.json")


def write_kept(model: str | Path, kept: Sequence[Kept]) -> Path:
    """Say it beside the weights; with no expert, nothing is there afterwards.

    Args:
        model: the student's weights.
        kept: the experts; their files' hashes are written, too.
    """
    file = kept_file(model)
    if not kept:
        file.unlink(missing_ok=True)
        return file
    specs = [replace(k.spec, path=str(Path(k.spec.path).resolve()), sha256=k.spec.sha256 or hash_expert(k.spec))
             for k in kept]  # fmt: skip
    entries = [{"expert": s.to_dict(), "decides": list(k.decides)} for s, k in zip(specs, kept, strict=True)]
    with atomic_write(file) as temporary:
        data = {"format": FORMAT, "model": file_hash(model), "kept": entries}
        temporary.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    return file


def read_kept(model: str | Path, structures: Sequence[str] | None = None, *, keep: bool = True) -> list[Kept]:
    """The experts that stay beside a student; none where nothing is said.

    Args:
        model: the student's weights.
        structures: the student's K names; None is not compared.
        keep: False for the student alone, whatever the file says.

    Raises:
        ConfigError: when the file cannot be read, or is of other weights or structures.
        ExpertError: for a description that is none.
    """
    file = kept_file(model)
    if not keep or not file.is_file():
        return []
    data = read_object(file, error=ConfigError, problem="cannot read which experts stay beside the student",
                       hint=_AGAIN)  # fmt: skip
    entries = data.get("kept")
    good = data.get("format") == FORMAT and isinstance(entries, list) and all(map(_is_entry, entries))
    if not good or set(data) != {"format", "kept", "model"}:
        raise ConfigError("this does not say which experts stay beside the student", where=file,
                          got=f"{data!a:.100}", expected='{"format": 1, "model": ..., "kept": [...]}',
                          hint=_AGAIN)  # fmt: skip
    if (found := file_hash(model)) != data["model"]:
        raise ConfigError("the experts that are said to stay belong to another student", where=file,
                          got=f"sha256 {found[:12]}...", expected=f"sha256 {str(data['model'])[:12]}...",
                          hint=_AGAIN)  # fmt: skip
    return [_kept(entry, file, structures) for entry in entries or ()]


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, Mapping) or tuple(sorted(entry)) != _KEYS or not isinstance(entry["decides"], list):
        return False
    return bool(entry["decides"]) and all(isinstance(name, str) for name in entry["decides"])


def _kept(entry: Mapping[str, Any], file: Path, structures: Sequence[str] | None) -> Kept:
    spec, decides = ExpertSpec.from_dict(entry["expert"], base=file.parent, where=file), tuple(entry["decides"])
    known = [n for n in spec.labels.names if structures is None or n in structures]
    unknown = [n for n in decides if n not in known]
    if unknown or len(set(decides)) != len(decides):
        raise ConfigError("an expert that stays decides about structures that both know, each once",
                          where=f"{file}, expert {spec.name!r}", got=few(unknown or decides), expected=few(known),
                          hint=_AGAIN)  # fmt: skip
    return Kept(spec, decides)


def refusal(kept: Kept, error: AmalgamationError) -> ExpertError:
    """What to do where an expert that stays cannot be asked: its files are missing, or others."""
    hint = f"put its files back, {_AGAIN}"
    return ExpertError(f"an expert that stays beside the student cannot be asked: {error.problem}",
                       where=f"expert {kept.spec.name!r} ({error.where or kept.spec.path})", got=error.got,
                       expected=error.expected, hint=hint)  # fmt: skip
