"""The form of nnU-Net's plans: which entries there must be, of which kind and length, and what their numbers may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import WeightError, few
from ...literals import check_file_name

__all__ = ["check_form"]

_SPACING = (0.001, 1000.0)  # mm
_MOST_IN_PATCH = 2**27  # voxels; 512 x 512 x 512
_RESAMPLED = ("data", "seg", "probabilities")
_LISTS: dict[str, Callable[[Any], bool]] = {
    "spacing": lambda value: _finite(value) and _SPACING[0] <= value <= _SPACING[1],
    "patch_size": lambda value: _count(value),
    "median_image_size_in_voxels": lambda value: _finite(value) and 0 < value < 1e6,
    "normalization_schemes": lambda value: isinstance(value, str),
    "use_mask_for_norm": lambda value: isinstance(value, bool),
}
_SIZED = ("spacing", "patch_size", "median_image_size_in_voxels")
_PER_CHANNEL = ("normalization_schemes", "use_mask_for_norm")
_SINGLE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "batch_size": (lambda value: _count(value), "a whole number above 0"),
    "batch_dice": (lambda value: isinstance(value, bool), "true or false"),
    "previous_stage": (lambda value: value is None or isinstance(value, str), "the name of a configuration, or null"),
    "next_stage": (lambda value: value is None or isinstance(value, str) or _texts(value), "names, or null"),
}
_REQUIRED = ("spacing", "patch_size", "batch_size", *_PER_CHANNEL, "preprocessor_name",
             *(f"resampling_fn_{what}{end}" for what in _RESAMPLED for end in ("", "_kwargs")))  # fmt: skip
_TURNS = ("transpose_forward", "transpose_backward")
_STATISTICS = ("mean", "std", "percentile_00_5", "percentile_99_5")
_INTENSITIES = ("foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality")
_MODES = ("linear", "nearest", "nearest-exact", "area")
_SWITCH = (lambda value: isinstance(value, bool), "true or false")
_ORDER = (lambda value: type(value) is int and 0 <= value <= 5, "a whole number from 0 to 5")
_APART: dict[str, tuple[Callable[[Any], bool], str]] = {
    "force_separate_z": (lambda value: value is None or isinstance(value, bool), "true, false or null"),
    "separate_z_anisotropy_threshold": (lambda value: _finite(value) and value > 0, "a number above 0"),
}
_SPLINE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "is_seg": _SWITCH, "order": _ORDER, "order_z": _ORDER, **_APART,
}  # fmt: skip
_TORCH: dict[str, tuple[Callable[[Any], bool], str]] = {
    "is_seg": _SWITCH,
    "memefficient_seg_resampling": _SWITCH,
    "num_threads": (lambda value: _count(value) and value <= 1024, "a whole number from 1 to 1024"),
    "device": (lambda value: value in ("cpu", "cuda"), "cpu or cuda"),
    "mode": (lambda value: value in _MODES, ", ".join(_MODES)),
}
_KWARGS = {
    "resample_data_or_seg_to_shape": _SPLINE,
    "resample_torch_simple": _TORCH,
    "resample_torch_fornnunet": {**_TORCH, **_APART, "aniso_axis_mode": _TORCH["mode"]},
}


def check_form(
    plans: Mapping[str, Any], config: Mapping[str, Any], *, channels: int | None = None, where: object | None = None
) -> None:
    """Refuse what nnU-Net does not write, and would end at somewhere in the middle of a scan.

    Args:
        plans: content of a ``plans.json``.
        config: the configuration with what it inherits.
        channels: how many the plans are for, where that is known.
        where: the file or model that they come from.

    Raises:
        WeightError: naming the entry.
    """
    _check_lists(config, where)
    for key in _TURNS:
        order = plans.get(key)
        numbers = isinstance(order, list | tuple) and all(type(axis) is int for axis in order)
        if key in plans and not (numbers and sorted(order or ()) == [0, 1, 2]):
            raise _other(key, order, "0, 1, 2 in some order", where)
    _check_turns(plans, where)
    missing = [k for k in _REQUIRED if config.get(k) is None] + [k for k in _TURNS if k not in plans]
    if missing:
        raise WeightError(f"the plans have no {missing[0]}", where=where, got=few(list(map(str, config))),
                          expected=", ".join(missing))  # fmt: skip
    for key, (fits, expected) in _SINGLE.items():
        if key in config and not fits(config[key]):
            raise _other(key, config[key], expected, where)
    if "data_identifier" in config:
        check_file_name(config["data_identifier"], "data_identifier", where=where, error=WeightError)
    _check_channels(config, channels, where)
    for what in _RESAMPLED:
        _check_kwargs(f"resampling_fn_{what}", config, where)
    _check_patch(plans, config, where)
    _check_intensities(plans, config, where)


def _check_lists(config: Mapping[str, Any], where: object | None) -> None:
    axes = [2, 3]
    for key, fits in _LISTS.items():
        value = config.get(key)
        if value is None:
            continue
        if not isinstance(value, list | tuple) or not all(map(fits, value)) or not value:
            raise _other(key, value, f"from {_SPACING[0]} to {_SPACING[1]} mm" if key == "spacing" else None, where)
        if key in _SIZED and len(value) not in axes:
            raise _other(key, value, f"{' or '.join(map(str, axes))} numbers", where)
        axes = [len(value)] if key in _SIZED else axes


def _check_channels(config: Mapping[str, Any], channels: int | None, where: object | None) -> None:
    """Refuse normalisations of another number of channels than there are."""
    count = len(config[_PER_CHANNEL[0]]) if channels is None else channels
    for key in _PER_CHANNEL:
        if len(config[key]) != count:
            raise _other(key, config[key], f"one for each of {count} channels", where)


def _check_kwargs(name: str, config: Mapping[str, Any], where: object | None) -> None:
    """Refuse arguments that the resampling does not take, or not so."""
    key, given, known = f"{name}_kwargs", config[f"{name}_kwargs"], _KWARGS[config[name]]
    if not isinstance(given, Mapping):
        raise _other(key, given, "a mapping", where)
    for argument, value in given.items():
        fits, expected = known.get(argument, (None, ""))
        if fits is None:
            raise _other(f"{key}.{argument!a}", value, f"only {', '.join(known)}", where)
        if not fits(value):
            raise _other(f"{key}.{argument}", value, expected, where)


def _check_patch(plans: Mapping[str, Any], config: Mapping[str, Any], where: object | None) -> None:
    """Refuse a patch that the network's strides do not divide, or that no machine holds."""
    patch = config["patch_size"]
    if math.prod(patch) > _MOST_IN_PATCH:
        raise _other("patch_size", patch, f"at most {_MOST_IN_PATCH:,} voxels", where)
    total = _strides(config, len(patch))
    if total is not None and any(n % s for n, s in zip(patch, total, strict=True)):
        raise WeightError("the patch is not divided by the network's strides", where=where, got=f"patch_size {patch}",
                          expected=f"multiples of {total}")  # fmt: skip
    median = plans.get("original_median_spacing_after_transp")
    plain = isinstance(median, list | tuple) and len(median) == 3 and all(_finite(s) and s > 0 for s in median)
    if not plain and (median is not None or len(patch) == 2):  # of a slice, it says how far the next one is
        raise _other("original_median_spacing_after_transp", median, "3 numbers above 0", where)


