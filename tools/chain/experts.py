"""The steps of a chain that train experts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.bundle_words import as_typed
from common.command_words import shown_option, shown_place
from common.data.datasets.datalist import Collection, read_collection, task_modalities
from common.data.starts import check_start
from common.errors import ConfigError
from common.experts.expert_set import check_unchanged
from common.experts.fit import check_expert, check_reads_any, check_voxels
from common.experts.spec import read_manifest
from common.literals import folder_names
from common.weights import read_card

from .overlays import ordered_files
from .step import ChainSettings, Step, config_argument, data_files, own_data, run_words

__all__ = ["expert_steps", "given_expert", "several", "stage_one_runs", "taken"]


def expert_steps(settings: ChainSettings, recipe: Mapping[str, Any], collection: Collection) -> Iterable[Step]:
    """One expert per dataset; where ``chain.json`` has ``phase1``, the runs of the way that is chosen there.

    Without ``stage1`` in ``chain.json`` there are none: the experts are trained together, in stage 2.

    ``phase1`` lists the ways ``joint`` (one run for all modalities) and ``separate`` (one each), or maps each way to
    runs of its own, see :func:`_named_experts`.
    """
    if "stage1" not in recipe:
        return _no_experts(settings)
    choices = recipe["stage1"].get("phase1")
    if choices is None:
        if settings.phase1 is not None:
            problem = f"the experts of {settings.bundle} are trained in one way"
            raise ConfigError(problem, where="phase1", got=settings.phase1, expected="no --phase1")
        return _experts(settings, recipe, collection)
    if settings.external is not None:
        raise ConfigError(
            f"{settings.bundle} has no task-agnostic expert", where="external", got=settings.external, expected="none"
        )
    wanted = settings.phase1 or next(iter(choices))
    if wanted not in choices:
        raise ConfigError("unknown way to train stage 1", where="phase1", got=wanted, expected=", ".join(choices))
    if isinstance(choices, Mapping):
        _check_given(settings, recipe, collection)
        return _named_experts(settings, recipe, collection, stage_one_runs(settings, recipe, collection))
    return _shared_experts(settings, recipe, collection, wanted)


def _check_given(settings: ChainSettings, recipe: Mapping[str, Any], collection: Collection) -> None:
    """Refuse results that were taught on something else than the collection, or than the run that they stand for."""
    runs = {run["id"]: run for run in stage_one_runs(settings, recipe, collection, also_given=True)}
    for name, path in settings.given:
        own = runs[name].get("set", {}).get("structures", ())
        check_start(read_card(path), path, collection, structures=own, ignore_card=settings.ignore_card)


def _no_experts(settings: ChainSettings) -> Iterable[Step]:
    asked = ("external", "phase1", "structures", "given", "stage1")
    given = [name for name in asked if getattr(settings, name)]
    if given:
        problem = f"{settings.bundle} has no stage 1: its experts are trained together"
        raise ConfigError(problem, where=given[0], got=getattr(settings, given[0]), expected=f"no --{given[0]}")
    return ()


def stage_one_runs(
    settings: ChainSettings, recipe: Mapping[str, Any], collection: Collection, *, also_given: bool = False
) -> list[Mapping[str, Any]]:
    """The runs of the chosen way, one for each structure where the way says so, less those that are given.

    ``also_given`` keeps these: stage 2 takes their results like all others'.

    A run with ``"each": "structure"`` stands for one run per structure that gets an expert: ``{structure}`` in its
    title and knobs becomes the name, its id the name without signs. In other runs ``{structures}`` is the list.

    Raises:
        ConfigError: for structures that the collection does not have, none where some are needed, or results given for
            runs that there are not.
    """
    ways = recipe["stage1"]["phase1"]
    listed = ways[settings.phase1 or next(iter(ways))]
    each = any("each" in run for run in listed)
    names = settings.structures or tuple(recipe["presets"][settings.preset].get("structures", ()))
    folders = folder_names(names, [run["id"] for run in listed if "each" not in run])
    known = collection.labels.names
    if (each and not names) or (not each and settings.structures) or set(names) - set(known):
        raise ConfigError("which structures get an expert?" if each else "no expert here is of a single structure",
                          where="structures", got=", ".join(names) or "none",
                          expected="some of " + ", ".join(known) if each else "no --structures")  # fmt: skip
    runs: list[Mapping[str, Any]] = []
    for run in listed:
        for name in names if "each" in run else (None,):
            runs.append(_filled(run, name, names, "" if name is None else folders[name]))
    unknown = {run for run, _ in settings.given} - {run["id"] for run in runs}
    if unknown:
        problem = "a result is given for a run that there is not"
        raise ConfigError(problem, where="given", got=", ".join(unknown), expected=", ".join(run["id"] for run in runs))
    return runs if also_given else [run for run in runs if run["id"] not in dict(settings.given)]


def _filled(run: Mapping[str, Any], name: str | None, names: Sequence[str], folder: str) -> Mapping[str, Any]:
    if name is None:
        own = {k: list(names) if v == "{structures}" else v for k, v in run.get("set", {}).items()}
        return {**run, "set": own}
    own = {k: [name] if v == ["{structure}"] else str(v).replace("{structure}", name) for k, v in
           run.get("set", {}).items()}  # fmt: skip
    return {**run, "id": folder, "title": str(run["title"]).replace("{structure}", name), "set": own}


def _named_experts(
    settings: ChainSettings, recipe: Mapping[str, Any], collection: Collection, runs: Sequence[Mapping[str, Any]]
) -> Iterable[Step]:
    """Runs with overlays of their own on the whole collection.

    A run ``takes`` knobs from others: ``{"teacher_weights": "teacher_image/model.pt"}`` gives it that file of run
    ``teacher_image`` and makes it wait for it.
    """
    stage1 = recipe["stage1"]
    data = tuple(f for d in collection.datasets for f in data_files(d))
    for run in runs:
        names = ordered_files(
            settings.bundles / stage1["bundle"] / "configs",
            overlays=run["overlays"],
            preset=recipe["presets"][settings.preset]["stage1"],
            own=run.get("presets", {}).get(settings.preset, []),
        )
        folder = settings.output_dir / "experts" / run["id"]
        knobs, inputs, needs = taken(settings, run)
        overrides = {
            "dataset_dir": settings.dataset_dir,
            "output_dir": folder,
            "ckpt_dir": folder,
            **knobs,
            **run.get("set", {}),
            **settings.trust,
            **as_typed(settings.stage1),
        }
        argv = run_words(settings, config_argument(settings, stage1["bundle"], names), overrides, f"expert:{run['id']}")
        yield Step(f"expert:{run['id']}", "expert", run["title"], folder, argv, (*data, *inputs), needs)


def taken(
    settings: ChainSettings, run: Mapping[str, Any], each: Sequence[Mapping[str, Any]] = ()
) -> tuple[dict[str, Any], tuple[Path, ...], tuple[str, ...]]:
    """Knobs that name what stage-1 runs left, the files whose change matters, and the steps to wait for.

    ``*`` stands for all runs of single structures.
    """
    folder, given = settings.output_dir / "experts", dict(settings.given)
    knobs: dict[str, Any] = {}
    needed: dict[str, Path] = {}
    for knob, source in run.get("takes", {}).items():
        sources = [r["id"] for r in each if "each" in r] if source == "*" else [source]
        for name in (Path(part).parts[0] for part in sources):
            needed[name] = given.get(name, folder / name / "model.pt")
        paths = [given.get(Path(part).parts[0], folder / part) for part in sources]
        knobs[knob] = paths[0] if source != "*" else several(paths)
    waits = tuple(f"expert:{name}" for name in needed if name not in given)
    return knobs, tuple(needed.values()), waits


def several(paths: Sequence[Path]) -> str | list[str]:
    """Files or folders for one knob: joined by commas where none has one in its own name."""
    listed = [str(path) for path in paths]
    return listed if any("," in path for path in listed) else ",".join(listed)


def _shared_experts(
    settings: ChainSettings, recipe: Mapping[str, Any], collection: Collection, phase1: str
) -> Iterable[Step]:
    if settings.given:
        got = ", ".join(f"{name}={path}" for name, path in settings.given)
        problem = f"no result of stage 1 can be given to {settings.bundle}"
        raise ConfigError(problem, where="given", got=got, expected="none", hint=_start_hint(settings))
    stage1 = recipe["stage1"]
    config = config_argument(settings, stage1["bundle"], ["train.json", *recipe["presets"][settings.preset]["stage1"]])
    data = tuple(f for d in collection.datasets for f in data_files(d))
    folders = folder_names(collection.modalities, ["joint"])
    for modality in (None,) if phase1 == "joint" else collection.modalities:
        name = "joint" if modality is None else folders[modality]
        folder = settings.output_dir / "experts" / name
        own = {} if modality is None else {"modality": modality}
        overrides = {
            "dataset_dir": settings.dataset_dir,
            "output_dir": folder,
            "ckpt_dir": folder,
            **own,
            **settings.trust,
            **as_typed(settings.stage1),
        }
        argv = run_words(settings, config, overrides, f"expert:{name}")
        title = "Experts of all modalities" if modality is None else f"Experts of {modality}"
        yield Step(f"expert:{name}", "expert", title, folder, argv, data)


def _start_hint(settings: ChainSettings) -> str:
    file, data = settings.given[0][1], settings.dataset_dir
    own = f"{shown_option('pretrained', file)} {shown_option('dataset_dir', data)}"
    return f"train the second stage from it: python -m tools train {shown_place(settings.bundle)} {own}"


def _experts(settings: ChainSettings, recipe: Mapping[str, Any], collection: Collection) -> Iterable[Step]:
    stage1 = recipe["stage1"]
    names = ["train.json", *recipe["presets"][settings.preset]["stage1"]]
    config = config_argument(settings, stage1["bundle"], names)
    own = dict(settings.given)
    unknown = sorted(set(own) - {d.name for d in collection.datasets})
    if unknown:
        hint = ("tasks are called as their dataset.json says, python -m tools data list <collection> shows the names; "
                "describe the expert with --task <name>, or convert the data with --name <name>")  # fmt: skip
        problem = "an expert is given for a task that the collection does not have"
        expected = ", ".join(d.name for d in collection.datasets)
        raise ConfigError(problem, where="given", hint=hint, got=", ".join(unknown), expected=expected)
    for task, path in own.items():
        _check_description(path, task, collection, settings.ignore_card)
    for path in given_expert(settings):
        _check_description(path, None, collection, settings.ignore_card)
    members = [(d, "task") for d in collection.datasets if d.name not in own]
    if settings.external is not None and not given_expert(settings):
        others = read_collection(settings.external).datasets
        members += [(d, "external") for d in others]
        both = sorted(set(collection.tasks) & {d.name for d in others})
        if both:
            problem = "a task-agnostic expert's data set is called like a task"
            hint = 'change "name" in its dataset.json'
            raise ConfigError(problem, where=settings.external, got=", ".join(both), hint=hint)
    folders = folder_names(collection.tasks)
    folders |= folder_names((d.name for d, role in members if role != "task"), folders.values())
    for dataset, role in members:
        place, files = own_data(settings, dataset) if role == "task" else (dataset.root, data_files(dataset))
        folder = settings.output_dir / "experts" / folders[dataset.name]
        overrides = {
            "dataset_dir": place,
            "output_dir": folder,
            "ckpt_dir": folder,
            "name": dataset.name,
            "role": role,
            **settings.trust,
            **as_typed(settings.stage1),
        }
        kind = "expert" if role == "task" else "external"
        title = f"Expert {dataset.name}" if role == "task" else f"Task-agnostic expert {dataset.name}"
        argv = run_words(settings, config, overrides, f"{kind}:{dataset.name}")
        yield Step(f"{kind}:{dataset.name}", kind, title, folder, argv, files, also=("expert.json",))


def _check_description(path: Path, task: str | None, collection: Collection, ignore_card: bool) -> None:
    """Refuse what is not the description of the task's expert (of a task-agnostic one: None), or does not fit."""
    specs = read_manifest(path)
    found = [spec.task or spec.role for spec in specs]
    if found != [task or "external"]:
        own = shown_option("task", task) if task else "--external True"
        hint = f"python -m tools experts describe <expert> {shown_place(path)} {own} --overwrite True"
        problem = "this is not the description of " + ("the task's expert" if task else "a task-agnostic expert")
        raise ConfigError(problem, where=path, got=", ".join(found), expected=task or "external", hint=hint)
    data = collection.dataset(task) if task else collection.datasets[0]
    names = task_modalities(collection)
    check_expert(specs[0], data.channels, collection.labels, modalities=names[data.name], dataset=data,
                 ignore_card=ignore_card)  # fmt: skip
    if task is None and not ignore_card:
        check_reads_any(specs[0], [d.channels for d in collection.datasets], list(names.values()))
    if task is None:
        check_voxels(specs[0], collection.datasets[1:], ignore_card=ignore_card)
    again = f"python -m tools experts describe {shown_place(specs[0].path)} {shown_place(path)}"
    again += f" {shown_option('task', task) if task else '--external True'} --overwrite True"
    check_unchanged(specs[0], f"put its files back; or, where the change is meant, describe it again: {again}")


def given_expert(settings: ChainSettings) -> tuple[Path, ...]:
    """Descriptions of experts that the user brings: a task-agnostic one in the place of a data set."""
    path = settings.external
    return (path,) if path is not None and path.is_file() and path.name != "collection.json" else ()
