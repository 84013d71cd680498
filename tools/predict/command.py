"""``python -m tools predict``: a scan in, a label map on the scan's own grid out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.contract import contract_of
from common.data.dicom.series import SeriesOptions
from common.data.io import read_volume
from common.data.pictures import is_picture, read_picture
from common.errors import ConfigError, DataError, GeometryError
from common.geometry import Grid
from common.scan_fit import COMPARED, mark_of

from ..bundle_files import find_bundle
from ..chain.trained import require_model
from ..terminal import say
from ..workflow import config_files, read_config, run_bundle
from .check import Comparison, write_records
from .delivery import check_apart, deliver, pages_of, seg_beside, stale, suffix_of, targets_of
from .dicom_results import check_results, result_kind, series_options, structure_names, write_results
from .passes import passes_of, stays_beside
from .prompt_options import GivenPrompts, given_prompts, prompt_entries, reads
from .scans import Scan, find_scans, readable

__all__ = ["predict"]


def predict(
    bundle: str,
    input: str,
    output: str,
    weights: str | None = None,
    task: str | None = None,
    overwrite: bool = False,
    points: dict[str, Any] | None = None,
    outside: dict[str, Any] | None = None,
    box: dict[str, Any] | None = None,
    prompts: str | None = None,
    space: str = "voxel",
    page: str | None = None,
    result: str | None = None,
    series: str | None = None,
    stack: int | None = None,
    fill_gaps: bool = False,
    straighten: bool = False,
    skip_broken: bool = False,
    skip_repeated: bool = False,
    ignore_card: bool = False,
    **overrides: Any,
) -> None:
    """Segment scans with a bundle.

    The bundle's ``inference.json`` is run on what is found at ``input``. Results appear in ``output`` together and only
    when every scan was segmented and lies on its scan's grid; until then they stay in a hidden folder.

    Args:
        bundle: name or folder, for example ``ka2er``.
        input: an image file, a folder of images, the folder of a DICOM series, or a folder of such folders.
        output: folder of the results, or a file name when there is one scan.
        weights: a ``model.pt`` other than the bundle's own.
        task: the task (dataset name) that the scans belong to, for bundles that ask.
        overwrite: replace results and pages of the same names, once the new ones are complete; without it they are
            refused.
        points: for promptable bundles, points inside objects of each scan: ``"{'liver': [[120, 80, 40]]}"``.
        outside: points that do not belong to them, written alike.
        box: boxes around them, low corner first: ``"{'liver': [[90, 50, 20], [170, 120, 60]]}"``.
        prompts: a JSON file with all of these, ``{"liver": {"inside": [...], "outside": [...], "box": [...]}}``, or
            such prompts by scan name.
        space: what the numbers are: ``voxel`` of the scan, or ``world`` for mm (RAS+).
        page: for promptable bundles, an HTML page of the session; a folder when there are several scans.
        result: for DICOM input, ``dicom_seg`` (the default: a DICOM SEG ``<scan>.dcm``), ``nifti`` or ``both``.
        series: which DICOM series of a folder with several: its UID, number or description.
        stack: which stack of a DICOM series that mixes phases, sizes or orientations; the refusal numbers them.
        fill_gaps: interpolate missing or unevenly spaced DICOM slices, and say which.
        straighten: undo the gantry tilt of a DICOM series.
        skip_broken: leave out DICOM files that are cut off or unreadable, and say which.
        skip_repeated: leave out DICOM slices that are there twice with the same pixels.
        ignore_card: segment scans of another modality than the model's card says; the result records it.
        overrides: ``--key value`` pairs that replace values of ``inference.json``; ``--keep False`` runs a student
            without the experts that ``amalgamate --keep`` left beside it.
    """
    accepted = series_options(
        series=series, stack=stack, fill_gaps=fill_gaps, straighten=straighten, skip_broken=skip_broken,
        skip_repeated=skip_repeated,
    )  # fmt: skip
    told = given_prompts(points=points, outside=outside, box=box, prompts=prompts, space=space)
    for target in segment(
        bundle, input, output, weights=weights, task=task, overwrite=overwrite, prompts=told, page=page,
        overrides=overrides, result=result, accepted=accepted, ignore_card=ignore_card,
    ).values():  # fmt: skip
        print(target)
        if result == "both":
            print(seg_beside(target))
    if page is not None:
        print(page)


def segment(
    bundle: str,
    source: str | Path,
    output: str | Path,
    *,
    weights: str | Path | None = None,
    task: str | None = None,
    overwrite: bool = False,
    prompts: GivenPrompts | None = None,
    page: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    result: str | None = None,
    accepted: SeriesOptions | None = None,
    ignore_card: bool = False,
) -> dict[str, Path]:
    """What :func:`predict` does, returning ``{scan name: result file}``; with ``both``, the SEG lies beside it.

    Raises:
        PromptError: for prompts that the bundle does not read, or that cannot be meant.
        DataError: when a scan cannot be read or is not what the model was taught on, names clash, results exist already
            or one is missing after the run.
        GeometryError: when a result does not lie on its scan's grid.
        ConfigError: for an unknown bundle or setting.
        WeightError: when the bundle has no model, with those that its runs left.
    """
    root = find_bundle(bundle)
    files = config_files(root, "inference")
    scans = find_scans(source)
    comparison = _comparison(root, weights, files, overrides or {}, ignore_card)
    if any(len(s.files) > 1 for s in scans):  # channels of one scan, or scans that are numbered so
        scans = find_scans(source, len(comparison.contract.channels) or None)
    scans = [comparison.ordered(scan) for scan in scans]
    kind = result_kind(result, Path(output), dicom=all(s.dicom for s in scans))
    if page is not None and "page_dir" not in read_config(files).get():
        raise ConfigError(
            "this bundle has no session to show", where=bundle, got="--page", expected="a promptable bundle"
        )
    pages = {} if page is None else pages_of(scans, Path(page), overwrite)
    require_model(root, read_config(files).get(), weights, overrides or {})
    recorded = ignore_card or stays_beside(_model_file(root, weights))
    targets = targets_of(scans, Path(source), Path(output), overwrite, kind, recorded=recorded)
    check_apart(targets, pages, kind)
    folder = next(iter(targets.values())).path.parent
    folder.mkdir(parents=True, exist_ok=True)
    hidden = Path(tempfile.mkdtemp(prefix=".predicting-", dir=folder)).resolve()  # nibabel would expand a "~"
    try:
        found = {s.name: readable(s, hidden / "scans", accepted, comparison.see) for s in scans}
        inputs = {name: paths for name, (paths, _) in found.items()}
        sources = {name: source for name, (_, source) in found.items() if source is not None}
        if kind != "nifti":
            check_results(sources)
        more = prompt_entries(
            prompts or GivenPrompts(), inputs, reads(read_config(files).get()), hidden / "prompts", bundle
        )
        own = {s.name: comparison.entry(s, found[s.name][1]) for s in scans}
        _say(comparison.notes)
        mark = {COMPARED: mark_of(comparison.contract)}
        more = {name: {**entry, **own[name], **mark} for name, entry in more.items()}
        literals = _literals(files, root, inputs, more, hidden / "out", weights, task)
        if "ignore_card" in read_config(files).get():
            literals["ignore_card"] = ignore_card
        if pages:
            literals["page_dir"] = str((hidden / "pages").resolve())
        config = run_bundle(files, overrides or {}, literals)
        results = {s.name: _result(s, hidden / "out", {o.name for o in scans}) for s in scans}
        for name, path in results.items():
            _check_grid(inputs[name][0], path)
        if kind != "dicom_seg":
            _print_names(structure_names(config, root))
        segs = {} if kind == "nifti" else write_results(results, sources, config, root, hidden / "seg")
        delivered = deliver(
            segs if kind == "dicom_seg" else results, targets, segs if kind == "both" else {}, pages, hidden
        )
        _say(stale(delivered, targets, both=kind == "both"))
        facts = {"bundle": root.resolve().name, "weights": comparison.contract.origin}
        write_records(delivered, comparison, facts, passes_of(config, delivered))
        return delivered
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _comparison(
    root: Path, weights: str | Path | None, files: Sequence[str], overrides: Mapping[str, Any], ignore: bool
) -> Comparison:
    """What the weights say of themselves, to be compared with the scans."""
    config = read_config(files).get()
    modality = overrides.get("modality", "") if "modality" in config else ""
    masks = "KeepTargetsd" in str(config.get("postprocessing")) and "contract" in config
    model = _model_file(root, weights)
    stays = stays_beside(model) and overrides.get("keep") is not False
    targets = _targets(files, overrides) if masks else "all"
    return Comparison(contract_of(model), ignore, str(modality or ""), masks, stays, targets)


def _targets(files: Sequence[str], overrides: Mapping[str, Any]) -> str | tuple[str, ...]:
    """Which structures the run leaves to compete, by its own settings; empty when that cannot be told."""
    parser = read_config(files)
    try:
        parser.update({k: v for k, v in overrides.items() if k == "targets" or k.endswith("::targets")})
        steps = parser["postprocessing::transforms"]
        at = next(i for i, s in enumerate(steps) if isinstance(s, dict) and "KeepTargetsd" in str(s.get("_target_")))
        found = parser.get_parsed_content(f"postprocessing::transforms::{at}::targets")
    except Exception:  # whatever is wrong with it, the run says so
        return ""
    return found if found in ("all", "task") else tuple(map(str, found)) if isinstance(found, list | tuple) else ""


def _model_file(root: Path, weights: str | Path | None) -> Path:
    return root / "models" / "model.pt" if weights is None else Path(weights)


def _say(notes: Sequence[str]) -> None:
    for note in notes:
        say(note, error=True)


def _print_names(names: Sequence[str]) -> None:
    """Which number of a label map is which structure."""
    if names:
        print(", ".join(f"{i} {name}" for i, name in enumerate(names, start=1)))


def _literals(
    files: Sequence[str],
    root: Path,
    inputs: Mapping[str, list[str]],
    entries: Mapping[str, Mapping[str, str]],
    out: Path,
    weights: str | Path | None,
    task: str | None,
) -> dict[str, Any]:
    """What the run gets of the user's files: as values, since the name of a file is no part of a configuration."""
    known = read_config(files).get()
    more = {} if task is None else {"task": task}
    items = [{"image": p[0] if len(p) == 1 else p, "case": name, **more, **entries[name]} for name, p in inputs.items()]
    values: dict[str, Any] = {"dataset::data": items, "output_dir": str(out.resolve())}
    if "bundle_root" in known:
        values["bundle_root"] = str(root.resolve())
    if weights is not None:
        values["model_path"] = str(Path(weights).resolve())
    return values


