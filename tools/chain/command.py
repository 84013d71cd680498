"""`python -m tools chain`: experts first, then the student that absorbs them, then the comparison."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from common.command_words import shown_option, shown_place
from common.errors import ConfigError
from common.integrity import verify
from common.paths import is_there

from ..command_line import count_of, name_pairs, seeds_of
from ..terminal import say
from .checks import unchecked
from .evaluate import unscored
from .plan import plan, takes_external
from .record import Record, prepare_tracking
from .run import default_jobs, execute
from .step import ChainSettings
from .text import plan_text, status_text
from .trained import install_model, installs

__all__ = ["Chain", "typed_overrides"]


class Chain:
    """Train what is missing of a chain, evaluate it and write the report."""

    def run(
        self,
        bundle: str = "ka2er",
        dataset_dir: str = "data/phantom",
        output_dir: str | None = None,
        preset: str = "paper",
        external: str | None = "auto",
        seeds: int | Sequence[int] = 0,
        alone: bool = True,
        students: bool = True,
        variants: str | Sequence[str] = (),
        phase1: str | None = None,
        structures: str | Sequence[str] = (),
        given: str | Sequence[str] = (),
        split: str = "test",
        tracking: str = "mlflow",
        stage1: str = "",
        stage2: str = "",
        install: bool | None = None,
        report: bool = True,
        jobs: int | str = "auto",
        ignore_card: bool = False,
        check_experts: bool = True,
        dry_run: bool = False,
    ) -> str:
        """Train the missing experts, then the student with and without them, evaluate all, report.

        The command can be interrupted at any moment and typed again: finished steps are kept, an unfinished run goes
        on from its last checkpoint, and a step whose command, configuration or inputs changed, or whose result was
        damaged or deleted since, is done anew (what is there is moved aside, never deleted). ``--dry_run`` says why.

        Args:
            bundle: stage-2 bundle.
            dataset_dir: a dataset, a folder of datasets or a ``collection.json``.
            output_dir: where everything goes; ``runs/<bundle>`` when omitted.
            preset: ``paper``, ``laptop``, ``demo`` or ``smoke``.
            external: dataset of the task-agnostic expert, its ``expert.json``, ``none``, or ``auto`` for the folder
                ``<dataset_dir>_general`` where there is one.
            seeds: seed or seeds of stage 2.
            alone: also train the student without amalgamation at the same budget.
            students: False ends with the experts and their list, ``experts.json``, for ``amalgamate``.
            variants: ids of optional stage-2 runs of the bundle's ``chain.json``, separated by commas.
            phase1: how stage 1 is trained where there is a choice (m4oe: ``joint`` or ``separate``).
            structures: sam_med3d_moe: names of the structures that get an expert, separated by commas.
            given: trained results in the place of stage-1 runs, ``<run>=<file>`` separated by commas, for example
                ``general=sam_med3d_turbo.pth``; ka2er: experts of tasks, ``<task>=<expert.json>``, as
                ``python -m tools experts describe`` writes them for an nnU-Net.
            split: split to evaluate on.
            tracking: ``mlflow`` (local store in the output folder) or ``none``.
            stage1: further overrides for every expert, e.g. ``"--max_epochs 5"``.
            stage2: further overrides for every student.
            install: put the first seed's amalgamated weights into the bundle's ``models`` folder (those that were there
                are kept); when omitted only the preset ``paper`` does.
            report: write ``report/index.html`` at the end.
            jobs: processes at a time; ``auto`` is one with a GPU, else two (experts do not need each other).
            ignore_card: take given experts, and evaluate models, on other channels than they were taught on; recorded.
            check_experts: before anything is trained from it, ask each given nnU-Net twice about one scan, as its
                answers are kept and by nnU-Net's whole pipeline, and refuse one whose answers differ.
            dry_run: print the plan and do nothing.

        Returns:
            What became of the model, and where to look next.
        """
        processes = count_of(jobs, "jobs", auto=default_jobs())
        folder, wanted = Path(output_dir or Path("runs") / bundle), installs(install, preset)
        if not students and (install or variants):
            raise ConfigError("experts alone have no student to install, and no variant of one", where="--students",
                              got="False", hint="leave --install and --variants out")  # fmt: skip
        settings = ChainSettings(
            bundle=bundle,
            dataset_dir=Path(dataset_dir),
            output_dir=folder,
            preset=preset,
            external=_external(external, dataset_dir, bundle),
            seeds=seeds_of(seeds),
            alone=alone,
            students=students,
            variants=_words(variants),
            phase1=phase1,
            structures=_words(structures),
            given=_given(given),
            split=split,
            tracking=tracking,
            stage1=typed_overrides(stage1),
            stage2=typed_overrides(stage2),
            ignore_card=ignore_card,
            check_experts=check_experts,
        )
        steps = plan(settings)
        for line in (*unscored(settings), *unchecked(settings)):
            say(line, error=True)
        if dry_run:
            return plan_text(steps, Record.read(folder))
        record = Record.open(folder, settings, steps)
        with record.lock():
            prepare_tracking(settings)
            execute(steps, record, settings, processes)
            if not students:
                return f"The experts and their list are in {folder}"
            said = install_model(steps, settings, install=wanted)
            if report:
                from ..report.command import report as write_report

                write_report(str(folder), out=str(folder / "report"))
                return f"{said}\nThe report is {folder / 'report' / 'index.html'}"
        return f"{said}\nEverything is in {folder}"

    def status(self, output_dir: str = "runs/ka2er") -> str:
        """Say what a chain has done so far."""
        record = Record.read(Path(output_dir))
        if record is None:
            raise ConfigError("no chain was started here", where=output_dir, hint="python -m tools chain run ka2er")
        return status_text(record)


def _external(value: str | None, dataset_dir: str, bundle: str) -> Path | None:
    if value in (None, "none", "None", False) or (value == "auto" and not takes_external(bundle)):
        return None
    if value != "auto":
        return Path(str(value))
    general = Path(f"{Path(dataset_dir)}_general")
    return general if general.is_dir() else None


def _words(value: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(v.strip() for v in value.split(",") if v.strip()) if isinstance(value, str) else tuple(value)


def _describe(folder: str, run: str) -> str:
    words = f"{shown_place(folder)} {shown_place(f'{run}.json')} {shown_option('task', run)}"
    return f"a folder is described first: python -m tools experts describe {words}"


def _given(value: str | Sequence[str]) -> tuple[tuple[str, Path], ...]:
    pairs = [pair.partition("=") for pair in name_pairs(value)]
    for run, _, file in pairs:
        if not run or not (is_there(file) and Path(file).is_file()):
            folder = is_there(file) and Path(file).is_dir()
            got = f"{run}={file}"
            hint = _describe(file, run) if folder else None
            raise ConfigError("a given result is no file", where="given", got=got, expected="<run>=<file>", hint=hint)
        verify(Path(file))
    return tuple((run, Path(file)) for run, _, file in pairs)


def typed_overrides(text: str) -> tuple[tuple[str, str], ...]:
    """Overrides of a configuration as they were typed.

    Args:
        text: ``"--key value --other=value"``.

    Raises:
        ConfigError: when they are no pairs.
    """
    try:
        words = [part for word in shlex.split(text) for part in (word.split("=", 1) if word[:2] == "--" else [word])]
    except ValueError as error:
        raise ConfigError(f"overrides cannot be read: {error}", got=text) from error
    if len(words) % 2 or any(not w.startswith("--") for w in words[::2]):
        raise ConfigError("overrides must be pairs", got=text, expected='"--key value --other value"')
    return tuple((key[2:], value) for key, value in zip(words[::2], words[1::2], strict=True))
