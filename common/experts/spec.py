"""What must be known about an expert before its weights are opened, and the list of a student's experts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..atomic import atomic_write
from ..command_words import shown, shown_option, shown_place
from ..errors import AmalgamationError, ExpertError, LabelError
from ..labels import LabelSpace
from ..literals import check_channel, check_name, odd_in
from ..paths import check_path
from ..plain_json import read_object
from .kinds import check_kinds
from .profile import HomeProfile

__all__ = ["ExpertSpec", "describe_hint", "named", "read_manifest", "train_hint", "write_manifest"]

KINDS = ("nnunet", "bundle", "torchscript")
ROLES = ("task", "external")
FORMAT = 1


@dataclass(frozen=True)
class ExpertSpec:
    """What must be known about an expert before its weights are opened.

    Args:
        name: unique among the experts of a student.
        kind: ``nnunet`` (results folder), ``bundle`` (MONAI bundle folder) or ``torchscript`` (file).
        path: folder or file.
        role: ``task`` (expert of one task of the collection) or ``external`` (task-agnostic).
        task: dataset name that it belongs to; empty for an external expert.
        labels: the structures that it predicts.
        channels: image channel names in the order that it reads them.
        spacing: mm per voxel in x, y, z that it was trained with; None keeps the crop's.
        orientation: axis codes that it was trained with; None when it saw native directions.
        features: module whose output is taken; nnU-Net experts need none (all encoder stages).
        configuration: nnU-Net configuration, when the folder holds several.
        fold: nnU-Net fold, or several that answer together as one expert.
        checkpoint: weight file, relative to the fold (nnU-Net) or to the bundle.
        sha256: hash of the files that decide what it computes; empty is not checked.
        trusted: of a MONAI bundle, which is code: :func:`.trust.code_hash` of what somebody agreed to run.
        extra: ``normalise`` (scheme, low, high, ...), ``divisor`` for bundles and TorchScript.
        renamed: ``{name in its own files: name in labels}`` of structures that are called otherwise here.
        profile: how the program that it lives in asks it, where that does more than nnU-Net (:mod:`.profile`).

    Raises:
        ExpertError: for a field of a wrong kind or range, a task expert without a task, a name that is none, or a
            checkpoint that lies outside of the expert.
    """

    name: str
    kind: str
    path: str
    labels: LabelSpace
    channels: tuple[str, ...]
    role: str = "task"
    task: str = ""
    spacing: tuple[float, float, float] | None = None
    orientation: str | None = "RAS"
    features: str | None = None
    configuration: str | None = None
    fold: int | str | tuple[int | str, ...] = 0
    checkpoint: str | None = None
    sha256: str = ""
    trusted: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    profile: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.path, Path):
            object.__setattr__(self, "path", str(self.path))
        check_kinds(self)
        HomeProfile.of(self)
        object.__setattr__(self, "channels", tuple(self.channels))
        where = f"expert {self.name!a}"
        for name, what in [(self.name, "expert"), *([(self.task, "task")] if self.task else [])]:
            check_name(name, what, where=where, error=ExpertError)
        for channel in self.channels:
            check_channel(channel, where=where, error=ExpertError)
        if self.checkpoint is not None:
            _check_inside(self.checkpoint, self.name)
        if self.kind not in KINDS:
            raise ExpertError("unknown kind of expert", where=self.name, got=self.kind, expected=", ".join(KINDS))
        if self.role not in ROLES:
            raise ExpertError("unknown role of an expert", where=self.name, got=self.role, expected=", ".join(ROLES))
        if self.role == "task" and not self.task:
            raise ExpertError("a task expert needs the name of its task", where=self.name, expected="a dataset name")
        unknown = [new for new in self.renamed.values() if new not in self.labels.names]
        if unknown or len(set(self.renamed.values())) != len(self.renamed):
            raise ExpertError("structures are renamed to what the expert is not said to know",
                              where=f"expert {self.name!a}", got=ascii(self.renamed)[:200],
                              expected=", ".join(self.labels.names))  # fmt: skip

    @property
    def folds(self) -> tuple[int | str, ...]:
        """The folds that answer together; one, for most."""
        return self.fold if isinstance(self.fold, tuple) else (self.fold,)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, base: Path | None = None, where: object | None = None) -> ExpertSpec:
        """Read a specification; a relative path is taken from ``base``.

        Args:
            data: its entries.
            base: the folder of the file.
            where: the file; its folder when None.

        Raises:
            ExpertError: when an entry is unknown or missing.
        """
        place = base if where is None else where
        if not isinstance(data, Mapping):
            raise ExpertError("the description of an expert is a mapping", where=place, got=f"{data!a:.100}")
        names = {f.name for f in fields(cls)}
        needed = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
        unknown, missing = [k for k in data if k not in names], sorted(needed - set(data))
        if unknown or missing:
            got = f"unknown: {', '.join(map(ascii, unknown))}" if unknown else f"missing: {', '.join(missing)}"
            raise ExpertError(
                "cannot read the description of an expert", where=place, got=got, expected=", ".join(sorted(names))
            )
        try:
            labels = LabelSpace.from_dict(data["labels"])
        except LabelError as error:
            problem = f"the expert's labels: {error.problem}"
            told = ", ".join([*([] if place is None else [str(place)]), f"expert {data['name']!a:.100}"])
            raise ExpertError(problem, where=told, got=error.got, expected=error.expected) from error
        try:
            spec = cls(**{**data, "labels": labels})
        except AmalgamationError as error:
            if place is None:
                raise
            told = f"{place}, {error.where or 'an expert'}"
            raise type(error)(error.problem, where=told, got=error.got, expected=error.expected, hint=error.hint
                              ) from error  # fmt: skip
        if base is None:
            return spec
        told = f"{place}, expert {spec.name!r}"
        return replace(spec, path=str(check_path(base / spec.path, where=told, error=ExpertError).resolve()))

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for ``expert.json`` and ``experts.json``; what few experts have is left out of the others'."""
        data = {k: v for k, v in asdict(self).items() if v or k not in ("renamed", "profile")}
        spacing = None if self.spacing is None else list(self.spacing)
        fold = list(self.fold) if isinstance(self.fold, tuple) else self.fold
        plain = {"labels": self.labels.to_dict(), "channels": list(self.channels), "spacing": spacing, "fold": fold}
        return {**data, **plain}


