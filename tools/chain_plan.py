"""What a chain has to do: which commands, in which order, from which inputs."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.datalist import Collection, Dataset, read_collection
from common.errors import ConfigError

__all__ = ["ChainSettings", "Step", "fingerprint", "plan"]


@dataclass(frozen=True)
class ChainSettings:
    """Everything that a user chooses for one chain.

    Args:
        bundle: stage-2 bundle, e.g. ``ka2er``.
        dataset_dir: a dataset, a folder of datasets or a ``collection.json``.
        output_dir: folder that receives every run, the manifest and the report.
        preset: key of ``presets`` in the bundle's ``chain.json``.
        external: dataset folder or ``expert.json`` of the task-agnostic expert, None for none.
        seeds: one stage-2 run of each kind per seed.
        alone: also train the student without amalgamation at the same budget.
        split: split that every model is evaluated on.
        tracking: ``mlflow`` or ``none``.
        stage1, stage2: further ``--key value`` overrides for the runs of either stage.
        bundles: folder that holds the bundles.
    """

    bundle: str
    dataset_dir: Path
    output_dir: Path
    preset: str = "paper"
    external: Path | None = None
    seeds: tuple[int, ...] = (0,)
    alone: bool = True
    split: str = "test"
    tracking: str = "mlflow"
    stage1: tuple[tuple[str, str], ...] = ()
    stage2: tuple[tuple[str, str], ...] = ()
    bundles: Path = Path("bundles")

    @property
    def tracking_uri(self) -> str:
        """The chain's own MLflow store."""
        return f"sqlite:///{(self.output_dir / 'mlruns.db').resolve()}"


@dataclass(frozen=True)
class Step:
    """One command of the chain.

    Args:
        id: unique name, also its key in the chain's record.
        kind: ``expert``, ``external``, ``manifest``, ``amalgamated``, ``alone``, ``evaluate``.
        title: what a person calls it.
        output_dir: folder that the command writes.
        argv: the command; empty for the manifest, which the chain writes itself.
        inputs: files whose content decides whether an earlier result still holds.
        needs: steps that must be done before.
        subject: for ``evaluate``, the step whose model is evaluated.
    """

    id: str
    kind: str
    title: str
    output_dir: Path
    argv: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    needs: tuple[str, ...] = ()
    subject: str = ""

    @property
    def command(self) -> str:
        """The command as a user would type it."""
        shown = ("python", *self.argv[1:]) if self.argv[:1] == (sys.executable,) else self.argv
        return " ".join(f'"{word}"' if word.startswith("[") else shlex.quote(word) for word in shown)


def plan(settings: ChainSettings) -> list[Step]:
    """All steps of a chain, in an order that respects their needs.

    Raises:
        ConfigError: for an unknown preset, bundle or configuration file.
        DataError: when the collection cannot be read.
    """
    recipe = _recipe(settings)
    collection = read_collection(settings.dataset_dir)
    stage1 = list(_experts(settings, recipe, collection))
    manifest = Step(
        "manifest",
        "manifest",
        "Expert manifest",
        settings.output_dir,
        inputs=tuple(s.output_dir / "expert.json" for s in stage1) + _given_expert(settings),
        needs=tuple(s.id for s in stage1),
    )
    tasks = [_evaluation(settings, s, recipe["stage1"]["bundle"], _task_dir(collection, s)) for s in stage1]
    stage2 = list(_students(settings, recipe, collection))
    students = [_evaluation(settings, s, settings.bundle, (settings.dataset_dir,)) for s in stage2]
    # the longest runs first: evaluations fill the gaps
    return [*stage1, manifest, *stage2, *[e for e in (*tasks, *students) if e]]


def fingerprint(step: Step) -> str:
    """Hash of the command, the configuration files that it names and the content of its inputs."""
    digest = hashlib.sha256()
    for word in step.argv[1:]:
        digest.update(word.encode() + b"\0")
    for path in sorted({*_config_files(step.argv), *step.inputs}):
        digest.update(path.name.encode() + b"\0")
        digest.update(_content(path))
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    if not path.is_file():
        return b"missing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _config_files(argv: Sequence[str]) -> list[Path]:
    words = list(argv)
    if "--config_file" not in words:
        return []
    value = words[words.index("--config_file") + 1].strip("[]")
    return [Path(part.strip(" '\"")) for part in value.split(",")]


def _recipe(settings: ChainSettings) -> dict[str, Any]:
    path = settings.bundles / settings.bundle / "configs" / "chain.json"
    if not path.is_file():
        known = sorted(p.parent.parent.name for p in settings.bundles.glob("*/configs/chain.json"))
        raise ConfigError(
            f"there is no chain for {settings.bundle!r}",
            where=path,
            expected="one of " + (", ".join(known) or "no bundle found"),
            hint="run the command from the repository's root",
        )
    recipe: dict[str, Any] = json.loads(path.read_text())
    if settings.preset not in recipe["presets"]:
        raise ConfigError(
            "unknown preset", where=path, got=settings.preset, expected=", ".join(sorted(recipe["presets"]))
        )
    return recipe


