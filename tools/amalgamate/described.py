"""Experts in any form that they come in: descriptions, results folders of nnU-Net, MONAI bundles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.backbones.nnunet.folds import folds_there
from common.command_words import shown_option
from common.errors import AmalgamationError, ConfigError, ExpertError, few
from common.experts.describe import describe_expert, kind_of, known_orientation
from common.experts.expert_set import check_unchanged
from common.experts.spec import ExpertSpec, describe_hint, read_manifest
from common.experts.training_files import said_beside
from common.literals import disk_name, file_name, odd_in

from ..experts.describe import agreed
from ..experts.told import told as said
from ..terminal import say
from .lessons import LABELS

__all__ = ["Told", "read_experts"]


@dataclass(frozen=True)
class Told:
    """What a user says of the nnU-Nets that come as results folders; descriptions say it themselves.

    Args:
        orientation: axis codes of the training files of those whose own files do not tell.
        training_files: in place of these the files: the scans, nnU-Net's raw folder of them, or the folder of all raw
            folders.
        folds: that answer together, ``0,1,2,3,4`` or ``all``; the first alone when None.
        profile: the program that they live in.
    """

    orientation: str | None = None
    training_files: str | None = None
    folds: str | None = None
    profile: str | None = None

    @property
    def options(self) -> dict[str, str]:
        """Those that were given."""
        return {k: str(v) for k, v in vars(self).items() if v is not None}


def read_experts(paths: Sequence[str | Path], *, trust: bool = False, told: Told | None = None) -> list[ExpertSpec]:
    """Descriptions of the experts: as they are written, else as their own files tell.

    Each gets a name of its own. They belong to no task: whoever can read a scan answers for it.

    Args:
        paths: descriptions (``expert.json``), results folders of nnU-Net or a folder that holds one, MONAI bundles.
        trust: open the code of MONAI bundles without asking.
        told: of the nnU-Nets that are described here.

    Raises:
        ConfigError: for no expert, a bundle's code that nobody agrees to, or options that concern none of the experts.
        ExpertError: for what cannot be opened, or was changed since it was described.
    """
    told = told or Told()
    if not paths:
        raise ConfigError("no expert is given", expected="results folders of nnU-Net, bundles or expert.json files",
                          hint="python -m tools amalgamate EXPERT EXPERT --scans ct=FOLDER")  # fmt: skip
    twice = [str(p) for p in dict.fromkeys(paths) if list(paths).count(p) > 1]
    if twice:
        raise ConfigError("an expert is given twice", got=few(twice), expected="each once")
    places = [_place(Path(path)) for path in paths]
    bare = [p for p in places if (p / "plans.json").is_file()]
    if told.options and not bare:
        raise ConfigError("these options are of results folders of nnU-Net, and none is given",
                          got=" ".join(shown_option(k, v) for k, v in told.options.items()),
                          hint=describe_hint("FOLDER", "", "...") + " says it of one expert")  # fmt: skip
    silent = [p for p in bare if told.profile is not None or not known_orientation(p)]
    specs = [spec for p in places for spec in _read(p, trust, told, asked=p in silent or not silent)]
    if not specs:
        raise ConfigError("no expert is described there", where=few([str(p) for p in places]),
                          expected="at least one", hint=describe_hint("FOLDER", "", ""))  # fmt: skip
    _check_different(specs)
    return list(_named(specs))


def _check_different(specs: Sequence[ExpertSpec]) -> None:
    """Refuse one model under two paths: its word would count twice."""
    owners: dict[tuple[object, ...], ExpertSpec] = {}
    for spec in specs:
        first = owners.setdefault((spec.sha256 or spec.path, spec.folds), spec)
        if first is not spec:
            raise ConfigError("an expert is given twice: these are the same files", where=spec.path, got=first.path,
                              expected="each once", hint="leave one of them out")  # fmt: skip


def _place(path: Path) -> Path:
    """The expert's own folder, where a folder holds one nnU-Net."""
    below = sorted(p.parent for p in path.glob("*/plans.json")) if path.is_dir() else []
    return below[0] if len(below) == 1 and not (path / "plans.json").is_file() else path


