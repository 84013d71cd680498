"""``python -m tools data``: look at, check, convert, split and merge datasets and collections; what is prepared."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from common.command_words import shown_option, shown_place
from common.data.datasets.convert import convert_nnunet, convert_pairs, split_dataset, write_collection
from common.data.datasets.datalist import read_collection
from common.data.datasets.dataset import Dataset
from common.data.datasets.dataset_json import SPLITS
from common.data.datasets.merge import merge_datasets
from common.data.datasets.naming import is_nameless
from common.data.datasets.subset import subset_dataset
from common.data.datasets.verify import Problem, check
from common.data.io import read_volume, write_volume
from common.data.store.place import clear, listed, places, size_text
from common.errors import AmalgamationError, ConfigError, few
from common.whole_numbers import WHOLE, whole_number

from .terminal import console, say

__all__ = ["Data", "read_renames", "read_structures"]


class Data:
    """Datasets (a folder with ``dataset.json``) and collections (several datasets, one per task)."""

    def list(self, dataset_dir: str = "data/phantom") -> None:
        """Show the tasks, channels, structures and numbers of cases of a dataset or collection."""
        collection = read_collection(_text(dataset_dir))
        terminal = console()
        table = Table(title=f"{collection.name}: {len(collection.labels)} structures, {len(collection.tasks)} tasks")
        for column in ("task", "channels", "train", "val", "test", "no label", "structures (file value)"):
            table.add_column(column, min_width=34 if column.startswith("structures") else None)
        for dataset in collection.datasets:
            named = zip(dataset.labels.names, dataset.labels.values, strict=True)
            counts = [str(len(dataset.splits[s])) for s in SPLITS]
            structures = ", ".join(f"{n} ({v})" for n, v in named)
            table.add_row(dataset.name, ", ".join(dataset.channels), *counts, structures)
        terminal.print(table)

    def check(
        self,
        dataset_dir: str = "data/phantom",
        smallest_mm: float = 0.01,
        largest_mm: float = 50.0,
        quiet: bool = False,
    ) -> None:
        """Read every file and list all problems in one table; exit status 1 when one of them is an error.

        Args:
            dataset_dir: a dataset, a collection, or several separated by commas.
            smallest_mm: smallest plausible spacing in mm.
            largest_mm: largest plausible spacing in mm.
            quiet: no progress bar.
        """
        terminal = console()
        told = TextColumn("{task.description}", markup=False)
        columns = (told, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console(stderr=True), transient=True, disable=quiet) as progress:
            bar = progress.add_task("reading", total=None)
            problems = check(
                _text(dataset_dir),
                plausible_mm=(smallest_mm, largest_mm),
                progress=lambda case, done, total: progress.update(bar, description=case, completed=done, total=total),
            )
        count = Counter(p.severity for p in problems)
        if problems:
            terminal.print(_table(problems))
        terminal.print(f"{_text(dataset_dir)}: {count['error']} errors, {count['warning']} warnings", soft_wrap=True)
        if count["error"]:
            sys.exit(1)

    def convert(
        self,
        source: str,
        out: str,
        labels: str | None = None,
        name: str | None = None,
        structures: str | dict[str, int] | None = None,
        channels: str | None = None,
        rename: str | dict[str, str] | None = None,
        val: float = 0.2,
    ) -> None:
        """Make a dataset of an nnU-Net raw folder, or of a folder of scans and a folder of label maps.

        Args:
            source: nnU-Net raw folder, or the folder of scans when ``labels`` is given.
            out: folder of the new dataset (only ``dataset.json`` is written there).
            labels: folder of label maps, or of DICOM SEGs, with the scans' base names.
            name: name of the new dataset; the folder's name by default.
            structures: ``"liver=1,spleen=2"``; without it they are called by the data set and the values found.
            channels: channel names separated by commas, such as ``CT`` or ``T1,FLAIR``; needed unless DICOM says it.
            rename: of an nnU-Net raw folder, other names of structures and channels, where its own are refused:
                ``"prostate/uterus=prostate or uterus"``, separated by commas.
            val: fraction of subjects for validation.
        """
        if labels is None:
            unused = {"structures": structures, "channels": channels}
            if given := [f"--{option}" for option, value in unused.items() if value is not None]:
                hint = f"add --labels FOLDER where {source} is a folder of scans; a raw folder's names get --rename"
                raise ConfigError("an nnU-Net raw folder says its channels and structures itself", where=source,
                                  got=", ".join(given), expected="--rename old=new", hint=hint)  # fmt: skip
            dataset = convert_nnunet(source, out, name=name, rename=read_renames(rename), val=val)
        else:
            dataset = convert_pairs(
                source,
                labels,
                out,
                name=name or Path(out).resolve().name,
                structures=read_structures(structures),
                channels=None if channels is None else tuple(c.strip() for c in _text(channels).split(",")),
                val=val,
            )
        say(f"wrote {dataset.root / 'dataset.json'}, {_counts(dataset)}")
        bare = [f"<name>={v}" for n, v in zip(dataset.labels.names, dataset.labels.values) if is_nameless(n)]
        if bare:
            say(f"the structures have no names: convert again with {shown_option('structures', ','.join(bare))}")
        say(f"next: python -m tools data check {shown_place(out)}")

    def split(self, dataset_dir: str, val: float = 0.2, test: float = 0.0, out: str | None = None) -> None:
        """Split the labelled cases anew by hashed subject (writes ``dataset.json``)."""
        dataset = split_dataset(dataset_dir, val=val, test=test, out=out)
        say(", ".join(f"{s}: {len(dataset.splits[s])}" for s in SPLITS))

    def subset(
        self,
        source: str,
        out: str,
        structures: str | Sequence[str] | None = None,
        cases: str | Sequence[str] | None = None,
        splits: str | dict[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        """Make a dataset of some structures or cases of another; images stay where they are.

        Args:
            source: dataset folder.
            out: folder of the new dataset, which has none yet.
            structures: names separated by commas, ``"liver,left kidney"``; all others become background, and label maps
                are written anew, values 1, 2, ... in the order of the old ones. All when left out.
            cases: ids separated by commas; all when left out.
            splits: move cases to another split, ``"validation=test"``.
            name: name of the new dataset; the folder's name by default.
        """
        dataset = subset_dataset(_text(source), out, name=name, structures=_names(structures), cases=_names(cases),
                                 splits=read_renames(splits, "--splits"))  # fmt: skip
        say(f"wrote {dataset.root / 'dataset.json'}, {_counts(dataset)}; {', '.join(dataset.labels.names)}")

    def merge(self, *datasets: str, out: str, name: str | None = None, names: str = "intersection") -> None:
        """Make one dataset of several; label maps are rewritten, images stay where they are.

        Args:
            datasets: dataset folders.
            out: folder of the new dataset.
            name: its name; the folder's name by default.
            names: keep the ``intersection`` or the ``union`` of the structures.
        """
        dataset = merge_datasets(datasets, out, name=name or Path(out).resolve().name, names=names)
        say(f"wrote {dataset.root / 'dataset.json'}: {len(dataset.cases())} cases, {', '.join(dataset.labels.names)}")

    def collection(self, *datasets: str, out: str, name: str | None = None) -> None:
        """Write ``OUT/collection.json``, which names dataset folders as the tasks of one collection."""
        say(f"wrote {write_collection(out, datasets, name=name)}")

    def extract(self, source: str, volume: int, out: str) -> None:
        """Write volume number VOLUME (from 0) of a 4-D file as a file of its own."""
        say(f"wrote {write_volume(read_volume(source, volume=volume), out)}")

    def store(
        self,
        action: str = "list",
        dataset_dir: str = "data/phantom",
        store_dir: str | None = None,
        unused_days: float = 0.0,
    ) -> None:
        """Show the prepared volumes of a data set, or delete them: a training prepares anew what it needs.

        Args:
            action: ``list`` or ``clear``.
            dataset_dir: the data whose prepared volumes are meant: those beside them and in the cache folder. A place
                that ``store_dir`` or ``AMALGAM_STORE`` names is shown and cleared whole, with other data sets' volumes.
            store_dir: another place than beside the data and in the cache folder.
            unused_days: show or delete only what no run has read for so many days.
        """
        if action not in ("list", "clear"):
            raise ConfigError("unknown action", where="data store", got=action, expected="list or clear")
        for place in _places(_text(dataset_dir), store_dir):
            if action == "clear":
                cases, size = clear(place, unused_days=unused_days)
                say(f"{place}: {cases} prepared volumes deleted, {size_text(size)}")
            else:
                _show_store(place, unused_days)


def _places(dataset_dir: str, store_dir: str | None) -> list[Path]:
    """Where volumes of a collection, or of one of its data sets, may be prepared."""
    found = places(dataset_dir, store_dir)
    with contextlib.suppress(AmalgamationError):
        found += [p for d in read_collection(dataset_dir).datasets for p in places(d.root, store_dir) if p.is_dir()]
    return list(dict.fromkeys(found))


def _show_store(place: Path, unused_days: float) -> None:
    """Table of a place's prepared volumes that no run has read for so many days."""
    found = listed(place, unused_days=unused_days)
    total = size_text(sum(k.size for k in found))
    if not found:
        say(f"{place}: no prepared volumes" + (f" unused for {unused_days:g} days" if unused_days else ""))
        return
    table = Table(title=f"{sum(k.cases for k in found)} prepared volumes, {total}", caption=Text(str(place)))
    for column in ("cases", "size", "last used", "tasks", "chain"):
        table.add_column(column, overflow="fold")
    for kept in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(kept.used))
        cells = (str(kept.cases), size_text(kept.size), used, few(kept.tasks), " > ".join(kept.chain))
        table.add_row(*map(Text, cells))
    console().print(table)


