"""What a comparison has to do: for every bundle that takes part, the steps of its chain that its members need."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.command_words import shown_option
from common.data.datasets.datalist import read_collection
from common.errors import ConfigError
from common.plain_json import read_object

from ..chain.plan import plan, takes_external
from ..chain.step import ChainSettings, Step, recipe, step_files
from .budget import Budget, measured, with_words
from .members import Member

__all__ = ["CompareSettings", "Part", "experts_of", "lacking_structures", "parts", "preset_of", "runs_of", "trains"]


@dataclass(frozen=True)
class CompareSettings:
    """Everything that a user chooses for one comparison.

    Args:
        dataset_dir: a dataset, a folder of datasets or a ``collection.json``.
        output_dir: folder that receives a chain's folder per bundle, the tables and the page.
        members: what is compared, the reference among them.
        reference: name of the member that all others are tested against.
        presets: preset of each bundle, ``""`` for the others.
        budget: of every training.
        seeds: of every training of stage 2.
        split: that everything is evaluated on.
        external: of chains that have a place for a task-agnostic expert.
        structures: that get an expert, where a chain trains one per structure.
        knobs: ``(bundle, knob, value)``, given to every training of that bundle.
        tracking: ``mlflow`` or ``none``.
        bundles: folder that holds the bundles.
    """

    dataset_dir: Path
    output_dir: Path
    members: tuple[Member, ...]
    reference: str
    presets: Mapping[str, str]
    budget: Budget = field(default_factory=Budget)
    seeds: tuple[int, ...] = (0,)
    split: str = "test"
    external: Path | None = None
    structures: tuple[str, ...] = ()
    knobs: tuple[tuple[str, str, str], ...] = ()
    tracking: str = "none"
    bundles: Path = Path("bundles")


@dataclass(frozen=True)
class Part:
    """What a comparison does of one chain."""

    settings: ChainSettings
    steps: tuple[Step, ...]


def parts(settings: CompareSettings) -> list[Part]:
    """One part per bundle, in the order in which the members name them.

    Raises:
        ConfigError: for settings that a chain refuses, or knobs of a bundle that trains nothing here.
    """
    found = []
    for bundle in dict.fromkeys(m.bundle for m in settings.members):
        own = [m for m in settings.members if m.bundle == bundle]
        chain = _chain(settings, bundle, own)
        steps = _needed(plan(chain), own)
        # knobs come last, as they count more than the budget
        found.append(Part(chain, tuple(_with_knobs(measured(s, settings.budget), settings) for s in steps)))
    trained = {_bundle(s) for part in found for s in part.steps if trains(s)}
    strange = {bundle for bundle, _, _ in settings.knobs} - trained
    if strange:
        problem = "no training here is of this bundle"
        raise ConfigError(problem, where="knobs", got=", ".join(sorted(strange)), expected=", ".join(sorted(trained)))
    return found


def _chain(settings: CompareSettings, bundle: str, members: Sequence[Member]) -> ChainSettings:
    chain = ChainSettings(
        bundle=bundle,
        dataset_dir=settings.dataset_dir,
        output_dir=settings.output_dir / bundle,
        preset=preset_of(settings.presets, bundle),
        seeds=settings.seeds,
        alone=any(m.run == "alone" for m in members),
        split=settings.split,
        tracking=settings.tracking,
        bundles=settings.bundles,
    )
    content = recipe(chain)
    optional = {run["id"] for run in content["stage2"] if run.get("optional")}
    waits = any(run["id"] in {m.run for m in members} and not run.get("independent") for run in content["stage2"])
    return dataclasses.replace(
        chain,
        variants=tuple(m.run for m in members if m.run in optional),
        external=settings.external if takes_external(bundle, settings.bundles) else None,
        structures=_structures(content, chain, settings.structures, waits),
    )


def _structures(
    content: Mapping[str, Any], chain: ChainSettings, given: tuple[str, ...], waits: bool
) -> tuple[str, ...]:
    """Those that get an expert; where nobody waits for experts any will do to plan the chain."""
    if not any("each" in run for run in _first_way(content)):
        return ()
    if given or waits:
        return given
    return read_collection(chain.dataset_dir).labels.names[:1]


def lacking_structures(settings: CompareSettings, known: Sequence[str]) -> dict[str, str]:
    """Members with experts of single structures, where neither the user nor the preset names some of ``known``."""
    found = {}
    for member in settings.members:
        path = settings.bundles / member.bundle / "configs" / "chain.json"
        content = read_object(path, error=ConfigError)
        run = next((r for r in content["stage2"] if r["id"] == member.run), {"independent": True})
        if run.get("independent") or not any("each" in r for r in _first_way(content)):
            continue
        preset = content["presets"].get(preset_of(settings.presets, member.bundle), {})
        names = settings.structures or preset.get("structures", ())
        if not names or set(names) - set(known):
            found[member.name] = "needs --structures, those that get an expert"
    return found


def _first_way(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    ways = content.get("stage1", {}).get("phase1")
    return list(next(iter(ways.values()))) if isinstance(ways, Mapping) else []


def preset_of(presets: Mapping[str, str], bundle: str) -> str:
    """The preset of a bundle: its own, else the one for all.

    Raises:
        ConfigError: when there is neither.
    """
    if bundle in presets or "" in presets:
        return presets.get(bundle, presets.get("", ""))
    raise ConfigError(
        "no preset for this bundle",
        where="preset",
        got=bundle,
        hint=shown_option("preset", f"laptop,{bundle}=smoke"),
    )


def runs_of(member: Member, identities: Iterable[str]) -> list[str]:
    """The trainings that are a member, by the ids of a chain's steps: seeds, or the experts of all tasks."""
    if member.run == "stage1":
        return [i for i in identities if i.startswith("expert:")]
    return [i for i in identities if i == member.run or i.startswith(f"{member.run}:")]


