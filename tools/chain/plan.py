"""What a chain has to do: which commands, in which order, from which inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.bundle_words import as_typed
from common.data.datasets.datalist import Collection, read_collection
from common.data.datasets.naming import check_names
from common.errors import ConfigError
from common.plain_json import read_object

from .checks import expert_checks
from .evaluate import check_split, evaluation, given_evaluations, together
from .experts import expert_steps, given_expert, several, stage_one_runs, taken
from .overlays import ordered_files
from .step import (
    ChainSettings,
    Step,
    config_argument,
    data_files,
    own_data,
    recipe,
    run_words,
)

__all__ = ["plan", "takes_external"]


def plan(settings: ChainSettings) -> list[Step]:
    """All steps of a chain, in an order that respects their needs.

    Raises:
        ConfigError: for an unknown preset, bundle or configuration file, or a split with nothing to evaluate on.
        ExpertError: when an expert that is given does not fit the data.
        DataError: when the collection cannot be read.
    """
    content = recipe(settings)
    collection = read_collection(settings.dataset_dir)
    _check_dimensions(settings, content, collection)
    check_names(collection, ignore=settings.ignore_card)
    check_split(settings, collection)
    stage1 = list(expert_steps(settings, content, collection))
    checks = expert_checks(settings, content, collection)
    manifest = Step(
        "manifest",
        "manifest",
        "Expert manifest",
        settings.output_dir,
        inputs=tuple(s.output_dir / "expert.json" for s in stage1)
        + tuple(path for _, path in settings.given)
        + given_expert(settings),
        needs=tuple(s.id for s in (*checks, *stage1)),
        produces="experts.json",
    )
    tasks = [
        evaluation(settings, s, content["stage1"]["bundle"], own_data(settings, d)[0])
        for s in stage1
        for d in collection.datasets
        if s.id == f"expert:{d.name}" and d.cases(settings.split)
    ]
    tasks += given_evaluations(settings, content, collection)
    stage2 = list(_students(settings, content, collection, stage1)) if settings.students else []
    bundles = {run["id"]: run.get("bundle", settings.bundle) for run in content["stage2"]}
    students = [
        evaluation(settings, s, bundles[s.id.split(":")[0]], settings.dataset_dir)
        for s in stage2
        if s.produces == Step.produces
    ]
    listed = [manifest] if "phase1" not in content.get("stage1", ("phase1",)) else []
    # the longest runs first: evaluations fill the gaps
    return [*checks, *stage1, *listed, *stage2, *tasks, *students]


def _check_dimensions(settings: ChainSettings, recipe: Mapping[str, Any], collection: Collection) -> None:
    wanted, found = recipe.get("dim"), collection.datasets[0].dim
    if wanted not in (None, found):
        folder = "data/phantom_2d" if wanted == 2 else "data/phantom"
        where = settings.dataset_dir
        hint = f"for example the phantom's: --dataset_dir {folder}"
        raise ConfigError(f"{settings.bundle} takes {wanted}-D images", where=where, got=f"{found}-D", hint=hint)


def takes_external(bundle: str, bundles: Path = Path("bundles")) -> bool:
    """True when a chain has a place for a task-agnostic expert."""
    path = bundles / bundle / "configs" / "chain.json"
    return path.is_file() and "external" in read_object(path, error=ConfigError).get("stage1", {})


def _students(
    settings: ChainSettings, recipe: Mapping[str, Any], collection: Collection, stage1: Sequence[Step]
) -> Iterable[Step]:
    """The runs of stage 2.

    A run with ``bundle`` trains that one, with the overlays that it has as stage 1. One with ``"trained": false`` is an
    evaluation of the experts together: nothing is trained, and the seeds make no difference.
    """
    data = tuple(f for d in collection.datasets for f in data_files(d))
    for run in _wanted(settings, recipe):
        own, given, needs = _given(settings, recipe, run, stage1, collection)
        if not run.get("trained", True):
            yield together(settings, run, own, (*given, *data), needs)
            continue
        config = config_argument(settings, run.get("bundle", settings.bundle), _overlays(settings, recipe, run))
        kind = "variant" if run.get("optional") else run["id"]
        for seed in settings.seeds:
            folder = settings.output_dir / run["id"] / f"seed{seed}"
            overrides = {
                "dataset_dir": settings.dataset_dir,
                **own,
                "output_dir": folder,
                "ckpt_dir": folder,
                "seed": seed,
                **settings.trust,
                **as_typed(settings.stage2),
            }
            argv = run_words(settings, config, overrides, f"{run['id']}:seed{seed}")
            title = f"{run['title']} (seed {seed})"
            yield Step(f"{run['id']}:seed{seed}", kind, title, folder, argv, (*given, *data), needs)


def _overlays(settings: ChainSettings, recipe: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    preset = recipe["presets"][settings.preset]
    own = run.get("presets", {}).get(settings.preset, [])
    folder = settings.bundles / run.get("bundle", settings.bundle) / "configs"
    if "bundle" in run:
        return ordered_files(folder, overlays=run["overlays"], preset=preset["stage1"], own=own)
    fewer = recipe.get("without_external", []) if settings.external is None else []
    return ordered_files(folder, overlays=[*fewer, *run["overlays"]], preset=preset["stage2"], own=own)


def _given(
    settings: ChainSettings,
    recipe: Mapping[str, Any],
    run: Mapping[str, Any],
    stage1: Sequence[Step],
    collection: Collection,
) -> tuple[dict[str, Any], tuple[Path, ...], tuple[str, ...]]:
    """What a student gets of the experts: knobs, files whose change matters, steps to wait for."""
    if run.get("independent", False) or "stage1" not in recipe:
        return {}, (), ()
    ways = recipe["stage1"].get("phase1")
    if isinstance(ways, Mapping):
        knobs, files, needs = taken(settings, run, stage_one_runs(settings, recipe, collection, also_given=True))
        absent = [n for n in needs if n not in {s.id for s in stage1}]
        if absent:
            problem = "a run takes from experts that this way of stage 1 does not train"
            expected = ", ".join(s.id for s in stage1)
            hint = f"look at phase1 in the chain.json of {settings.bundle}"
            raise ConfigError(problem, where=run["id"], got=", ".join(absent), expected=expected, hint=hint)
        return dict(knobs), files, needs
    if ways is not None:
        files = tuple(s.output_dir / "model.pt" for s in stage1)
        return {"pretrained": several(files)}, files, tuple(s.id for s in stage1)
    manifest = settings.output_dir / "experts.json"
    return {"experts": str(manifest)}, (manifest,), ("manifest",)


def _wanted(settings: ChainSettings, recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    known = [run["id"] for run in recipe["stage2"] if run.get("optional")]
    unknown = [v for v in settings.variants if v not in known]
    if unknown:
        raise ConfigError(
            "unknown variants", where=settings.bundle, got=", ".join(unknown), expected=", ".join(known) or "none"
        )
    chosen = {*settings.variants, "amalgamated", *(["alone"] if settings.alone else [])}
    return [run for run in recipe["stage2"] if run["id"] in chosen]
