"""``python -m tools compare``: methods and baselines on one collection, one split and one budget, in one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from common.data.datasets.datalist import read_collection
from common.errors import AmalgamationError, ConfigError

from ..chain.evaluate import unscored
from ..chain.record import Record
from ..chain.run import default_jobs
from ..chain.text import plan_text
from ..command_line import count_of, seeds_of
from ..terminal import say
from .budget import Budget
from .members import Member, choose, known_members, why_not
from .plan import CompareSettings, Part, lacking_structures, parts
from .run import run_parts

__all__ = ["Compare"]

Words = str | Sequence[str]


class Compare:
    """Train, evaluate and measure several methods alike, and write one table and one page."""

    def run(
        self,
        dataset_dir: str = "data/phantom",
        methods: Words = "all",
        preset: Words = "laptop",
        budget_steps: int | None = None,
        budget_minutes: float | None = None,
        seeds: int | Sequence[int] = 0,
        split: str = "test",
        reference: str | None = None,
        output_dir: str = "runs/compare",
        external: str | None = "auto",
        structures: Words = (),
        knobs: Words = (),
        tracking: str = "none",
        jobs: int | str = 1,
        report: bool = True,
        dry_run: bool = False,
    ) -> str:
        """Train what is missing, evaluate all on one split, write the tables and the page.

        The command can be interrupted at any moment and typed again, also with further methods or seeds: what is done
        and did not change is kept. A method that fails is reported at the end and does not stop the others.

        Args:
            dataset_dir: a dataset, a folder of datasets or a ``collection.json``.
            methods: names separated by commas (``compare methods`` lists them), ``all`` for every one that can.
            preset: of all bundles, or of single ones: ``laptop,ka2er=abdomen_cpu``.
            budget_steps: updates of the weights that every training takes, each expert's as well as each method's own,
                at the batch size of the preset, whether its preset has fewer or more.
            budget_minutes: minutes of training steps, instead of steps: each training measures its speed at the start
                and takes the number of steps that fits, with its whole schedule; validation does not count.
            seeds: seed or seeds of stage 2.
            split: split to evaluate on.
            reference: method that the others are tested against; the first of the methods when omitted.
            output_dir: where everything goes.
            external: as for ``chain run``: the task-agnostic expert of chains that take one.
            structures: sam_med3d_moe: structures that get an expert; the preset's when omitted.
            knobs: ``<bundle>.<knob>=<value>`` separated by commas, for every training of a bundle.
            tracking: ``mlflow`` (a store in each chain's folder) or ``none``.
            jobs: processes at a time, or ``auto``; times are comparable with 1 only.
            report: write the tables and the page at the end.
            dry_run: print the plan and do nothing.

        Returns:
            One line that says where to look next.
        """
        processes = count_of(jobs, "jobs", auto=default_jobs())
        collection = read_collection(Path(dataset_dir))
        members, left_out = choose(methods, collection, known_members())
        settings = CompareSettings(
            dataset_dir=Path(dataset_dir),
            output_dir=Path(output_dir),
            members=tuple(members),
            reference="",
            presets=_presets(preset, {m.bundle for m in known_members().values()}),
            budget=Budget(steps=budget_steps, minutes=budget_minutes),
            seeds=seeds_of(seeds),
            split=split,
            external=_external(external, dataset_dir),
            structures=_words(structures),
            knobs=_knobs(knobs),
            tracking=tracking,
        )
        if methods == "all":
            lacking = lacking_structures(settings, collection.labels.names)
            left_out |= lacking
            settings = dataclasses.replace(settings, members=tuple(m for m in members if m.name not in lacking))
        settings = dataclasses.replace(settings, reference=_reference(reference, settings.members))
        plan = parts(settings)
        for line in unscored(plan[0].settings):
            say(line, error=True)
        if dry_run:
            return _plan_text(plan, left_out)
        unfinished = run_parts(plan, settings, left_out, processes)
        page = self.report(output_dir, dataset_dir=dataset_dir) if report else output_dir
        if unfinished:
            got = "\n".join(unfinished)
            hint = f"mend the cause and type the command again; the others: {page}"
            raise AmalgamationError("not every method could be measured", where=output_dir, got=got, hint=hint)
        return f"The page is {page}" if report else f"Everything is in {output_dir}"

    def report(
        self,
        output_dir: str = "runs/compare",
        out: str | None = None,
        title: str | None = None,
        dataset_dir: str | None = None,
    ) -> str:
        """Write the tables (Markdown, CSV) and the page of a comparison, also of one that is not finished.

        Args:
            output_dir: the comparison's folder.
            out: folder for ``index.html`` and the tables; ``<output_dir>/report`` when omitted.
            title: heading.
            dataset_dir: the data that the comparison was made on, for the page's viewer; data that only its record
                names are read where they lie in its folder.

        Returns:
            The page's file.
        """
        from ..report.command import comparison_report

        return comparison_report(output_dir, out=out, title=title, dataset_dir=dataset_dir)

    def methods(self, dataset_dir: str = "data/phantom") -> str:
        """List what can be compared on a collection, and why the rest cannot."""
        collection, known = read_collection(Path(dataset_dir)), known_members()
        width = max(map(len, known))
        rows = [(m, why_not(m, collection)) for m in known.values()]
        return "\n".join(f"{m.name:<{width}}  {m.title:<24}  {reason or 'can take part'}" for m, reason in rows)


def _reference(wanted: str | None, members: Sequence[Member]) -> str:
    names = [m.name for m in members]
    if wanted is not None and wanted not in names:
        raise ConfigError(
            "the reference is not compared", where="reference", got=wanted, expected="one of " + ", ".join(names)
        )
    return wanted or next(iter(names), "")


def _words(value: Words) -> tuple[str, ...]:
    return tuple(v.strip() for v in value.split(",") if v.strip()) if isinstance(value, str) else tuple(value)


def _presets(value: Words, bundles: Collection[str]) -> dict[str, str]:
    found = {bundle: preset for bundle, _, preset in (word.rpartition("=") for word in _words(value))}
    strange = set(found) - {"", *bundles}
    if strange:
        expected = "one of " + ", ".join(sorted(bundles))
        raise ConfigError("a preset is of a bundle", where="preset", got=", ".join(sorted(strange)), expected=expected)
    return found


def _knobs(value: Words) -> tuple[tuple[str, str, str], ...]:
    found = []
    for word in _words(value):
        name, _, given = word.partition("=")
        bundle, _, knob = name.partition(".")
        if not (bundle and knob and given):
            raise ConfigError("not a knob", where="knobs", got=word, expected="<bundle>.<knob>=<value>")
        found.append((bundle, knob, given))
    return tuple(found)


def _external(value: str | None, dataset_dir: str) -> Path | None:
    if value in (None, "none", "None", False):
        return None
    if value != "auto":
        return Path(str(value))
    general = Path(f"{Path(dataset_dir)}_general")
    return general if general.is_dir() else None


def _plan_text(plan: Sequence[Part], left_out: dict[str, str]) -> str:
    lines = []
    for part in plan:
        record = Record.read(part.settings.output_dir)
        lines.append(f"{part.settings.bundle} ({part.settings.preset})")
        lines.append(plan_text(part.steps, record, indent=2))
    return "\n".join([*lines, *(f"left out: {name} {reason}" for name, reason in left_out.items())])
