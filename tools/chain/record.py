"""The record of a chain: what is done, from which inputs, and the manifest of its experts."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from common.atomic import atomic_write
from common.data.datasets.datalist import read_collection
from common.engine.run.lock import RunLock
from common.errors import CheckpointError, ConfigError, ExpertError
from common.literals import file_name
from common.paths import check_new
from common.plain_json import read_object

from .artefacts import artefacts, changed, kept_together, unfit
from .step import ChainSettings, Step, experiment_of, fingerprint, recipe, this_command

__all__ = ["CHANGED", "Record", "alone_in", "prepare_tracking", "write_manifest"]

CHANGED = "its command, configuration or inputs changed"
_PACKAGES = ("monai", "torch", "numpy", "nnunetv2", "nibabel", "pytorch-ignite", "mlflow")


class Record:
    """``chain.json``: settings, surroundings and the state of every step; written atomically after each change."""

    def __init__(self, folder: Path, data: dict[str, Any]) -> None:
        self.folder, self.data = folder, data

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """The record of an earlier run, None where there is none.

        Raises:
            CheckpointError: when it was emptied or damaged.
        """
        path = folder / "chain.json"
        if not path.is_file():
            return None
        problem = "the chain's record cannot be read"
        hint = "choose another --output_dir: nothing else says which results in this folder belong to the chain"
        data = read_object(
            path, error=CheckpointError, problem=problem, expected="what a chain wrote", hint=hint, finite=False
        )
        try:
            wrong = [row for row in data["steps"] if not {"id", "status", "kind", "output_dir"} <= set(row)]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            data, wrong = {}, [f"{error!r:.200}"]
        if wrong:
            raise CheckpointError(problem, where=path, got=wrong[0], expected="what a chain wrote", hint=hint)
        return cls(folder, data)

    @classmethod
    def open(cls, folder: Path, settings: ChainSettings, steps: Sequence[Step]) -> Record:
        """Continue the record of ``folder`` with the steps of the present plan."""
        earlier = cls.read(folder)
        past = [*earlier.data.get("others", ()), *earlier.data["steps"]] if earlier else []
        known, planned = {s["id"]: s for s in past}, {s.id for s in steps}
        data = {
            "name": folder.name,
            "bundle": settings.bundle,
            "words": recipe(settings).get("words", {}),
            "created": earlier.data["created"] if earlier else _now(),
            "command": this_command(),
            "preset": settings.preset,
            "split": settings.split,
            "ignore_card": settings.ignore_card,
            "commit": _commit(),
            "hardware": _hardware(),
            "packages": {p: importlib.metadata.version(p) for p in _PACKAGES},
            "seed": settings.seeds[0],
            "seeds": list(settings.seeds),
            "dataset_dir": str(settings.dataset_dir),
            "tasks": _tasks(settings),
            "steps": [_row(step, folder, known.get(step.id)) for step in steps],
            # what this plan has no use for: without its row, its folder would be continued whatever has changed
            "others": [row for identity, row in known.items() if identity not in planned],
        }
        return cls(folder, data)

    def lock(self) -> contextlib.AbstractContextManager[object]:
        """Keep a second chain out of the same folder."""
        return alone_in(self.folder)

    def row(self, step: Step) -> dict[str, Any]:
        """The stored row of a step."""
        return next((s for s in self.data["steps"] if s["id"] == step.id), {})

    def holds(self, step: Step) -> bool:
        """True when the step is done, what it made is unchanged, and so are its command and its inputs."""
        return self.lacks(step) is None

    def lacks(self, step: Step) -> str | None:
        """Why a step is to do; empty when it was never started, None when there is nothing to do."""
        row = self.row(step)
        status = row.get("status", "pending")
        if status != "done":
            return {"running": "it was not finished", "failed": "it failed"}.get(status, "")
        found = self._spoilt(step)
        if not found and row.get("fingerprint") != fingerprint(step):
            return CHANGED
        return found or None

    def _spoilt(self, step: Step) -> str:
        """What became of the result of a step that was done; of earlier versions' records there are no hashes."""
        hashes = self.row(step).get("sha256")
        return unfit(step) if hashes is None else changed(step.output_dir, hashes)

    def confirm(self, step: Step) -> None:
        """Add the hashes of a finished step to a record that has none yet."""
        row = self.row(step)
        if "sha256" not in row:
            row["sha256"] = artefacts(step)
            self._write()

    def begin(self, step: Step) -> None:
        """Note that a step starts; what is damaged, or of another configuration, is moved aside first."""
        row, mark = self.row(step), fingerprint(step)
        before = row.get("fingerprint")
        other = before not in (None, mark) and step.kind not in ("manifest", "evaluate")
        spoilt = self._spoilt(step) if row.get("status") == "done" else unfit(step, absent=False)
        if before is not None and (other or spoilt):
            _move_aside(step.output_dir if other else kept_together(step), file_name(str(before)))
        row.pop("sha256", None)
        row.update(status="running", fingerprint=mark, started=_now(), commit=self.data["commit"])
        self._write()

    def end(self, step: Step, status: str, seconds: float) -> None:
        """Note how a step ended, and the hashes of what it made."""
        row = self.row(step)
        if status == "done":
            row["sha256"] = artefacts(step)
        row.update(status=status, seconds=round(seconds + (row.get("seconds") or 0.0), 1), metrics=_metrics(step))
        self._write()

    def _write(self) -> None:
        with atomic_write(self.folder / "chain.json") as temporary:
            Path(temporary).write_text(json.dumps(self.data, indent=2) + "\n")


