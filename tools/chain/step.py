"""One command of a chain, and what it is made of."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from common.bundle_words import FILES, guessed, knobs, with_files
from common.command_words import option
from common.data.datasets.dataset import Dataset, read_dataset
from common.errors import ConfigError, visible
from common.integrity import file_hash
from common.literals import is_plain
from common.plain_json import read_object

from ..train import typed

__all__ = [
    "ChainSettings",
    "Step",
    "config_argument",
    "data_files",
    "experiment_of",
    "fingerprint",
    "own_data",
    "recipe",
    "run_words",
    "step_files",
    "this_command",
]


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
        students: train students; without them the chain ends with its experts, their list and their scores.
        variants: ids of optional stage-2 runs of ``chain.json`` to train as well.
        phase1: how stage 1 is trained, where ``chain.json`` gives the choice; its first when None.
        structures: structures that get an expert each, where ``chain.json`` trains one per structure; the preset's
            when empty.
        given: results that take the place of stage-1 runs, by the run's id.
        split: split that every model is evaluated on.
        tracking: ``mlflow`` or ``none``.
        stage1, stage2: further ``--key value`` overrides for the runs of either stage.
        bundles: folder that holds the bundles.
        ignore_card: compare given experts and evaluated data by the number of channels only.
        check_experts: ask each given nnU-Net twice about one scan, and refuse one that is not heard as at home.
    """

    bundle: str
    dataset_dir: Path
    output_dir: Path
    preset: str = "paper"
    external: Path | None = None
    seeds: tuple[int, ...] = (0,)
    alone: bool = True
    students: bool = True
    variants: tuple[str, ...] = ()
    phase1: str | None = None
    structures: tuple[str, ...] = ()
    given: tuple[tuple[str, Path], ...] = ()
    split: str = "test"
    tracking: str = "mlflow"
    stage1: tuple[tuple[str, str], ...] = ()
    stage2: tuple[tuple[str, str], ...] = ()
    bundles: Path = Path("bundles")
    ignore_card: bool = False
    check_experts: bool = True

    @property
    def trust(self) -> dict[str, object]:
        """The override of runs that compare data with a card or an expert."""
        return {"ignore_card": True} if self.ignore_card else {}

    @property
    def tracking_uri(self) -> str:
        """The chain's own MLflow store.

        Raises:
            ConfigError: for a folder whose name an address misreads, so that the store would lie elsewhere.
        """
        path = str((self.output_dir / "mlruns.db").resolve())
        if "?" in path or unquote(path) != path:
            hint = "choose another --output_dir, or --tracking none"
            problem = "MLflow would keep its records elsewhere: it misreads the folder's name"
            raise ConfigError(problem, where=path, expected="a folder without ? and % codes in its path", hint=hint)
        return f"sqlite:///{path}"


@dataclass(frozen=True)
class Step:
    """One command of the chain.

    Args:
        id: unique name, also its key in the chain's record.
        kind: ``check``, ``expert``, ``external``, ``manifest``, ``amalgamated``, ``alone``, ``variant``, ``evaluate``.
        title: what a person calls it.
        output_dir: folder that the command writes.
        argv: the command; empty for the manifest, which the chain writes itself.
        inputs: files whose content decides whether an earlier result still holds.
        needs: steps that must be done before.
        subject: for ``evaluate``, the step whose model is evaluated.
        produces: file in ``output_dir`` without which the step is not done.
        also: further such files.
    """

    id: str
    kind: str
    title: str
    output_dir: Path
    argv: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    needs: tuple[str, ...] = ()
    subject: str = ""
    produces: str = "model.pt"
    also: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command as a user would type it."""
        return typed(self.argv) if self.argv else ""


def this_command() -> str:
    """The line that a user typed to start this process."""
    return typed([sys.executable, "-m", "tools", *sys.argv[1:]])


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
    content = read_object(path, error=ConfigError)
    if settings.preset not in content["presets"]:
        raise ConfigError(
            "unknown preset", where=path, got=settings.preset, expected=", ".join(sorted(content["presets"]))
        )
    return content


def experiment_of(settings: ChainSettings) -> str:
    """The chain's name in a store of runs, which takes no text that is none."""
    return visible(settings.output_dir.name or settings.output_dir.absolute().name) or "chain"


def config_argument(settings: ChainSettings, bundle: str, names: Iterable[str]) -> str:
    """``--config_file=...`` for a bundle's files.

    Raises:
        ConfigError: for a file that there is not.
    """
    files = [settings.bundles / bundle / "configs" / name for name in names]
    for file in files:
        if not file.is_file():
            raise ConfigError("the configuration file does not exist", where=file)
    return with_files(files)


def run_words(settings: ChainSettings, config: str, overrides: Mapping[str, object], run_name: str) -> tuple[str, ...]:
    """The command of a run, tracked as the chain is; ``config`` is of :func:`config_argument`."""
    tracked: dict[str, object] = {}
    if settings.tracking != "none" and run_name:
        tracked = {"tracking": settings.tracking, "tracking_uri": settings.tracking_uri,
                   "experiment_name": experiment_of(settings), "run_name": run_name}  # fmt: skip
        if "output_dir" in overrides and not is_plain(str(overrides["output_dir"])):
            tracked["save_execute_config"] = False  # MONAI would put its name together from the text of output_dir
    return (sys.executable, "-m", "monai.bundle", "run", config, *knobs({**overrides, **tracked}))


def data_files(dataset: Dataset) -> tuple[Path, ...]:
    """Every file that a dataset consists of."""
    cases = [case for split in dataset.splits.values() for case in split]
    files = {p for c in cases for p in (*c.images, *((c.label,) if c.label else ()))}
    return (dataset.root / "dataset.json", *sorted(files))


def own_data(settings: ChainSettings, dataset: Dataset) -> tuple[str | list[str], tuple[Path, ...]]:
    """The ``dataset_dir`` of a run on one task, and every file that this consists of.

    It is the dataset's folder, or that task of the collection where the collection gives it names of its own: as a list
    of one where commas would make it several.
    """
    if read_dataset(dataset.root) == dataset:
        return str(dataset.root), data_files(dataset)
    place = settings.dataset_dir
    listing = place if place.is_file() else place / "collection.json"
    own = f"{place}::{dataset.name}"
    return [own] if "," in own else own, (listing, *data_files(dataset))


def fingerprint(step: Step) -> str:
    """Hash of the command, the configuration files that it names and the content of its inputs."""
    digest = hashlib.sha256()
    for argument in step.argv[1:]:
        digest.update(argument.replace("=", "\0", argument.startswith("--")).encode() + b"\0")  # as chains keep it
    for path in sorted({*step_files(step.argv), *step.inputs}):
        digest.update(path.name.encode() + b"\0")
        digest.update(_content(path))
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    return bytes.fromhex(file_hash(path)) if path.is_file() else b"missing"


def step_files(argv: Sequence[str]) -> list[Path]:
    """The configuration files that a command names, in the order of merging."""
    start = option(FILES, "")
    value = next((w.removeprefix(start) for w in argv if w.startswith(start)), None)
    named = [] if value is None else guessed(value)
    return [Path(name) for name in ([named] if isinstance(named, str) else named)]