def _read(path: Path, trust: bool, told: Told, *, asked: bool) -> Iterator[ExpertSpec]:
    """Experts of a file or folder; ``asked`` whether the orientation that somebody tells is this one's."""
    if path.is_file() and path.suffix == ".json":
        for spec in read_manifest(path):
            check_unchanged(spec, _again(spec, path))
            yield replace(spec, role="external", task="")
        return
    kind = kind_of(path)
    if kind == "torchscript":
        raise ExpertError("a TorchScript file does not say what it answers", where=path, expected="its description",
                          hint=describe_hint(path, "", "--labels liver=1 --channels CT"))  # fmt: skip
    whole = path.resolve()
    name = whole.parent.name if kind == "nnunet" else whole.name
    name = file_name(name) if odd_in(name) else name
    if kind == "bundle":
        yield describe_expert(path, name=name, role="external", trusted=agreed(path, trust))
        return
    yield _described(path, name, told if asked else replace(told, orientation=None, training_files=None))


def _described(path: Path, name: str, given: Told) -> ExpertSpec:
    """An nnU-Net by its folder; a refusal says how to describe it by itself."""
    raw = path.resolve().parent.name
    files = given.training_files
    if files is not None and (Path(files) / raw).is_dir():
        files = str(Path(files) / raw)
    try:
        known = said(path, orientation=given.orientation, training_files=files, folds=given.folds,
                     fold=None if given.folds else _fold(path), profile=given.profile)  # fmt: skip
        spec = describe_expert(path, name=name, role="external", **known)
        for line in () if files is None else said_beside(files, spec.channels):
            say(f"{name}: {line}", error=True)
        return spec
    except AmalgamationError as error:
        file = f"{file_name(name)}.json"
        alone = describe_hint(path, "", shown_option("training_files", f"nnUNet_raw/{raw}"), out=file)
        hint = f"{error.hint or 'look at its files'}; or describe this expert by itself, and give {file} in the " \
               f"folder's place: {alone}"  # fmt: skip
        raise type(error)(error.problem, where=error.where or path, got=error.got, expected=error.expected, hint=hint
                          ) from error  # fmt: skip


def _fold(path: Path) -> int | str | None:
    """The fold, where there is but one; where there are several, the first answers, and this is said."""
    there = folds_there(path, error=ExpertError)
    if len(there) == 1:
        return there[0] if there[0] == "all" else int(there[0])
    if "0" in there:
        say(f"{path.resolve().parent.name}: fold 0 answers, of {', '.join(there)}; with --folds all they answer "
            "together, as nnUNetv2_predict lets them", error=True)  # fmt: skip
    return None


def _again(spec: ExpertSpec, file: Path) -> str:
    """How to describe an expert that was changed, in the way that it was described."""
    told = {"orientation": spec.orientation, "folds": ",".join(map(str, spec.folds)) if spec.folds[1:] else None,
            "map": ",".join(f"{old}={new}" for old, new in spec.renamed.items()) or None,
            "profile": None if spec.profile is None else str(spec.profile["program"]).lower()}  # fmt: skip
    if spec.kind == "torchscript":
        labels = zip(spec.labels.names, spec.labels.values, strict=True)
        told |= {"labels": ",".join(f"{n}={v}" for n, v in labels), "channels": ",".join(spec.channels)}
    more = " ".join(shown_option(k, v) for k, v in {**told, "overwrite": True}.items() if v is not None)
    line = describe_hint(spec.path, spec.task, more, out=file)
    return f"put its files back; or, where the change is meant, describe it again: {line}"


def _named(specs: Sequence[ExpertSpec]) -> Iterator[ExpertSpec]:
    """The same, each with a name that no disk takes for another's."""
    used = {disk_name(LABELS)}
    for spec in specs:
        name, number = spec.name, 1
        while disk_name(name) in used:
            number += 1
            name = f"{spec.name} {number}"
        used.add(disk_name(name))
        yield spec if name == spec.name else replace(spec, name=name)