def _check_inside(checkpoint: str, name: str) -> None:
    """Refuse a weight file that is named by a path out of the expert's folder."""
    parts = checkpoint.split("/")
    if any(odd_in(p, file_name=True) for p in parts) or ":" in checkpoint:
        problem = "the checkpoint lies outside of the expert's folder"
        expected = "a relative path below it, such as models/model.pt"
        hint = "copy the file there"
        raise ExpertError(problem, where=f"expert {name!a}", got=ascii(checkpoint), expected=expected, hint=hint)


def named(spec: ExpertSpec, error: AmalgamationError, hint: str | None = None) -> ExpertError:
    """The same refusal with the expert's name before its place; the hint is for an error that has none."""
    where = f"expert {spec.name!r}" + (f" ({error.where})" if error.where else "")
    return ExpertError(error.problem, where=where, got=error.got, expected=error.expected, hint=error.hint or hint)


def train_hint(task: str) -> str:
    """The command that trains the expert of a task."""
    return (
        "train it: python -m monai.bundle run --config_file bundles/ka2er_expert/configs/train.json"
        f" --dataset_dir <collection>/{shown(task) if task else '<dataset>'}"
    )


def describe_hint(path: str | Path, task: str = "", more: str = "", *, out: str | Path = "expert.json") -> str:
    """The command that describes an expert.

    Args:
        path: its folder or file.
        task: whose expert it is; empty for one that belongs to none.
        more: further options.
        out: the description.
    """
    whose = shown_option("task", task) if task else "--external True"
    words = "python -m tools experts describe", shown_place(path), shown_place(out), whose, more
    return " ".join(filter(None, words))


def read_manifest(path: str | Path) -> list[ExpertSpec]:
    """Read ``experts.json`` (``{"format": 1, "experts": [...]}``); paths are relative to it."""
    file = Path(path)
    hint = "python -m tools chain run ka2er --dataset_dir <collection> trains experts and writes it"
    data = read_object(file, error=ExpertError, problem="cannot read the list of experts", hint=hint)
    entries = data.get("experts", [data])
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        got = f'"experts": {entries!a:.100}'
        expected = '"experts": [{...}, ...]'
        raise ExpertError("cannot read the list of experts", where=file, got=got, expected=expected, hint=hint)
    if data.get("format", FORMAT) != FORMAT:
        raise ExpertError("unknown format", where=file, got=data.get("format"), expected=FORMAT)
    return [ExpertSpec.from_dict(entry, base=file.parent, where=file) for entry in entries]


def write_manifest(path: str | Path, specs: Iterable[ExpertSpec]) -> Path:
    """Write ``experts.json``; paths below its folder become relative, so that the folder can be moved."""
    file = Path(path)
    entries = []
    for spec in specs:
        entry, target = spec.to_dict(), Path(spec.path).resolve()
        if target.is_relative_to(file.parent.resolve()):
            entry["path"] = target.relative_to(file.parent.resolve()).as_posix()
        entries.append(entry)
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps({"format": FORMAT, "experts": entries}, indent=4) + "\n", encoding="utf-8")
    return file
