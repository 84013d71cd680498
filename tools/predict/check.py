"""What ``predict`` compares before anything is computed: scans with what the model's card says it was taught on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from monai.data import MetaTensor

from common.atomic import atomic_write
from common.command_words import shown_option
from common.contract import OVERRIDE, Contract
from common.data.datasets.described import Description, about_structures, described
from common.dicom_tags import doubts, of_dicom
from common.errors import DataError
from common.intensity_range import Range, range_of
from common.modalities import meanings, same
from common.paths import is_there

from .delivery import RECORD
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
        ranges: of each scan's channels, by its name.
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
        modality, channels = self.modality or said.modality, said.channels or None
        called = [n for n in (modality, *said.channels[: len(said.channels) == 1]) if n]
        kind = of_dicom(tag, called)
        other = [n for n in called if kind and same(kind, n) is False]
        if other and not self.ignore:
            hint = f"choose another, or add {OVERRIDE}" if self.modality else f"correct {said.file}, or add {OVERRIDE}"
            problem = "DICOM says that the scan is something else"
            expected = shown_option("modality", self.modality) if self.modality else f"{other[0]} ({said.file})"
            raise DataError(problem, where=where, got=tag, expected=expected, hint=hint)
        fit = self.contract.fit(channels, modality, tag=tag, where=where, ignore=self.ignore)
        told, names = [*self._grey(scan), *fit.notes], fit.modalities
        told += [f"{where}: {line}" for line in doubts(tag, (*called, *fit.modalities))]
        sure = bool(modality or kind or any(map(meanings, said.channels)))
        if self.thin.get(scan.name) and {m.get("dim") for m in self.contract.modalities.values()} != {2}:
            told.append(f"warning: {where}: one slice alone, for a model that learned from volumes")
        if len(names) > 1 and not sure:
            names, more = self._by_intensities(scan, names)
            told += [f"{where}: {line}" for line in more]
        reason = self.contract.odd(self.ranges.get(scan.name, ()), names)
        if reason:
            shown = "; ".join(map(str, self.ranges[scan.name]))
            told.append(f"warning: {where}: intensities {shown}; {reason}. Is it stored in the unit that the model "
                        "learned from (HU for CT)? The result is not to be trusted before that is clear")  # fmt: skip
        sure = sure or len(names) < len(fit.modalities)
        told += self._untaught(where, names) if sure else []
        self.notes += told
        return {"modality": names[0]} if len(names) == 1 and (sure or len(self.contract.modalities) == 1) else {}

    def _by_intensities(self, scan: Scan, names: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
        """What a scan of which nobody says what it is can be by its intensities, and what to say of it."""
        ranges = self.ranges.get(scan.name, ())
        kept = tuple(n for n in names if self.contract.odd(ranges, [n]) is None) or tuple(names)
        told = self.contract.unsettled(kept)
        if len(kept) < len(names):
            left = ", ".join(n for n in names if n not in kept)
            told.append(f"taken for {' or '.join(kept)}: its intensities are none of {left}; nobody says what it is")
        return kept, told

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
        done = "left out of the result" if self.masks else "what the result says of it was never learned"
        done += " unless an expert that stays finds it" if self.masks and self.stays else ""
        return [f"{where}: not taught on {' or '.join(names)}, {done}: {', '.join(left)}"] if left else []


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
