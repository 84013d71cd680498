"""Experts: frozen networks that were trained elsewhere and answer on the student's own crop."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.datasets.datalist import Collection, read_collection
from ..data.intensity.volume import STATISTICS
from ..errors import AmalgamationError, ExpertError
from ..labels import LabelSpace
from .claims import called, check_claims
from .features import Heard, first_tensor
from .fit import check_expert, check_voxels
from .frame import Placement
from .sources import Opened, files_of, hash_files, open_source
from .spec import ExpertSpec, named, read_manifest, train_hint
from .windows import in_windows, window

__all__ = ["Expert", "ExpertSet", "check_unchanged", "describe_nnunet", "hash_expert", "load_experts"]

logger = logging.getLogger(__name__)


class Expert(nn.Module):
    """A frozen network that reads the student's crop in its own axes, spacing and normalisation.

    Args:
        spec: its description.
        source: its opened files.
        resample: bring crops to the expert's spacing.

    Attributes:
        channels_of_features: channels of each feature map, deepest last.
        calls: how often features or logits were computed.
    """

    def __init__(self, *, spec: ExpertSpec, source: Opened, resample: bool = True) -> None:
        super().__init__()
        self.spec, self.frame, self.resample, self.calls = spec, source.frame, resample, 0
        self.network = source.network.eval()
        for parameter in self.network.parameters():  # scripted modules have no requires_grad_()
            parameter.requires_grad_(False)
        self._encode, self._normalise, self._patch = source.encode, source.normalise, source.patch
        self.channels_of_features = self._probe()

    def train(self, mode: bool = True) -> Expert:
        """An expert never trains: it stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def _probe(self) -> list[int]:
        size = self.frame.padded(self.frame.divisor)
        device = next((p.device for p in self.network.parameters()), torch.device("cpu"))
        probe = torch.zeros(1, len(self._normalise), *size, device=device)
        return [int(t.shape[1]) for t in self._asked(self._encode, probe)]

    def _asked(self, ask: Callable[[Tensor], list[Tensor]], x: Tensor) -> list[Tensor]:
        """Maps of a padded crop in this expert's frame; in windows where it is large, by slices where it is 2-D."""
        size = window(self._patch, self.frame.divisor, x.shape[2:])
        if size is not None:
            return in_windows(partial(self._at_once, ask), x, size, self.frame.divisor)
        return self._at_once(ask, x)

    def _at_once(self, ask: Callable[[Tensor], list[Tensor]], x: Tensor) -> list[Tensor]:
        if not self.frame.planar:
            return ask(x)
        return [_unslice(t, x.shape[0]) for t in ask(_slices(x))]

    def _features_and_logits(self, x: Tensor) -> list[Tensor]:
        together = getattr(self._encode, "both", None)
        found = Heard(self._encode(x), first_tensor(self.network(x))) if together is None else together(x)
        return [*found.features, found.logits]

    def _logits(self, x: Tensor) -> list[Tensor]:
        return [first_tensor(self.network(x))]

    def _entered(self, raw: Tensor, stats: Tensor, spacing: Sequence[float], axcodes: str) -> tuple[Tensor, Placement]:
        self.calls += 1
        x = self.normalise(raw, stats)
        place = self.frame.place(raw.shape[2:], spacing, axcodes, resample=self.resample)
        return self.frame.enter(x, place), place

    def _checked(self, raw: Tensor, stats: Tensor) -> None:
        expected = len(self._normalise)
        if raw.ndim != 5 or raw.shape[1] != expected:
            raise ExpertError(
                "the crop does not have the channels that this expert reads",
                where=f"expert {self.spec.name!r}",
                got=tuple(raw.shape),
                expected=f"[B, {expected}, X, Y, Z] with {', '.join(self.spec.channels)}",
            )
        if stats.shape != (*raw.shape[:2], len(STATISTICS)):
            raise ExpertError(
                "the volume statistics do not fit the crop",
                where=f"expert {self.spec.name!r}",
                got=tuple(stats.shape),
                expected=f"[{raw.shape[0]}, {expected}, {len(STATISTICS)}]: {', '.join(STATISTICS)}",
            )

    def normalise(self, raw: Tensor, stats: Tensor) -> Tensor:
        """The crop ``[B, C, X, Y, Z]`` with the intensities that the expert was trained on."""
        self._checked(raw, stats)
        return torch.stack([f(raw[:, i], stats[:, i]) for i, f in enumerate(self._normalise)], dim=1)

    @torch.no_grad()
    def features(self, raw: Tensor, stats: Tensor, spacing: Sequence[float], axcodes: str = "RAS") -> list[Tensor]:
        """Feature maps of the crop, in the student's axis order and direction.

        Args:
            raw: ``[B, C, X, Y, Z]`` intensities that nobody normalised.
            stats: ``[B, C, 10]`` of the whole volumes, columns as in
                :data:`~common.data.intensity.volume.STATISTICS`.
            spacing: mm per voxel in x, y, z.
            axcodes: directions of the crop's axes.

        Returns:
            ``[B, Ce, x, y, z]`` per stage, deepest last; each map covers the crop.
        """
        x, place = self._entered(raw, stats, spacing, axcodes)
        return [place.back(self.frame.cover(t, place)) for t in self._asked(self._encode, x)]

    @torch.no_grad()
    def logits(self, raw: Tensor, stats: Tensor, spacing: Sequence[float], axcodes: str = "RAS") -> Tensor:
        """Logits ``[B, Ke+1, X, Y, Z]`` on the crop's own grid, over the expert's own label space.

        Args are those of :meth:`features`.
        """
        x, place = self._entered(raw, stats, spacing, axcodes)
        return self.frame.leave(self._asked(self._logits, x)[0], place)

    @torch.no_grad()
    def both(self, raw: Tensor, stats: Tensor, spacing: Sequence[float], axcodes: str = "RAS") -> Heard:
        """:meth:`features` and :meth:`logits` of one pass, which is cheaper than both.

        Args are those of :meth:`features`.
        """
        x, place = self._entered(raw, stats, spacing, axcodes)
        *features, logits = self._asked(self._features_and_logits, x)
        return Heard([place.back(self.frame.cover(t, place)) for t in features], self.frame.leave(logits, place))