def _result(scan: Scan, folder: Path, scans: Container[str]) -> Path:
    """The file that is called as the scan; else as the scan with an ending, and not as another scan."""
    files = {p: p.name[: -len(suffix_of(p))] for p in sorted(folder.rglob("*")) if p.is_file() and suffix_of(p)}
    found = [p for p, name in files.items() if name == scan.name]
    found = found or [p for p, name in files.items() if name not in scans and name in _endings(scan.name)]
    if len(found) != 1:
        raise DataError(
            "the bundle did not write one result for this scan",
            where=scan.files[0],
            got=", ".join(p.name for p in found) or "nothing",
            hint="does postprocessing end with SavePredictiond, writing to @output_dir?",
        )
    return found[0]


def _endings(name: str) -> tuple[str, ...]:
    """What else bundles call the result of a scan."""
    return tuple(f"{name}_{ending}" for ending in ("pred", "seg", "trans"))


def _check_grid(scan: str, result: Path) -> None:
    options = {"dim": 3, "finite": False, "plausible_mm": None, "allow_shear": True}
    grids = [Grid.of(read_picture(p) if is_picture(p) else read_volume(p, **options)) for p in (scan, result)]  # type: ignore[arg-type]
    difference = grids[0].difference(grids[1])
    if difference:
        raise GeometryError(
            f"the result does not lie on the scan's grid: {difference}",
            where=scan,
            hint="postprocessing has to restore the grid (RestoreGridd)",
        )
