"""What an nnU-Net's plans may name: its own networks, layers and functions, and nothing else that can be imported.

nnU-Net imports whatever ``plans.json`` names and calls it. Plans come with an expert from elsewhere or inside the card
of a weights file, so that the names are compared with these lists before anything of the plans is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...errors import WeightError
from ...literals import check_file_name
from .form import check_form

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
_SCHEMES = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)


def check_plans(
    plans: Mapping[str, Any], configuration: str, *, channels: int | None = None, where: object | None = None
) -> None:
    """Refuse plans of which a name is not nnU-Net's own, or that have another form than nnU-Net's.

    Args:
        plans: content of a ``plans.json``.
        configuration: the one that is used, with those that it inherits from.
        channels: how many they are for, where that is known.
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
    check_form(plans, config, channels=channels, where=where)
    for scheme in config.get("normalization_schemes") or ():
        if scheme not in _SCHEMES:
            raise _refused("normalization_schemes", scheme, _SCHEMES, where)
    if "architecture" in config:
        _check_architecture(config["architecture"], where)


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
