"""The description of an expert that somebody else trained, read from its files as far as these tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..backbones.nnunet.description import reorients
from ..backbones.nnunet.network import read_json
from ..command_words import shown_option
from ..data.intensity.volume import STATISTICS
from ..errors import ExpertError
from ..labels import LabelSpace
from ..paths import check_path
from .claims import called, check_claims
from .expert_set import Expert, describe_nnunet, hash_expert
from .kinds import ORIENTATION, SPACING, is_orientation, is_spacing
from .profile import HomeProfile
from .sources import Opened, bundle_metadata, open_source
from .spec import ExpertSpec

__all__ = ["describe_expert", "kind_of", "known_orientation"]

_PICTURES = "NaturalImage2D"
_AS_FILES = "leave --channels or --labels out, or give what the files say; correct the files where they are wrong"


def kind_of(path: str | Path) -> str:
    """What kind of expert lies there: ``nnunet``, ``bundle`` or ``torchscript``.

    Raises:
        ExpertError: when it is none of them.
    """
    place = check_path(path, error=ExpertError)
    if place.is_file() and place.suffix in (".ts", ".pt", ".jit"):
        return "torchscript"
    if (place / "plans.json").is_file():
        return "nnunet"
    if any((place / "configs" / f"inference.{suffix}").is_file() for suffix in ("json", "yaml", "yml")):
        return "bundle"
    below = sorted(p.parent for p in place.glob("*/plans.json")) if place.is_dir() else []
    raise ExpertError(
        "here is no expert that can be read", where=place, got="nothing" if not place.exists() else None,
        expected="a results folder of nnU-Net (with plans.json), a MONAI bundle (with configs/inference.json) or a "
                 "TorchScript file (.ts)",
        hint=f"did you mean {below[0]}?" if below else None,
    )  # fmt: skip


def describe_expert(
    path: str | Path, *, name: str, role: str = "task", task: str = "", labels: LabelSpace | None = None,
    channels: Sequence[str] | None = None, **given: Any,
) -> ExpertSpec:  # fmt: skip
    """Describe an expert, its hash included, after opening it.

    nnU-Net's folders tell everything, but for the orientation where its reader took the axes as files have them; a
    bundle's metadata tells structures and channels; of a TorchScript file both
    must be given. Spacing, orientation and normalisation of the latter two are those of the crops unless given.

    Args:
        path: results folder of nnU-Net, MONAI bundle, or TorchScript file.
        name: unique among the experts of a student.
        role: ``task`` or ``external``.
        task: dataset name of a task expert.
        labels: its structures, with the values that they have in its output.
        channels: image channels in the order that it reads them.
        given: further fields of :class:`~common.experts.spec.ExpertSpec`; a bundle is code, and opened only when
            ``trusted`` is its :func:`~common.experts.trust.code_hash`.

    Raises:
        ExpertError: when it cannot be opened, something must be told that its files do not tell, as the orientation
            of an nnU-Net's, what is told is not what the files or the network say, or a task's expert has structures
            that overlap.
    """
    kind, told = kind_of(path), {k: v for k, v in given.items() if v is not None}
    _check_told(told)
    if kind == "nnunet":
        told["orientation"] = _orientation(Path(path), told)
        more = {"labels": labels, "channels": None if channels is None else tuple(channels)}
        spec = describe_nnunet(
            Path(path).resolve(), name=name, role=role, task=task, **told, **{k: v for k, v in more.items() if v}
        )
        source = open_source(spec)
        _check_regions(spec, source.labels)
        check_claims(spec, source, hint=_AS_FILES)
        return spec
    known = bundle_metadata(Path(path) / "configs" / "metadata.json") if kind == "bundle" else (None, None)
    labels, channels = labels or known[0], channels or known[1]
    missing = [word for word, value in (("labels", labels), ("channels", channels)) if not value]
    if labels is None or channels is None or missing:
        got = f"no {' and no '.join(missing)}"
        expected = 'for example --labels liver=1,spleen=2 --channels "CT"'
        raise ExpertError("its files do not tell everything", where=path, got=got, expected=expected)
    labels = called(labels, told.get("renamed", {}))
    spec = ExpertSpec(name=name, kind=kind, path=str(Path(path).resolve()), role=role, task=task, labels=labels,
                      channels=tuple(channels), **told)  # fmt: skip
    source = open_source(spec)
    check_claims(spec, source, hint=_AS_FILES)
    _check_answer(spec, source)
    return replace(spec, sha256=hash_expert(spec))


def _check_told(told: dict[str, Any]) -> None:
    """Refuse a spacing and axis codes that are none, before anything is opened."""
    spacing, codes = told.get("spacing", (1, 1, 1)), told.get("orientation", "RAS")
    spacing = list(spacing) if isinstance(spacing, tuple) else spacing
    for key, given, fits, expected in (("spacing", spacing, is_spacing(spacing), SPACING),
                                       ("orientation", codes, is_orientation(codes), ORIENTATION)):  # fmt: skip
        if not fits:
            raise ExpertError(f"this is no {key}", where=f"--{key}", got=f"{given!a:.100}", expected=expected)


def known_orientation(folder: Path, profile: Mapping[str, Any] | None = None) -> dict[str, str]:
    """``{who says it: axis codes}`` of an nnU-Net's training scans, as far as its files or its home tell.

    Args:
        folder: results folder.
        profile: of its home, in plain JSON.
    """
    plans, reader = read_json(folder / "plans.json"), _reader(folder)
    home = None if profile is None else HomeProfile.from_dict(profile, where=folder).orientation
    known = {"its home profile": home, f"nnU-Net's {reader!a}": "RAS" if reorients(plans) else None}
    return {whose: codes for whose, codes in known.items() if codes is not None}


def _reader(folder: Path) -> str:
    return str(read_json(folder / "plans.json").get("image_reader_writer", ""))


def _orientation(folder: Path, told: Mapping[str, Any]) -> str | None:
    """The axes that an nnU-Net learned on: its reader's, its home's, or those that somebody tells."""
    reader, given = _reader(folder), told.get("orientation")
    known = known_orientation(folder, told.get("profile"))
    for whose, codes in known.items():
        if given not in (None, codes):
            raise ExpertError("scans were turned to another orientation before this expert saw them", where=folder,
                              got=shown_option("orientation", given), expected=f"{codes}, by {whose}",
                              hint="leave it out")  # fmt: skip
    found = given or next(iter(known.values()), None)
    if found is None and _PICTURES not in reader:
        raise ExpertError(
            "nobody tells how this expert's training scans lay: nnU-Net's reader took the axes as the files have them",
            where=folder, got=f"image_reader_writer {reader!a}", expected="the training files, or their orientation",
            hint="--training_files nnUNet_raw/DatasetXXX_Name looks at them; or --orientation LPS, RAS, ...",
        )  # fmt: skip
    return found


def _check_answer(spec: ExpertSpec, source: Opened) -> None:
    """Ask the network once, about nothing: it must read the channels and answer for the structures that are told."""
    try:
        expert = Expert(spec=spec, source=source)
        size = expert.frame.padded(expert.frame.divisor)
        device = next((p.device for p in expert.network.parameters()), torch.device("cpu"))
        raw, stats = (
            torch.zeros(1, len(spec.channels), *size, device=device),
            torch.ones(1, len(spec.channels), len(STATISTICS)),
        )
        answer = expert.logits(raw, stats.to(device), spec.spacing or (1.0, 1.0, 1.0), spec.orientation or "RAS")
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ExpertError(
            "the network does not read what is told of it", where=f"expert {spec.name!r} ({spec.path})",
            got=ascii(str(error).strip())[1:200], expected=f"channels {', '.join(spec.channels)}",
            hint="give --channels as many names as the network reads; --divisor where its sizes must be multiples",
        ) from error  # fmt: skip
    count = len(spec.labels) + spec.labels.exclusive
    if answer.shape[1] != count:
        raise ExpertError(
            "the network answers for another number of structures",
            where=f"expert {spec.name!r} ({spec.path})",
            got=f"{answer.shape[1]} channels of output",
            expected=f"{count}: background, {', '.join(spec.labels.names)}",
            hint="--labels name every structure of its output, in order",
        )


def _check_regions(spec: ExpertSpec, labels: LabelSpace | None) -> None:
    """Refuse regions of a task's expert: the task's label maps have one structure per voxel, regions overlap."""
    if spec.role == "task" and labels is not None and not labels.exclusive:
        raise ExpertError(
            "a region-based nnU-Net cannot be a task's expert: its structures overlap",
            where=spec.path,
            got=f"regions {', '.join(labels.names)}",
            expected="labels of one value each, as in the task's label maps",
            hint="take it as a task-agnostic expert: --external True in the place of --task",
        )