def _slices(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(0, 1)


def _unslice(x: Tensor, batch: int) -> Tensor:
    return x.reshape(batch, -1, *x.shape[1:]).transpose(1, 2)


class ExpertSet:
    """The experts of a student; no module, so that nothing of them enters a state dict.

    Args:
        experts: loaded experts with unique names and at most one per task.

    Raises:
        ExpertError: when names or tasks repeat.
    """

    def __init__(self, experts: Iterable[Expert]) -> None:
        self.experts = tuple(experts)
        for what, values in (
            ("name", [e.spec.name for e in self.experts]),
            ("task", [e.spec.task for e in self.experts if e.spec.role == "task"]),
        ):
            if len(set(values)) != len(values):
                raise ExpertError(f"two experts have the same {what}", got=values)

    def __iter__(self) -> Iterator[Expert]:
        return iter(self.experts)

    def __len__(self) -> int:
        return len(self.experts)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that have an expert."""
        return tuple(e.spec.task for e in self.experts if e.spec.role == "task")

    @property
    def external(self) -> tuple[Expert, ...]:
        """The task-agnostic experts."""
        return tuple(e for e in self.experts if e.spec.role == "external")

    def for_task(self, task: str) -> Expert:
        """The expert of one task.

        Raises:
            ExpertError: when the task has none.
        """
        for expert in self.experts:
            if expert.spec.role == "task" and expert.spec.task == task:
                return expert
        raise ExpertError("this task has no expert", where=task, got=self.tasks, hint=train_hint(task))

    def to(self, device: torch.device | str) -> ExpertSet:
        """Move all experts; returns itself."""
        for expert in self.experts:
            expert.to(device)
        return self

    def fingerprint(self) -> str:
        """SHA-256 over all parameters and buffers: equal before and after training when nothing leaked."""
        digest = hashlib.sha256()
        for expert in self.experts:
            for key, value in sorted(expert.state_dict().items()):
                digest.update(f"{expert.spec.name}/{key}/{value.dtype}/{tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def hash_expert(spec: ExpertSpec) -> str:
    """SHA-256 of the files that decide what the expert computes."""
    try:
        return hash_files(files_of(spec))
    except AmalgamationError as error:
        raise named(spec, error, train_hint(spec.task)) from error


def describe_nnunet(path: str | Path, *, name: str, role: str = "task", task: str = "", **given: Any) -> ExpertSpec:
    """Write the description of a nnU-Net results folder, its hash included.

    Args:
        path: results folder.
        name: unique name.
        role: ``task`` or ``external``.
        task: dataset name of a task expert.
        given: further fields of :class:`ExpertSpec`, for example ``configuration`` or ``orientation``.
    """
    from ..backbones.nnunet.network import describe_results, read_results_folder

    keys = {k: given[k] for k in ("configuration", "fold", "checkpoint") if given.get(k) is not None}
    if isinstance(keys.get("fold"), list | tuple):
        keys["fold"] = keys["fold"][0]
    results = read_results_folder(path, **keys)
    fields = {**describe_results(results), **given}
    fields["labels"] = called(fields["labels"], given.get("renamed", {}))
    spec = ExpertSpec(name=name, kind="nnunet", path=str(path), role=role, task=task, **fields)
    return replace(spec, sha256=hash_expert(spec))


def load_experts(
    manifest: str | Path | Sequence[ExpertSpec],
    only: Sequence[str] = ("task", "external"),
    channels: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    labels: LabelSpace | None = None,
    *,
    modalities: Mapping[str, Sequence[str]] | None = None,
    dataset_dir: str | Path | Sequence[str | Path] | Collection | None = None,
    resample: bool = True,
    ignore_card: bool = False,
) -> ExpertSet:
    """Open all experts of a manifest, or refuse the first one that does not fit.

    Args:
        manifest: ``experts.json``, one ``expert.json``, or specifications.
        only: roles to load.
        channels: image channel names of the data, for all tasks or per task.
        labels: the student's label space; every task expert must predict a part of it.
        modalities: what the data call the modalities of each task's cases.
        dataset_dir: the data, whose voxels are compared with what each expert learned from; None compares none.
        resample: bring crops to each expert's spacing.
        ignore_card: compare the channels' number only.

    Raises:
        ExpertError: when files are missing or changed, or labels or channels do not match.
    """
    specs = read_manifest(manifest) if isinstance(manifest, str | Path) else list(manifest)
    loaded = []
    for spec in specs:
        if spec.role not in only:
            continue
        check_unchanged(spec)
        source = open_source(spec)
        check_claims(spec, source)
        called = (modalities or {}).get(spec.task, ())
        check_expert(spec, _channels_for(spec, channels), labels, modalities=called, ignore_card=ignore_card)
        if dataset_dir is not None:
            tasks = read_collection(dataset_dir).datasets
            check_voxels(
                spec, [d for d in tasks if spec.role != "task" or d.name == spec.task], ignore_card=ignore_card
            )
        loaded.append(Expert(spec=spec, source=source, resample=resample))
        logger.info("expert %r (%s, %s): %s", spec.name, spec.kind, spec.role, ", ".join(spec.labels.names))
    return ExpertSet(loaded)


def _channels_for(
    spec: ExpertSpec, channels: Sequence[str] | Mapping[str, Sequence[str]] | None
) -> Sequence[str] | None:
    if not isinstance(channels, Mapping):
        return channels
    return channels.get(spec.task) if spec.role == "task" else next(iter(channels.values()), None)


def check_unchanged(
    spec: ExpertSpec, hint: str = "run the chain again, so that what was built on the old expert is rebuilt"
) -> None:
    """Compare an expert's files with the hash that its description has; one without a hash is not compared.

    Raises:
        ExpertError: when a file is missing, or they changed.
    """
    found = hash_expert(spec)
    if spec.sha256 and found != spec.sha256:
        raise ExpertError(
            "the expert's files changed since they were recorded",
            where=f"expert {spec.name!r} ({spec.path})",
            got=f"sha256 {found[:12]}...",
            expected=f"sha256 {spec.sha256[:12]}...",
            hint=hint,
        )