def _strides(config: Mapping[str, Any], axes: int) -> list[int] | None:
    """By how much all stages together make a patch smaller, along each axis; None where the network judges it."""
    architecture = config.get("architecture")
    own = architecture.get("arch_kwargs") if isinstance(architecture, Mapping) else None
    given = own.get("strides") if isinstance(own, Mapping) else config.get("pool_op_kernel_sizes")
    rows = given if isinstance(given, list | tuple) else []
    if not rows or not all(isinstance(r, list | tuple) and len(r) == axes and all(map(_count, r)) for r in rows):
        return None
    return [math.prod(row[axis] for row in rows) for axis in range(axes)]


def _check_turns(plans: Mapping[str, Any], where: object | None) -> None:
    """Refuse an order of axes that the way back does not undo: the label map would lie elsewhere in the patient."""
    forward, backward = plans.get("transpose_forward"), plans.get("transpose_backward")
    if forward is None and backward is None:
        return
    if forward is None or backward is None or any(backward[axis] != i for i, axis in enumerate(forward)):
        raise WeightError(
            "the plans turn a scan's axes and do not turn them back",
            where=where,
            got=f"transpose_forward {forward}, transpose_backward {backward}",
            expected="transpose_backward undoes transpose_forward",
        )


def _check_intensities(plans: Mapping[str, Any], config: Mapping[str, Any], where: object | None) -> None:
    """Refuse statistics with which CTNormalization gives an empty or another map; nnU-Net looks for all channels'."""
    given = plans[_INTENSITIES[0]] if _INTENSITIES[0] in plans else plans.get(_INTENSITIES[1])  # as nnU-Net reads
    for channel, scheme in enumerate(config["normalization_schemes"]):
        found = given.get(str(channel)) if isinstance(given, Mapping) else None
        values: list[Any] = [found.get(key) for key in _STATISTICS] if isinstance(found, Mapping) else []
        right = all(map(_finite, values)) and bool(values) and values[1] > 0 and values[2] < values[3]
        if not (right if scheme == "CTNormalization" else values):
            raise WeightError(
                f"the plans have no usable intensity statistics of channel {channel}",
                where=where,
                got=ascii(found if isinstance(given, Mapping) else given)[:200],
                expected=f"{', '.join(_STATISTICS)}: finite numbers, std > 0, the low percentile below the high one",
            )


def _other(key: str, got: Any, expected: str | None, where: object | None) -> WeightError:
    problem = f"the plans have an entry of another kind: {key}"
    return WeightError(problem, where=where, got=ascii(got)[:200], expected=expected)


def _texts(value: Any) -> bool:
    return isinstance(value, Sequence) and all(isinstance(entry, str) for entry in value)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30  # NaN is not


def _count(value: Any) -> bool:
    return type(value) is int and 0 < value < 1_000_000
