"""The description of an expert that somebody else trained, read from its files as far as these tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ExpertError
from ..labels import LabelSpace
from .expert_set import describe_nnunet, hash_expert
from .sources import bundle_metadata, open_source
from .spec import ExpertSpec

__all__ = ["describe_expert", "kind_of"]


def kind_of(path: str | Path) -> str:
    """What kind of expert lies there: ``nnunet``, ``bundle`` or ``torchscript``.

    Raises:
        ExpertError: when it is none of them.
    """
    place = Path(path)
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

    nnU-Net's folders tell everything; a bundle's metadata tells structures and channels; of a TorchScript file both
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
        ExpertError: when it cannot be opened, something must be told that its files do not tell, or a task's expert
            has structures that overlap.
    """
    kind, told = kind_of(path), {k: v for k, v in given.items() if v is not None}
    if "spacing" in told:
        told["spacing"] = tuple(float(s) for s in told["spacing"])
    if kind == "nnunet":
        more = {"labels": labels, "channels": None if channels is None else tuple(channels)}
        spec = describe_nnunet(
            Path(path).resolve(), name=name, role=role, task=task, **told, **{k: v for k, v in more.items() if v}
        )
        _check_regions(spec, open_source(spec).labels)
        return spec
    known = bundle_metadata(Path(path) / "configs" / "metadata.json") if kind == "bundle" else (None, None)
    labels, channels = labels or known[0], channels or known[1]
    missing = [word for word, value in (("labels", labels), ("channels", channels)) if not value]
    if labels is None or channels is None or missing:
        got = f"no {' and no '.join(missing)}"
        expected = 'for example --labels liver=1,spleen=2 --channels "CT"'
        raise ExpertError("its files do not tell everything", where=path, got=got, expected=expected)
    spec = ExpertSpec(name=name, kind=kind, path=str(Path(path).resolve()), role=role, task=task, labels=labels,
                      channels=tuple(channels), **told)  # fmt: skip
    open_source(spec)
    return replace(spec, sha256=hash_expert(spec))


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
