"""What an nnU-Net's plans may name: its own networks, layers and functions, and nothing else that can be imported.

nnU-Net imports whatever ``plans.json`` names and calls it. Plans come with an expert from elsewhere or inside the card
of a weights file, so that the names are compared with these lists before anything of the plans is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import WeightError
from ...literals import check_file_name

__all__ = ["check_plans"]

_NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet")
_NETWORK = re.compile(rf"dynamic_network_architectures\.architectures\.(unet|residual_unet)\.({'|'.join(_NETWORKS)})")
_LAYERS = {
    "conv_op": ("conv", ("Conv{}d",)),
    "norm_op": ("instancenorm|batchnorm|normalization", ("InstanceNorm{}d", "BatchNorm{}d", "GroupNorm", "LayerNorm")),
    "dropout_op": ("dropout", ("Dropout", "Dropout{}d", "AlphaDropout")),
    "nonlin": ("activation|linear", ("LeakyReLU", "ReLU", "ReLU6", "PReLU", "ELU", "CELU", "SELU", "GELU", "SiLU",
                                     "Mish", "Softplus", "Hardswish", "Tanh", "Sigmoid", "Identity")),
    "pool_op": ("pooling", ("MaxPool{}d", "AvgPool{}d")),
}  # fmt: skip
_BLOCK = re.compile(r"dynamic_network_architectures\.building_blocks\.residual\.(BasicBlockD|BottleneckD)")
_NAMES = {
    "preprocessor_name": ("DefaultPreprocessor",),
    "UNet_class_name": ("PlainConvUNet", "ResidualEncoderUNet"),
    **{f"resampling_fn_{what}": ("resample_data_or_seg_to_shape", "resample_torch_simple", "resample_torch_fornnunet")
       for what in ("data", "seg", "probabilities")},
}  # fmt: skip
_SIZED = ("spacing", "patch_size", "median_image_size_in_voxels")
_KINDS: dict[str, Callable[[Any], bool]] = {
    "spacing": lambda value: _length(value),
    "patch_size": lambda value: _count(value),
    "median_image_size_in_voxels": lambda value: _length(value),
    "normalization_schemes": lambda value: isinstance(value, str),
    "use_mask_for_norm": lambda value: isinstance(value, bool),
}
_STATISTICS = ("mean", "std", "percentile_00_5", "percentile_99_5")
_SCHEMES = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)


def check_plans(plans: Mapping[str, Any], configuration: str, *, where: object | None = None) -> None:
    """Refuse plans of which a name is not nnU-Net's own.

    Args:
        plans: content of a ``plans.json``.
        configuration: the one that is used, with those that it inherits from.
        where: the file or model that the plans come from.

    Raises:
        WeightError: with the entry, what it names and what it may name.
    """
    if not isinstance(plans.get("configurations"), Mapping):
        raise WeightError(
            "the plans have no configurations", where=where, got=type(plans.get("configurations")).__name__
        )
    for name, what in ((plans.get("plans_name", "none"), "plans_name"), (configuration, "configuration")):
        check_file_name(name, what, where=where, error=WeightError)  # both become parts of a folder's name
    found, config = plans.get("label_manager"), _inherited(plans, configuration, where)
    if found not in (None, "LabelManager"):
        raise _refused("label_manager", found, ("LabelManager",), where)
    for key, known in _NAMES.items():
        if key in config and not (isinstance(config[key], str) and config[key] in known):
            raise _refused(key, config[key], known, where)
    _check_kinds(plans, config, where)
    for scheme in config.get("normalization_schemes") or ():
        if scheme not in _SCHEMES:
            raise _refused("normalization_schemes", scheme, _SCHEMES, where)
    if "architecture" in config:
        _check_architecture(config["architecture"], where)


def _check_kinds(plans: Mapping[str, Any], config: Mapping[str, Any], where: object | None) -> None:
    """Refuse entries of another kind than nnU-Net writes, which would fail far from here."""
    axes = [2, 3]
    for key, fits in _KINDS.items():
        value = config.get(key)
        if value is None:
            continue
        if (
            not isinstance(value, list | tuple)
            or not all(map(fits, value))
            or (key in _SIZED and len(value) not in axes)
        ):
            raise WeightError(f"the plans have an entry of another kind: {key}", where=where, got=ascii(value)[:200])
        axes = [len(value)] if key in _SIZED else axes
    for key in ("transpose_forward", "transpose_backward"):
        order = plans.get(key)
        numbers = isinstance(order, list | tuple) and all(type(axis) is int for axis in order)
        if key in plans and not (numbers and sorted(order or ()) == [0, 1, 2]):
            problem = f"the plans have an entry of another kind: {key}"
            raise WeightError(problem, where=where, got=ascii(order)[:200], expected="0, 1, 2 in some order")
    _check_turns(plans, where)
    _check_intensities(plans, config, where)


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
    """Refuse statistics with which CTNormalization gives an empty or another map."""
    key = "foreground_intensity_properties_per_channel"
    given = plans[key] if key in plans else plans.get("foreground_intensity_properties_by_modality")  # as nnU-Net reads
    for channel, scheme in enumerate(config.get("normalization_schemes") or ()):
        if scheme != "CTNormalization":
            continue
        found = given.get(str(channel)) if isinstance(given, Mapping) else None
        values: list[Any] = [found.get(key) for key in _STATISTICS] if isinstance(found, Mapping) else []
        if not values or not all(map(_finite, values)) or not (values[1] > 0 and values[2] < values[3]):
            raise WeightError(
                f"the plans have no usable intensity statistics of channel {channel}",
                where=where,
                got=ascii(found)[:200],
                expected=f"{', '.join(_STATISTICS)}: finite numbers, std > 0, the low percentile below the high one",
            )


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30  # NaN is not


def _length(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e6


def _count(value: Any) -> bool:
    return type(value) is int and 0 < value < 1_000_000


def _inherited(plans: Mapping[str, Any], configuration: str, where: object | None) -> dict[str, Any]:
    """A configuration with what it takes from others, as nnU-Net combines them."""
    found: dict[str, Any] = {}
    seen: list[str] = []
    name: Any = configuration
    while name is not None:
        own = plans["configurations"].get(name) if isinstance(name, str) else None
        if name in seen or not isinstance(own, Mapping):
            raise WeightError(
                "the plans inherit from what is not there", where=where, got=" -> ".join([*seen, str(name)])
            )
        seen.append(name)
        found = {**own, **found}
        name = own.get("inherits_from")
    return found


def _check_architecture(architecture: Any, where: object | None) -> None:
    if not isinstance(architecture, Mapping) or not isinstance(architecture.get("arch_kwargs"), Mapping):
        raise WeightError("the plans do not describe a network", where=where, got=type(architecture).__name__)
    name = architecture.get("network_class_name")
    if not isinstance(name, str) or not _NETWORK.fullmatch(name):
        raise _refused("network_class_name", name, _NETWORKS, where)
    given = architecture["arch_kwargs"]
    imported = architecture.get("_kw_requires_import") or ()
    if not isinstance(imported, list | tuple) or not all(isinstance(key, str) for key in imported):
        raise _refused("_kw_requires_import", imported, (*_LAYERS, "block"), where)
    for key in imported:
        value = given.get(key)
        if value is not None and not (isinstance(value, str) and _is_layer(key, value)):
            known = _LAYERS[key][1] if key in _LAYERS else ("BasicBlockD", "BottleneckD") if key == "block" else ()
            raise _refused(key, value, [n.format("N") for n in known], where)


def _is_layer(key: str, value: str) -> bool:
    if key == "block":
        return _BLOCK.fullmatch(value) is not None
    if key not in _LAYERS:
        return False
    modules, names = _LAYERS[key]
    every = "|".join(name.format("[123]") for name in names)
    return re.fullmatch(rf"torch\.nn\.(modules\.({modules})\.)?({every})", value) is not None


def _refused(key: str, got: Any, known: Any, where: object | None) -> WeightError:
    return WeightError(
        f"the plans name something that is not nnU-Net's own: {key}",
        where=where,
        got=ascii(got)[:200],
        expected=", ".join(known) or "no such entry",
        hint="plans are data, and nothing else that they name is imported; export this network as TorchScript instead",
    )
