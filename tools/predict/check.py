"""What ``predict`` compares before anything is computed: scans with what the model's card says it was taught on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from monai.data import MetaTensor

from common.atomic import atomic_write
from common.contract import OVERRIDE, Contract
from common.data.datasets.described import Description, about_structures, described
from common.errors import DataError
from common.geometry import Grid
from common.intensity_range import Range, range_of
from common.overridden import RECORD
from common.paths import is_there
from common.scan_fit import Said, check_given, judged
from common.spacing_range import odd_spacing

from .dicom_results import Source
from .scans import Scan

__all__ = ["Comparison", "write_records"]


@dataclass
class Comparison:
    """Compares the scans of one command with a model.

    Args:
        contract: what the model's card says.
        ignore: take what does not fit, and say so.
        modality: what the user says the scans are; empty when nothing.
        masks: whether the bundle's inference leaves out what was not taught.
        targets: which structures the run leaves to compete, as ``KeepTargetsd`` takes it; empty when nobody knows.
        ranges: of each scan's channels, by its name.
        spacing: of each volume in mm.
        thin: scans of one slice.
        grey: pictures without colour.
        notes: what a user should be told.
        said: what a ``dataset.json`` beside the scans says of each.
        stays: whether experts stay beside the model.
    """

    contract: Contract
    ignore: bool = False
    modality: str = ""
    masks: bool = False
    stays: bool = False
    targets: str | Sequence[str] = "all"
    spacing: dict[str, tuple[float, ...]] = field(default_factory=dict)
    ranges: dict[str, tuple[Range, ...]] = field(default_factory=dict)
    thin: dict[str, bool] = field(default_factory=dict)
    grey: dict[str, bool] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    said: dict[str, Description] = field(default_factory=dict)

    def ordered(self, scan: Scan) -> Scan:
        """A scan with its files in the model's order, by the names that a ``dataset.json`` beside it gives them.

        What a user should be told of it is added to ``notes``.

        Args:
            scan: what is about to be read.

        Raises:
            DataError: for channels that the model does not read, or a description that contradicts itself.
        """
        try:
            said = described(scan.files)
        except DataError as error:
            if not self.ignore:
                raise
            self.notes.append(f"{error.where}: {error.problem}: {error.got}, not compared, as asked")
            return scan
        if said is None or said.problem:
            self.notes += [] if said is None else [f"{said.file}: {said.problem}: the scans are not compared with it"]
            return scan
        if said.file not in {d.file for d in self.said.values()}:
            self.notes += about_structures(said, self.contract)
        where, straight = scan.files[0], tuple(range(len(said.channels)))
        own = (said.modality, *said.channels[: len(said.channels) == 1])
        self.notes += check_given(self.modality, own, where=where, ignore=self.ignore)
        fit = self.contract.fit(said.channels, self.modality or said.modality, where=where, ignore=self.ignore)
        self.said[scan.name] = said
        if fit.order in (straight, ()):
            return scan
        if len(scan.files) != len(fit.order):
            if self.ignore:
                return scan
            raise DataError("the channels lie in another order than the model reads, and in one file", where=where,
                            got=f"{', '.join(said.channels)} ({said.file})",
                            expected=", ".join(said.channels[i] for i in fit.order),
                            hint=f"write them in this order; or add {OVERRIDE}")  # fmt: skip
        names = tuple(said.channels[i] for i in fit.order)
        self.said[scan.name] = said._replace(channels=names)
        self.notes += [n for n in fit.notes if "are read in the model's order" in n]
        return replace(scan, files=tuple(scan.files[i] for i in fit.order))

    def see(self, scan: Scan, image: MetaTensor) -> None:
        """Look at a scan's intensities, or a picture's colours, while it is read anyway."""
        if scan.flat and len(scan.files) == 1:  # its levels are no unit's
            planes = image.as_tensor()
            self.grey[scan.name] = len(planes) == 1 or bool((planes == planes[:1]).all())
            return
        found = [range_of(channel.numpy()) for channel in image.as_tensor()]
        self.thin[scan.name] = not scan.flat and min(image.shape[1:]) == 1
        if not scan.flat:
            self.spacing[scan.name] = Grid.of(image).spacing
        self.ranges[scan.name] = tuple(r for r in found if r is not None)

    def entry(self, scan: Scan, source: Source | None) -> dict[str, str]:
        """What the scan's item says besides its files: the model's name of its modality, where that is known.

        What a user should be told is added to ``notes``.

        Args:
            scan: one that was read.
            source: its DICOM slices, if it has any.

        Raises:
            DataError: for a scan of another modality, or with another number of channels.
        """
        where = scan.files[0]
        tag = "" if source is None or not source.slices else source.slices[0].modality
        self._count(scan)
        self.contract.check_dim(2 if scan.flat else 3, where=where)
        said = self.said.get(scan.name, Description(where))
        words = Said(self.modality, said.modality, said.channels, (tag,) if tag else (), said.file)
        ranges = self.ranges.get(scan.name, ())
        found = judged(self.contract, words, ranges, where=where, ignore=self.ignore)
        told = [*self._grey(scan), *(n for n in found.notes if n not in self.notes)]
        if self.thin.get(scan.name) and {m.get("dim") for m in self.contract.modalities.values()} != {2}:
            told.append(f"warning: {where}: one slice alone, for a model that learned from volumes")
        if found.odd:
            shown = "; ".join(map(str, ranges))
            told.append(f"warning: {where}: intensities {shown}; {found.odd}. Is it stored in the unit that the model "
                        "learned from (HU for CT)? The result is not to be trusted before that is clear")  # fmt: skip
        size = odd_spacing(self.spacing.get(scan.name, ()), self.contract.modalities, found.names)
        told += [f"warning: {where}: {size}. The result is not to be trusted before that is clear"] if size else []
        told += self._untaught(where, found.names) if found.sure else []
        self.notes += told
        modality = found.modality(self.contract)
        return {"modality": modality} if modality else {}

    def _count(self, scan: Scan) -> None:
        """A scan of volumes has a file for each channel; several channels in one picture are colours."""
        wanted = len(self.contract.channels)
        if wanted in (0, len(scan.files)) or scan.flat:
            return
        missing = self.contract.channels[len(scan.files) :]
        raise DataError(
            f"missing channel {', '.join(missing)}" if missing else "too many channels",
            where=scan.files[0],
            got=", ".join(p.name for p in scan.files),
            expected=", ".join(f"{scan.name}_{i:04d} ({c})" for i, c in enumerate(self.contract.channels)),
            hint="give a folder with one file per channel, in this order",
        )

    def _grey(self, scan: Scan) -> list[str]:
        """A grey picture for a model of coloured ones is repeated in each colour."""
        if not self.grey.get(scan.name) or len(self.contract.channels) != len("rgb"):
            return []
        return [f"warning: {scan.files[0]}: a grey picture in the place of {', '.join(self.contract.channels)}"]

    def _untaught(self, where: Path, names: Sequence[str]) -> list[str]:
        taught = self.contract.taught_on(names)
        known = {s for n in self.contract.taught.values() for s in n}
        left = sorted(known - (known if taught is None else taught))
        on = f"{where}: not taught on {' or '.join(names)}"
        if self.masks and not isinstance(self.targets, str):  # what else was not asked for is no answer's business
            asked = ", ".join(n for n in left if n in self.targets)
            return [f"{on}, in the result because it was asked for: {asked}"] if asked else []
        gone = self.masks and bool(self.targets)
        done = "left out of the result" if gone else "what the result says of it was never learned"
        done += " unless an expert that stays finds it" if gone and self.stays else ""
        return [f"{on}, {done}: {', '.join(left)}"] if left else []


def write_records(
    targets: Mapping[str, Path],
    comparison: Comparison,
    facts: Mapping[str, Any],
    passes: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Write ``<result>.record.json`` beside each result that was not compared, or beside whose student experts stay.

    An earlier result's is removed.

    Args:
        targets: result by scan.
        comparison: with its notes.
        facts: further plain values: bundle, weights.
        passes: by scan, what ran.
    """
    for name, target in targets.items():
        ran = (passes or {}).get(name, {})
        record = target.with_name(f"{target.name}{RECORD}")
        if not comparison.ignore and not ran:
            if is_there(record):
                record.unlink()
            continue
        told = {"ignore_card": True, "expected": comparison.contract.told(), "notes": comparison.notes}
        content = {**facts, **(told if comparison.ignore else {}), **ran}
        with atomic_write(record) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
