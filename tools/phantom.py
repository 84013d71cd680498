"""``python -m tools phantom``: write the synthetic multi-modality collection."""

from __future__ import annotations

from pathlib import Path

from common.command_words import shown_option
from common.data.datasets.dataset_json import read_json
from common.data.phantom.collection import PARTS, beside, write_phantom

__all__ = ["phantom"]


def phantom(
    out: str = "data/phantom",
    size: str = "small",
    seed: int = 0,
    cases: int | None = None,
    preview: bool | None = None,
    overwrite: bool = False,
) -> None:
    """Write the phantom collection and its neighbours ``<out>_general`` and ``<out>_2d``.

    Args:
        out: the collection's folder.
        size: tiny (24-32 voxels per axis), small (48-64) or medium (96-128).
        seed: another seed gives other subjects.
        cases: training cases per dataset (by default 4, 6 or 12, by size).
        preview: draw a contact sheet preview.png into each folder (by default not at size tiny).
        overwrite: replace a phantom that was written with other parameters.
    """
    from tqdm import tqdm

    with tqdm(desc="phantom", unit=" cases", leave=False, delay=2) as bar:

        def advance(case: str) -> None:
            bar.set_postfix_str(case, refresh=False)
            bar.update()

        root = write_phantom(out, size, seed, cases, preview=preview, overwrite=overwrite, progress=advance)
    for part in PARTS:
        folder = root if part == "tasks" else beside(root, part)
        for file in sorted([*folder.glob("dataset.json"), *folder.glob("*/dataset.json")]):
            print(_row(file))
        if (folder / "preview.png").exists():
            print(f"  preview: {folder / 'preview.png'}")
    print(f"\nnext: python -m tools chain run ka2er {shown_option('dataset_dir', root)}")


def _row(file: Path) -> str:
    """One line about a dataset."""
    data = read_json(file)
    numbers = ", ".join(f"{len(data[s])} {s}" for s in ("training", "validation", "test", "unlabelled"))
    names = ", ".join(n for n, v in data["labels"].items() if v)
    channels = "/".join(data["channel_names"].values())
    return f"{file.parent}: {channels}; {numbers}; {names}"
