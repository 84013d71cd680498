"""What a chain has to do: which commands, in which order, from which inputs."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.data.datalist import Collection, Dataset, read_collection
from common.errors import ConfigError

__all__ = ["ChainSettings", "Step", "fingerprint", "plan", "recipe", "takes_external"]


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
        variants: ids of optional stage-2 runs of ``chain.json`` to train as well.
        phase1: how stage 1 is trained, where ``chain.json`` gives the choice; its first when None.
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
    variants: tuple[str, ...] = ()
    phase1: str | None = None
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
        kind: ``expert``, ``external``, ``manifest``, ``amalgamated``, ``alone``, ``variant``, ``evaluate``.
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
    content = recipe(settings)
    collection = read_collection(settings.dataset_dir)
    stage1 = list(_stage1(settings, content, collection))
    manifest = Step(
        "manifest",
        "manifest",
        "Expert manifest",
        settings.output_dir,
        inputs=tuple(s.output_dir / "expert.json" for s in stage1) + _given_expert(settings),
        needs=tuple(s.id for s in stage1),
    )
    tasks = [_evaluation(settings, s, content["stage1"]["bundle"], _task_dir(collection, s)) for s in stage1]
    stage2 = list(_students(settings, content, collection, stage1))
    students = [_evaluation(settings, s, settings.bundle, (settings.dataset_dir,)) for s in stage2]
    listed = [] if "phase1" in content["stage1"] else [manifest]
    # the longest runs first: evaluations fill the gaps
    return [*stage1, *listed, *stage2, *[e for e in (*tasks, *students) if e]]


def takes_external(bundle: str, bundles: Path = Path("bundles")) -> bool:
    """True when a chain has a place for a task-agnostic expert."""
    path = bundles / bundle / "configs" / "chain.json"
    return path.is_file() and "external" in json.loads(path.read_text())["stage1"]


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


def recipe(settings: ChainSettings) -> dict[str, Any]:
    """The content of the bundle's ``chain.json``.

    Raises:
        ConfigError: for a bundle without one, or an unknown preset.
    """
    path = settings.bundles / settings.bundle / "configs" / "chain.json"
    if not path.is_file():
        known = sorted(p.parent.parent.name for p in settings.bundles.glob("*/configs/chain.json"))
        raise ConfigError(
            f"there is no chain for {settings.bundle!r}",
            where=path,
            expected="one of " + (", ".join(known) or "no bundle found"),
            hint="run the command from the repository's root",
        )
    content: dict[str, Any] = json.loads(path.read_text())
    if settings.preset not in content["presets"]:
        raise ConfigError(
            "unknown preset", where=path, got=settings.preset, expected=", ".join(sorted(content["presets"]))
        )
    return content


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


def _stage1(settings: ChainSettings, recipe: Mapping[str, Any], collection: Collection) -> Iterable[Step]:
    """One expert per dataset; or, where ``chain.json`` has ``phase1``, one run for all or one per modality."""
    choices = recipe["stage1"].get("phase1")
    if choices is None:
        if settings.phase1 is not None:
            raise ConfigError(f"the experts of {settings.bundle} are trained in one way", where="phase1",
                              got=settings.phase1, expected="no --phase1")  # fmt: skip
        return _experts(settings, recipe, collection)
    if settings.external is not None:
        raise ConfigError(f"{settings.bundle} has no task-agnostic expert", where="external", got=settings.external,
                          expected="none")  # fmt: skip
    wanted = settings.phase1 or choices[0]
    if wanted not in choices:
        raise ConfigError("unknown way to train stage 1", where="phase1", got=wanted, expected=", ".join(choices))
    return _shared_experts(settings, recipe, collection, wanted)


def _shared_experts(
    settings: ChainSettings, recipe: Mapping[str, Any], collection: Collection, phase1: str
) -> Iterable[Step]:
    stage1 = recipe["stage1"]
    config = _config_argument(settings, stage1["bundle"], ["train.json", *recipe["presets"][settings.preset]["stage1"]])
    data = tuple(f for d in collection.datasets for f in _data_files(d))
    for modality in (None,) if phase1 == "joint" else collection.modalities:
        name = "joint" if modality is None else re.sub(r"\W+", "_", modality).strip("_")
        folder = settings.output_dir / "experts" / name
        own = {} if modality is None else {"modality": modality}
        overrides = {
            "dataset_dir": settings.dataset_dir,
            "output_dir": folder,
            "ckpt_dir": folder,
            **own,
            **dict(settings.stage1),
        }
        argv = _run(settings, config, overrides, f"expert:{name}")
        title = "Experts of all modalities" if modality is None else f"Experts of {modality}"
        yield Step(f"expert:{name}", "expert", title, folder, argv, data)


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


def _students(
    settings: ChainSettings, recipe: Mapping[str, Any], collection: Collection, stage1: Sequence[Step]
) -> Iterable[Step]:
    data = tuple(f for d in collection.datasets for f in _data_files(d))
    if "phase1" in recipe["stage1"]:
        given = tuple(s.output_dir / "model.pt" for s in stage1)
        own, needs = {"pretrained": ",".join(map(str, given))}, tuple(s.id for s in stage1)
    else:
        given = (settings.output_dir / "experts.json",)
        own, needs = {"experts": str(given[0])}, ("manifest",)
    for run in _wanted(settings, recipe):
        fewer = recipe.get("without_external", []) if settings.external is None else []
        names = ["train.json", *recipe["presets"][settings.preset]["stage2"], *fewer, *run["overlays"]]
        config = _config_argument(settings, settings.bundle, names)
        independent = bool(run.get("independent", False))
        kind = "variant" if run.get("optional") else run["id"]
        for seed in settings.seeds:
            folder = settings.output_dir / run["id"] / f"seed{seed}"
            overrides = {
                "dataset_dir": settings.dataset_dir,
                **({} if independent else own),
                "output_dir": folder,
                "ckpt_dir": folder,
                "seed": seed,
                **dict(settings.stage2),
            }
            argv = _run(settings, config, overrides, f"{run['id']}:seed{seed}")
            title = f"{run['title']} (seed {seed})"
            inputs = data if independent else (*given, *data)
            yield Step(f"{run['id']}:seed{seed}", kind, title, folder, argv, inputs, () if independent else needs)


def _wanted(settings: ChainSettings, recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    known = [run["id"] for run in recipe["stage2"] if run.get("optional")]
    unknown = [v for v in settings.variants if v not in known]
    if unknown:
        raise ConfigError("unknown variants", where=settings.bundle, got=", ".join(unknown),
                          expected=", ".join(known) or "none")  # fmt: skip
    chosen = {*settings.variants, "amalgamated", *(["alone"] if settings.alone else [])}
    return [run for run in recipe["stage2"] if run["id"] in chosen]


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