def _config_argument(settings: ChainSettings, bundle: str, names: Iterable[str]) -> str:
    files = [settings.bundles / bundle / "configs" / name for name in names]
    for file in files:
        if not file.is_file():
            raise ConfigError("the configuration file does not exist", where=file)
    return "[" + ",".join(f"'{f}'" for f in files) + "]" if len(files) > 1 else str(files[0])


def _run(settings: ChainSettings, config: str, overrides: Mapping[str, object], run_name: str) -> tuple[str, ...]:
    words = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config]
    for key, value in overrides.items():
        words += [f"--{key}", str(value)]
    if settings.tracking != "none" and run_name:
        words += ["--tracking", settings.tracking, "--tracking_uri", settings.tracking_uri]
        words += ["--experiment_name", settings.output_dir.name, "--run_name", run_name]
    return tuple(words)


def _data_files(dataset: Dataset) -> tuple[Path, ...]:
    cases = [case for split in dataset.splits.values() for case in split]
    files = {p for c in cases for p in (*c.images, *((c.label,) if c.label else ()))}
    return (dataset.root / "dataset.json", *sorted(files))


def _experts(settings: ChainSettings, recipe: Mapping[str, Any], collection: Collection) -> Iterable[Step]:
    stage1 = recipe["stage1"]
    names = ["train.json", *recipe["presets"][settings.preset]["stage1"]]
    config = _config_argument(settings, stage1["bundle"], names)
    members = [(d, "task") for d in collection.datasets]
    if settings.external is not None and not _given_expert(settings):
        members += [(d, "external") for d in read_collection(settings.external).datasets]
    for dataset, role in members:
        folder = settings.output_dir / "experts" / dataset.name
        overrides = {
            "dataset_dir": dataset.root,
            "output_dir": folder,
            "ckpt_dir": folder,
            "name": dataset.name,
            "role": role,
            **dict(settings.stage1),
        }
        kind = "expert" if role == "task" else "external"
        title = f"Expert {dataset.name}" if role == "task" else f"Task-agnostic expert {dataset.name}"
        argv = _run(settings, config, overrides, f"{kind}:{dataset.name}")
        yield Step(f"{kind}:{dataset.name}", kind, title, folder, argv, _data_files(dataset))


def _given_expert(settings: ChainSettings) -> tuple[Path, ...]:
    """The external expert's own description, when the user brings a trained one instead of a dataset."""
    path = settings.external
    return (path,) if path is not None and path.is_file() and path.name != "collection.json" else ()


def _task_dir(collection: Collection, step: Step) -> tuple[Path, ...]:
    return tuple(d.root for d in collection.datasets if step.id == f"expert:{d.name}")


def _students(settings: ChainSettings, recipe: Mapping[str, Any], collection: Collection) -> Iterable[Step]:
    manifest = settings.output_dir / "experts.json"
    data = tuple(f for d in collection.datasets for f in _data_files(d))
    for run in recipe["stage2"]:
        if run["id"] == "alone" and not settings.alone:
            continue
        fewer = recipe.get("without_external", []) if settings.external is None else []
        names = ["train.json", *recipe["presets"][settings.preset]["stage2"], *fewer, *run["overlays"]]
        config = _config_argument(settings, settings.bundle, names)
        for seed in settings.seeds:
            folder = settings.output_dir / run["id"] / f"seed{seed}"
            overrides = {
                "dataset_dir": settings.dataset_dir,
                "experts": manifest,
                "output_dir": folder,
                "ckpt_dir": folder,
                "seed": seed,
                **dict(settings.stage2),
            }
            argv = _run(settings, config, overrides, f"{run['id']}:seed{seed}")
            title = f"{run['title']} (seed {seed})"
            inputs = data if run["id"] == "alone" else (manifest, *data)
            needs = () if run["id"] == "alone" else ("manifest",)
            yield Step(f"{run['id']}:seed{seed}", run["id"], title, folder, argv, inputs, needs)


def _evaluation(settings: ChainSettings, of: Step, bundle: str, dataset_dir: tuple[Path, ...]) -> Step | None:
    if not dataset_dir:
        return None
    config = _config_argument(settings, bundle, ("inference.json", "evaluate.json"))
    overrides = {
        "dataset_dir": dataset_dir[0],
        "output_dir": of.output_dir,
        "ckpt_dir": of.output_dir,
        "split": settings.split,
    }
    return Step(
        f"evaluate:{of.id}",
        "evaluate",
        f"Evaluation of {of.title}",
        of.output_dir,
        _run(settings, config, overrides, ""),
        (of.output_dir / "model.pt",),
        (of.id,),
        of.id,
    )