def _names(given: str | Sequence[str] | None) -> list[str] | None:
    """Names that commas separate; None when there is no such option."""
    return None if given is None else [name.strip() for name in _text(given).split(",")]


def _counts(dataset: Dataset) -> str:
    """How many cases have a label map, and which have none."""
    count, bare = len(dataset.cases()), [c.id for c in dataset.cases() if c.label is None]
    told = f"{count} cases: {count - len(bare)} with a label map, {len(bare)} without"
    return f"{told} ({few(bare)})" if bare else told


def _table(problems: list[Problem]) -> Table:
    table = Table(title="problems, case by case", show_lines=True)
    for column in ("case", "file", "kind", "severity", "got", "expected", "next"):
        table.add_column(column, overflow="fold")
    for p in sorted(problems, key=lambda p: (p.severity, p.case)):
        style = "red" if p.severity == "error" else "yellow"
        table.add_row(p.case, Path(p.file).name, p.kind, Text(p.severity, style=style), p.got, p.expected, p.hint)
    return table


def _text(value: Any) -> str:
    """Fire turns ``a,b`` into a tuple; this turns it back."""
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def read_renames(given: str | Mapping[str, str] | Sequence[str] | None, option: str = "--rename") -> dict[str, str]:
    """``{old: new}`` of an option such as ``liver=Liver,"gall bladder"=gallbladder``; empty when there is none.

    Raises:
        ConfigError: when it cannot be read, or tells one name twice.
    """
    if given is None or isinstance(given, Mapping):
        return {str(old): str(new) for old, new in (given or {}).items()}
    pairs = [[side.strip() for side in part.split("=")] for part in _text(given).split(",")]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        raise ConfigError("cannot read the names", where=option, got=given, expected='"old=new,other=another"')
    renamed = {pair[0]: pair[1] for pair in pairs}
    if len(renamed) < len(pairs):
        raise ConfigError("a name is changed twice", where=option, got=given, expected="each name once")
    return renamed


def read_structures(given: Any) -> dict[str, int] | None:
    """``{name: value}`` of an option such as ``liver=1,spleen=2``; None when there is none.

    Raises:
        ConfigError: when it cannot be read.
    """
    if given is None:
        return None
    pairs = list(given.items()) if isinstance(given, Mapping) else [_pair(part) for part in _text(given).split(",")]
    found = {str(name).strip(): _value(value) for name, value in pairs}
    values = {name: value for name, value in found.items() if value is not None}
    if len(values) < len(found):
        raise ConfigError("cannot read the structures", got=f"{given!a:.200}", hint=f"each value is {WHOLE}",
                          expected='"liver=1,spleen=2"')  # fmt: skip
    if len(found) < len(pairs):
        raise ConfigError("a structure is given twice", got=given, expected="each name once")
    return values


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.rpartition("=")
    return name, value.strip()


def _value(given: Any) -> int | None:
    """The whole number that a value is, as such or in text."""
    return given if isinstance(given, int) and not isinstance(given, bool) else whole_number(given)