def alone_in(folder: Path) -> contextlib.AbstractContextManager[object]:
    """The lock of a chain's folder, for work before there is a record.

    Raises:
        ConfigError: for a folder that can have no such name, or that another chain works in.
    """
    check_new(folder, what="folder", error=ConfigError)
    folder.mkdir(parents=True, exist_ok=True)
    return RunLock(folder, name="chain.lock")


def write_manifest(step: Step) -> None:
    """Collect every expert's own description into ``experts.json``; paths are relative to that file.

    Raises:
        ExpertError: when an expert left no description.
    """
    experts = []
    for path in step.inputs:
        if not path.is_file():
            raise ExpertError(
                "the expert left no description", where=path, hint="delete nothing; type the chain command again"
            )
        spec = read_object(path, error=ExpertError)
        spec["path"] = os.path.relpath((path.parent / spec["path"]).resolve(), step.output_dir.resolve())
        experts.append(spec)
    with atomic_write(step.output_dir / step.produces) as temporary:
        Path(temporary).write_text(json.dumps({"format": 1, "experts": experts}, indent=2) + "\n")


def prepare_tracking(settings: ChainSettings) -> None:
    """Make the MLflow store and experiment before the runs that share them: two makers at a time fail."""
    if settings.tracking == "none":
        return
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=settings.tracking_uri)
    if client.get_experiment_by_name(experiment_of(settings)) is None:
        client.create_experiment(experiment_of(settings))


def _row(step: Step, folder: Path, earlier: dict[str, Any] | None) -> dict[str, Any]:
    row = {"status": "pending", "seconds": None, "metrics": {}, "fingerprint": None, **(earlier or {})}
    row.update(id=step.id, kind=step.kind, title=step.title, subject=step.subject, command=step.command)
    row["output_dir"] = os.path.relpath(step.output_dir, folder)
    return row


def _metrics(step: Step) -> dict[str, Any]:
    path = step.output_dir / "evaluation" / "summary.json"
    if step.kind != "evaluate" or not path.is_file():
        return {}
    with contextlib.suppress(CheckpointError):  # of an evaluation that did not end well
        return read_object(path, error=CheckpointError, finite=False)
    return {}


def _move_aside(folder: Path, mark: str) -> None:
    """Give a folder, or a file, a name that nothing looks for."""
    if not folder.exists() or (folder.is_dir() and not any(p.is_file() for p in folder.rglob("*"))):
        return
    target = folder.with_name(f"{folder.name}.before-{mark[:8]}")
    number = 1
    while target.exists():
        number += 1
        target = folder.with_name(f"{folder.name}.before-{mark[:8]}-{number}")
    folder.rename(target)


def _tasks(settings: ChainSettings) -> dict[str, Any]:
    return {
        d.name: {
            "modality": list(d.channels),
            "structures": list(d.labels.names),
            "dim": d.dim,
            "cases": {split: len(cases) for split, cases in d.splits.items()},
        }
        for d in read_collection(settings.dataset_dir).datasets
    }


def _hardware() -> dict[str, Any]:
    names = (line.split(":", 1)[1].strip() for line in _cpu_lines() if line.startswith("model name"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": next(names, platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory_gb": round(memory / 2**30),
    }


def _cpu_lines() -> Iterator[str]:
    path = Path("/proc/cpuinfo")
    yield from path.read_text().splitlines() if path.is_file() else ()


def _commit() -> str | None:
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return answer.stdout.strip() or None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
