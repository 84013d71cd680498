"""The steps of a chain that evaluate, and whether there is something to evaluate on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.command_words import shown_place
from common.data.datasets.datalist import Collection, read_collection
from common.data.datasets.dataset import Dataset
from common.data.datasets.naming import check_names
from common.errors import ConfigError
from common.experts.spec import ExpertSpec, read_manifest
from common.literals import folder_names

from .step import ChainSettings, Step, config_argument, own_data, recipe, run_words

__all__ = ["check_split", "evaluation", "given_evaluations", "together", "unscored"]

SCORES = "evaluation/summary.json"


def check_split(settings: ChainSettings, collection: Collection) -> None:
    """Refuse a split with nothing to evaluate on, or with cases that cannot be scored.

    Raises:
        ConfigError: when no dataset has a case in the split, or a case there has no label map.
        DataError: for a split that there is not.
    """
    split, datasets = settings.split, collection.datasets
    bare = [f"{d.name}: {c.id}" for d in datasets for c in d.cases(split) if c.label is None]
    unfit = [d for d in datasets if any(c.label is None for c in d.cases(split))] or list(datasets)
    hint = f"python -m tools data split {shown_place(unfit[0].root)} --test 0.2"
    hint += f", likewise {', '.join(d.name for d in unfit[1:])}" if unfit[1:] else ""
    hint += "" if split == "validation" else "; or --split validation"
    if bare:
        where = f"split {split!r}"
        got = ", ".join(bare[:5]) + (", ..." if bare[5:] else "")
        raise ConfigError("cases of the split to evaluate on have no label map", where=where, hint=hint, got=got)
    if not any(d.cases(split) for d in datasets):
        problem = "the split to evaluate on is empty"
        where = f"split {split!r}"
        raise ConfigError(problem, where=where, hint=hint, got=", ".join(f"{d.name}: no case" for d in datasets))


def unscored(settings: ChainSettings) -> list[str]:
    """Sentences that say on which datasets, and of which given experts, a chain measures nothing, and which structures'
    names are doubtful.
    """
    collection, split = read_collection(settings.dataset_dir), settings.split
    said = [f"{d.name} has no case in the split {split!r}: nothing is measured on it" for d in collection.datasets
            if not d.cases(split)]  # fmt: skip
    said += check_names(collection, ignore=settings.ignore_card)
    for dataset, spec, _ in _given_tasks(settings, recipe(settings), collection):
        odd = sorted(set(dataset.labels.names) ^ set(spec.labels.names))
        if odd:
            said.append(
                f"the given expert of {dataset.name} is not measured: of it and the data only one has " + ", ".join(odd)
            )
    return said


def _given_tasks(
    settings: ChainSettings, recipe: Mapping[str, Any], collection: Collection
) -> list[tuple[Dataset, ExpertSpec, Path]]:
    """The tasks whose expert is given by a description, if the split has cases of theirs."""
    if "phase1" in recipe.get("stage1", ("phase1",)):
        return []
    found = [(collection.dataset(task), read_manifest(path)[0], path) for task, path in settings.given]
    return [entry for entry in found if entry[0].cases(settings.split)]


def evaluation(settings: ChainSettings, of: Step, bundle: str, dataset_dir: str | Path | list[str]) -> Step:
    """The evaluation of a trained model by its own bundle."""
    config = config_argument(settings, bundle, ("inference.json", "evaluate.json"))
    overrides = {
        "dataset_dir": dataset_dir,
        "output_dir": of.output_dir,
        "ckpt_dir": of.output_dir,
        "split": settings.split,
        **settings.trust,
    }
    return Step(
        f"evaluate:{of.id}",
        "evaluate",
        f"Evaluation of {of.title}",
        of.output_dir,
        run_words(settings, config, overrides, ""),
        (of.output_dir / "model.pt",),
        (of.id,),
        of.id,
        SCORES,
    )


def together(
    settings: ChainSettings,
    run: Mapping[str, Any],
    own: Mapping[str, Any],
    inputs: tuple[Path, ...],
    needs: tuple[str, ...],
) -> Step:
    """A run of stage 2 that trains nothing: the evaluation of the experts together."""
    folder = settings.output_dir / run["id"]
    overrides = {"dataset_dir": settings.dataset_dir, **own, "output_dir": folder, "split": settings.split}
    return Step(
        run["id"], "variant", run["title"], folder, _asked(settings, run, overrides), inputs, needs, produces=SCORES
    )


def _asked(settings: ChainSettings, run: Mapping[str, Any], overrides: Mapping[str, object]) -> tuple[str, ...]:
    config = config_argument(settings, settings.bundle, ("inference.json", "evaluate.json", *run["overlays"]))
    return run_words(settings, config, {**overrides, **settings.trust}, "")


def given_evaluations(settings: ChainSettings, recipe: Mapping[str, Any], collection: Collection) -> Iterable[Step]:
    """The evaluation of each task expert that is given, on its own task as those of trained ones.

    It is asked by what asks the experts together (``"trained": false`` in ``chain.json``), with one expert.
    """
    run = next((r for r in recipe["stage2"] if not r.get("trained", True)), None)
    if run is None:
        return
    for dataset, spec, path in _given_tasks(settings, recipe, collection):
        if set(spec.labels.names) != set(dataset.labels.names):
            continue
        place, files = own_data(settings, dataset)
        folder = settings.output_dir / "experts" / folder_names(collection.tasks)[dataset.name]
        overrides = {"dataset_dir": place, "experts": path, "output_dir": folder, "split": settings.split}
        argv = _asked(settings, run, {**overrides, "keep_largest": False})  # as the bundle of trained experts
        title, subject = f"Evaluation of Expert {dataset.name} (given)", f"expert:{dataset.name}"
        yield Step(f"evaluate:{subject}", "evaluate", title, folder, argv, (path, *files), (), subject, SCORES)
