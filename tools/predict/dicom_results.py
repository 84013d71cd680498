"""What ``predict`` does for DICOM: which faults of a series are accepted, and results as DICOM segmentations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.bundle import ConfigParser

import common
from common.data.dicom.seg import Algorithm, check_sources, write_seg
from common.data.dicom.series import DicomVolume, SeriesOptions
from common.data.dicom.slices import Slice
from common.engine.monitor.overlays import class_colors
from common.errors import AmalgamationError, ConfigError
from common.geometry import Grid
from common.integrity import file_hash
from common.labels import BACKGROUND, LabelSpace
from common.literals import odd_in
from common.whole_numbers import whole_number

from ..bundle_files import read_json

__all__ = [
    "RESULT_KINDS",
    "Source",
    "check_results",
    "result_kind",
    "series_options",
    "structure_names",
    "structures",
    "write_results",
]

RESULT_KINDS = ("dicom_seg", "nifti", "both")


@dataclass(frozen=True)
class Source:
    """A DICOM series without its voxels: the slices, and the grid on which it was segmented."""

    slices: tuple[Slice, ...]
    grid: Grid

    @classmethod
    def of(cls, volume: DicomVolume) -> Source:
        """What is kept of a series that was read."""
        return cls(volume.slices, Grid.of(volume.image))


def series_options(
    *, series: Any, stack: Any, fill_gaps: bool, straighten: bool, skip_broken: bool, skip_repeated: bool
) -> SeriesOptions:
    """The options as the command line gives them (Fire turns numbers into numbers).

    Raises:
        ConfigError: for a stack that is no number, or a switch that is neither True nor False.
    """
    if stack is not None and (isinstance(stack, bool) or not isinstance(stack, int)):
        raise ConfigError("a stack is a number, as the message lists them", where="--stack", got=stack)
    switches = {"fill_gaps": fill_gaps, "straighten": straighten, "skip_broken": skip_broken,
                "skip_repeated": skip_repeated}  # fmt: skip
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ConfigError("a switch is True or False", where=f"--{name}", got=value)
    return SeriesOptions(None if series is None else str(series), stack, **switches)


def result_kind(asked: str | None, output: Path, *, dicom: bool) -> str:
    """``dicom_seg``, ``nifti`` (any volume file) or ``both``: what was asked for, else by the output's name and input.

    Raises:
        ConfigError: for an unknown kind, one that contradicts the file's name, or a SEG of an input that is not DICOM.
    """
    named = "dicom_seg" if output.suffix.lower() == ".dcm" else None
    if named is None and output.name.lower().endswith((".nii.gz", ".nii", ".nrrd", ".mha", ".png")):
        named = "nifti"
    if asked is not None and asked not in RESULT_KINDS:
        raise ConfigError("unknown kind of result", where="--result", got=asked, expected=", ".join(RESULT_KINDS))
    kind = asked or named or ("dicom_seg" if dicom else "nifti")
    if (kind == "dicom_seg" and named == "nifti") or (kind != "dicom_seg" and named == "dicom_seg"):
        hint = "name a folder, or leave --result out"
        raise ConfigError("the file's name contradicts --result", where=output, got=f"--result {kind}", hint=hint)
    if kind != "nifti" and not dicom:
        problem = "a DICOM SEG refers to DICOM slices, and the input is not DICOM"
        raise ConfigError(problem, got=kind, expected="a result as NIfTI", hint="leave --result out")
    return kind


def check_results(sources: Mapping[str, Source]) -> None:
    """Refuse, before anything is computed, series that a SEG could not refer to.

    Raises:
        DataError: naming the file and what it lacks.
        ConfigError: when highdicom is missing.
    """
    for source in sources.values():
        check_sources(source.slices)


def write_results(
    results: Mapping[str, Path], sources: Mapping[str, Source], config: ConfigParser, bundle: Path, folder: Path
) -> dict[str, Path]:
    """Write label maps as DICOM segmentations ``<folder>/<scan>.dcm``.

    Args:
        results: label map file by scan.
        sources: series by scan.
        config: the configuration that made them, resolved.
        bundle: its folder.
        folder: for the files.

    Raises:
        AmalgamationError: as :func:`common.data.dicom.seg.write_seg`.
    """
    algorithm, written = _algorithm(config, bundle), {}
    for name, path in results.items():
        label = np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
        labels = structures(config, bundle, int(label.max()))
        source = sources[name]
        written[name] = write_seg(
            label, labels, source.grid, source.slices, folder / f"{name}.dcm",
            algorithm=algorithm, colors=class_colors(len(labels)),
        ).path  # fmt: skip
    return written


def structures(config: ConfigParser, bundle: Path, highest: int) -> LabelSpace:
    """Names of a label map's values: the configuration's ``labels`` or ``names``, else the metadata's ``channel_def``.

    A bundle of somebody else's may say neither; its structures are then called by their numbers.
    """
    names = structure_names(config, bundle)
    return LabelSpace(names or tuple(f"structure {i}" for i in range(1, max(1, highest) + 1)))


def structure_names(config: ConfigParser, bundle: Path) -> tuple[str, ...]:
    """Names of a label map's values from 1 on, as :func:`structures`; empty when nobody says them."""
    for key in ("labels", "names"):
        found = config.get_parsed_content(key) if key in config.get() else None
        if isinstance(found, LabelSpace):
            return found.names
        if isinstance(found, Sequence) and found and all(isinstance(n, str) for n in found):
            return tuple(found)
    channels = _channel_def(_metadata(bundle))
    if channels.get("0", "").lower() != BACKGROUND or not all(whole_number(c) is not None for c in channels):
        return ()  # an image, or masks that may overlap
    return tuple(channels[i] for i in sorted(channels, key=int) if channels[i].lower() != BACKGROUND)


def _channel_def(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What the first output's channels are, of metadata that may be anybody's; empty when it is not said in names."""
    found: Any = metadata
    for key in ("network_data_format", "outputs"):
        found = found.get(key) if isinstance(found, Mapping) else None
    first = next(iter(found.values()), None) if isinstance(found, Mapping) else None
    channels = first.get("channel_def") if isinstance(first, Mapping) else None
    if not isinstance(channels, Mapping) or not all(isinstance(n, str) and not odd_in(n) for n in channels.values()):
        return {}
    return {str(number): name for number, name in channels.items()}


def _metadata(bundle: Path) -> dict[str, Any]:
    try:
        return read_json(bundle / "configs" / "metadata.json")
    except AmalgamationError:
        return {}


def _algorithm(config: ConfigParser, bundle: Path) -> Algorithm:
    metadata = _metadata(bundle)
    parameters = {"software": f"amalgam-bundles {common.__version__}"}
    if "ignore_card" in config.get() and config.get_parsed_content("ignore_card"):
        parameters["ignore_card"] = "True: the data were not compared with what the model was taught on"
    path = Path(str(config.get_parsed_content("model_path"))) if "model_path" in config.get() else None
    if path is not None and path.is_file():
        parameters["weights sha256"] = file_hash(path)
    return Algorithm(bundle.resolve().name, str(metadata.get("version", "")), parameters)