def experts_of(member: Member, steps: Sequence[Step]) -> list[str]:
    """The trainings that a member waits for, by their ids."""
    every = {s.id: s for s in steps}
    own = runs_of(member, [s.id for s in steps if s.kind != "evaluate"])
    found: dict[str, None] = {}
    open_ids = [need for i in own for need in every[i].needs]
    while open_ids:
        identity = open_ids.pop(0)
        if identity not in found:
            found[identity] = None
            open_ids += every[identity].needs
    # who trains nothing asks the tasks' experts only; the manifest lists a task-agnostic one, too
    unasked = () if any(trains(every[i]) for i in own) else ("external",)
    return [i for i in found if i not in own and every[i].argv and every[i].kind not in unasked]


def _needed(steps: Sequence[Step], members: Sequence[Member]) -> list[Step]:
    """The members' own steps with their evaluations, and what these need, in the chain's order."""
    every = {s.id: s for s in steps}
    trained = [s.id for s in steps if s.kind != "evaluate"]
    own = {i for m in members for i in runs_of(m, trained)}
    open_ids = [*own, *(s.id for s in steps if s.subject in own and s.subject)]
    keep: set[str] = set()
    while open_ids:
        identity = open_ids.pop()
        if identity not in keep:
            keep.add(identity)
            open_ids += every[identity].needs
    return [s for s in steps if s.id in keep]


def _bundle(step: Step) -> str:
    return step_files(step.argv)[0].parent.parent.name


def trains(step: Step) -> bool:
    """Whether a step trains something, rather than to evaluate or to list."""
    return bool(step.argv) and step.produces == Step.produces


def _with_knobs(step: Step, settings: CompareSettings) -> Step:
    knobs = {knob: value for bundle, knob, value in settings.knobs if trains(step) and bundle == _bundle(step)}
    return with_words(step, knobs) if knobs else step
