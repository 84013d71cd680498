"""The phantom collection: synthetic scans with known anatomy in several modalities, so that every command runs at once.

Three tasks with partial labels (``phantom_ct``, ``phantom_mr``, ``phantom_lge``) form the collection; beside it lie a
mixed-modality dataset for a task-agnostic expert (``<root>_general``) and 2-D images (``<root>_2d``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...errors import ConfigError
from .files import publish, write_nifti
from .flat import write_flat
from .layout import FOLDERS, Entries, counts, numbered, paths, write_dataset
from .tasks import FORMAT, GENERAL, SIZES, TASKS, Task, scan

__all__ = ["PARTS", "beside", "write_phantom", "write_task"]

CASES = {"tiny": 4, "small": 6, "medium": 12}
# Training cases per dataset.
PARTS = ("tasks", "general", "2d")


def write_phantom(
    root: str | Path,
    size: str = "small",
    seed: int = 0,
    cases: int | None = None,
    *,
    parts: tuple[str, ...] = PARTS,
    preview: bool | None = None,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write the collection at ``root`` and its neighbours ``<root>_general`` and ``<root>_2d``.

    What is complete already is left alone; what was interrupted is written again. The same arguments give the same
    bytes.

    Args:
        root: the collection's folder.
        size: ``tiny`` (about 24-32 voxels per axis), ``small`` (48-64) or ``medium`` (96-128).
        seed: another seed gives other subjects.
        cases: training cases per dataset; 4, 6 or 12 by size when omitted. Others follow, see :func:`counts`.
        parts: which of ``tasks``, ``general``, ``2d`` to write.
        preview: also draw ``preview.png`` into each folder; by default not at size ``tiny``.
        overwrite: replace a phantom of other parameters.
        progress: called with each case's id.

    Returns:
        The collection's folder.

    Raises:
        ConfigError: for an unknown size or part or no cases.
        DataError: when a folder holds something else.
    """
    root = Path(root)
    if size not in SIZES:
        raise ConfigError("no such size", where="size", got=size, expected=", ".join(SIZES))
    if not parts or set(parts) - set(PARTS):
        raise ConfigError("no such part of the phantom", where="parts", got=parts, expected=", ".join(PARTS))
    number = CASES[size] if cases is None else int(cases)
    draw = size != "tiny" if preview is None else preview
    common = {"format": FORMAT, "size": size, "seed": int(seed), "cases": counts(number), "preview": draw}
    report = progress or _silent

    def collection(folder: Path) -> None:
        for task in TASKS:
            write_task(folder / task.name, task, size=size, seed=seed, cases=number, progress=report)
        _draw(folder, [folder / t.name for t in TASKS], draw)

    def general(folder: Path) -> None:
        write_task(folder, GENERAL, size=size, seed=seed, cases=number, progress=report)
        _draw(folder, [folder], draw)

    def flat(folder: Path) -> None:
        write_flat(folder, size=size, seed=seed, cases=number, progress=report)
        _draw(folder, sorted(p.parent for p in folder.glob("*/dataset.json")), draw)

    writers = {
        "tasks": (root, collection),
        "general": (beside(root, "general"), general),
        "2d": (beside(root, "2d"), flat),
    }
    for part in parts:
        folder, write = writers[part]
        publish(folder, {"part": part, **common}, write, overwrite=overwrite)
    return root


def beside(root: Path, part: str) -> Path:
    """The neighbour folder of a collection: ``data/phantom`` and ``2d`` give ``data/phantom_2d``."""
    return root.with_name(f"{root.name}_{part}")


def _silent(_: str) -> None:
    """No progress."""


def _draw(folder: Path, datasets: list[Path], wanted: bool) -> None:
    if wanted:
        from .preview import contact_sheet

        contact_sheet(datasets, folder / "preview.png")


def write_task(
    folder: Path, task: Task, *, size: str, seed: int, cases: int, progress: Callable[[str], None] = _silent
) -> None:
    """Write one dataset: ``dataset.json``, ``images{Tr,Va,Ts,Un}`` and ``labels{Tr,Va,Ts}``."""
    entries: Entries = {split: [] for split in FOLDERS}
    for split, index, case in numbered(task.name.removeprefix("phantom_"), cases):
        one = scan(task, index=index, size=size, seed=seed)
        entry = paths(folder, case, split, ".nii.gz", channel="_0000")
        for kind, path in entry.items():
            array = one.image if kind == "image" else one.label
            write_nifti(folder / path, array, spacing=one.spacing, origin=one.origin, axcodes=task.axcodes)
        entries[split].append({**entry, "id": case, "subject": case})
        progress(case)
    write_dataset(
        folder,
        entries,
        name=task.name,
        description=task.description,
        channels=(task.modality,),
        labels=task.labels,
        dim=3,
    )
