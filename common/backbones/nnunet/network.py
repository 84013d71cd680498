"""nnU-Net v2 networks and results folders, read without running any of their code or needing their trainer class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...command_words import shown_option
from ...errors import WeightError
from ...literals import check_file_name
from ...paths import check_path
from ...plain_json import read_object
from ...weights import read_beside_weights, read_state_dict
from .allowed import check_plans
from .calls import asked, quiet
from .description import channel_names, check_description, labels_of, output_channels, reorients
from .folds import EXPECTED, is_fold
from .scripting import scriptable

__all__ = [
    "NNUNetResults",
    "build_network",
    "check_described",
    "deep_supervision_when_training",
    "describe_results",
    "load_network",
    "mirroring_axes",
    "plan_managers",
    "read_json",
    "read_results_folder",
]

PLANAR = 2  # entries of the patch size of a 2-D configuration


@dataclass(frozen=True)
class NNUNetResults:
    """What a nnU-Net results folder says about one trained network.

    Args:
        folder: the folder ``{Trainer}__{Plans}__{configuration}`` that holds ``plans.json`` and ``dataset.json``.
        configuration: ``2d``, ``3d_fullres``, ``3d_lowres``, ...
        fold: ``0..4`` or ``"all"``.
        checkpoint: the weight file of that fold.
        plans: the parsed ``plans.json``.
        dataset_json: the parsed ``dataset.json``.
        trainer: name of the trainer class that wrote it; never imported.
    """

    folder: Path
    configuration: str
    fold: int | str
    checkpoint: Path
    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    trainer: str

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The network's state dict, without the prefixes that compiled or parallel networks add."""
        state, _ = read_state_dict(self.checkpoint)
        return {re.sub(r"^(module\.|_orig_mod\.)+", "", key): value for key, value in state.items()}

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that decide what the network computes."""
        return self.folder / "plans.json", self.folder / "dataset.json", self.checkpoint


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object and name the file when it is missing or broken."""
    return read_object(path, error=WeightError, problem="cannot read this file", expected="a JSON object")


def plan_managers(
    plans: Mapping[str, Any], configuration: str, *, channels: int | None = None, where: object | None = None
) -> tuple[Any, Any]:
    """nnU-Net's ``PlansManager`` and ``ConfigurationManager``; plans without an ``architecture`` are converted.

    Args:
        plans: content of a ``plans.json``.
        configuration: of the plans.
        channels: how many the plans are for, where that is known.
        where: the file or model that they come from.

    Raises:
        WeightError: when the plans do not have the configuration, name what is not nnU-Net's own, or have another form.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    offered = plans.get("configurations", {})
    known = [str(name) for name in offered] if isinstance(offered, Mapping) else []
    if configuration not in known:
        raise WeightError(
            "the plans do not have this configuration", where=where, got=configuration, expected=", ".join(known)
        )
    check_plans(plans, configuration, channels=channels, where=where)
    try:
        with quiet():
            manager = PlansManager(dict(plans))
            return manager, manager.get_configuration(configuration)
    except Exception as error:  # of nnU-Net, for entries of another kind
        raise WeightError("nnU-Net cannot read these plans", where=where, got=ascii(error)[:200]) from error


def check_described(
    plans: Mapping[str, Any], dataset_json: Mapping[str, Any], configuration: str, *, where: object, described: object
) -> None:
    """Refuse plans and descriptions that nnU-Net does not write, of a results folder and of a card alike.

    Args:
        plans: content of a ``plans.json``.
        dataset_json: content of the ``dataset.json`` beside it.
        configuration: of the plans.
        where: the file, or the card's entry, of the plans.
        described: that of the description.

    Raises:
        WeightError: naming the entry.
        LabelError: for structures that are none.
    """
    names = check_description(dataset_json, where=described)
    manager, _ = plan_managers(plans, configuration, channels=len(names), where=where)
    with asked(described):
        manager.get_label_manager(dataset_json)


def build_network(
    plans: Mapping[str, Any] | str | Path,
    configuration: str,
    *,
    in_channels: int,
    out_channels: int,
    deep_supervision: bool = False,
    where: object | None = None,
) -> nn.Module:
    """Build the network that the plans describe.

    Args:
        plans: the content or the path of a ``plans.json``.
        configuration: ``2d``, ``3d_fullres``, ``3d_lowres``, ...
        in_channels: number of image channels C.
        out_channels: number of logits, K + 1 for exclusive structures.
        deep_supervision: return the logits of all decoder stages (finest first) instead of the finest alone.
        where: the file or model that the plans come from; their path where it is given.

    Returns:
        ``[B, C, *patch]`` to ``[B, out_channels, *patch]``, axes in nnU-Net's order (slowest spacing first).
    """
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    content = read_json(Path(plans)) if isinstance(plans, str | Path) else plans
    where = plans if where is None and isinstance(plans, str | Path) else where
    _, config = plan_managers(content, configuration, where=where)
    try:
        with quiet():
            network: nn.Module = get_network_from_plans(
                config.network_arch_class_name,
                config.network_arch_init_kwargs,
                config.network_arch_init_kwargs_req_import,
                in_channels,
                out_channels,
                allow_init=True,
                deep_supervision=deep_supervision,
            )
    except ImportError as error:
        raise WeightError("cannot find this architecture", where=where, got=config.network_arch_class_name) from error
    except Exception as error:  # of the network, for arguments of another kind
        got = ascii(error)[:200]
        raise WeightError("the plans do not describe a network that can be built", got=got, where=where) from error
    return network if deep_supervision else scriptable(network, channels=in_channels, patch=config.patch_size)


def _supervise_when_training(module: nn.Module, _: Any) -> None:
    decoder: Any = module.decoder
    decoder.deep_supervision = module.training


def deep_supervision_when_training(network: nn.Module) -> nn.Module:
    """Let a nnU-Net network return all decoder stages in ``train()`` and only the finest logits in ``eval()``."""
    network.register_forward_pre_hook(_supervise_when_training)
    return network


def _candidates(path: Path) -> list[Path]:
    if (path / "plans.json").is_file():
        return [path]
    found = [p.parent for depth in ("*", "*/*", "*/*/*") for p in sorted(path.glob(f"{depth}/plans.json"))]
    return [folder for folder in found if folder.name.count("__") == 2]


def _pick(path: Path, configuration: str | None) -> tuple[Path, str]:
    candidates = _candidates(path)
    if configuration is not None and len(candidates) > 1:
        candidates = [c for c in candidates if c.name.endswith(f"__{configuration}")]
    if len(candidates) != 1:
        expected = "{Trainer}__{Plans}__{configuration} with plans.json, dataset.json and fold_*"
        raise WeightError("not one nnU-Net results folder", where=path, expected=expected,
                          got=[c.name for c in candidates] or "no folder with plans.json",
                          hint="give the folder itself, or name the configuration")  # fmt: skip
    name = candidates[0].name
    return candidates[0], configuration or (name.split("__")[-1] if "__" in name else "3d_fullres")


def read_results_folder(
    path: str | Path, configuration: str | None = None, fold: int | str = 0, checkpoint: str = "checkpoint_final.pth"
) -> NNUNetResults:
    """Find plans, labels and weights in a results folder of nnU-Net, TotalSegmentator or our own bundles.

    Args:
        path: the folder ``{Trainer}__{Plans}__{configuration}``, or one that contains exactly one of these.
        configuration: needed only when ``path`` contains several.
        fold: ``0..4`` or ``"all"``.
        checkpoint: file name of the weights.

    Raises:
        WeightError: when the folder, the configuration, the fold or a file is missing.
    """
    folder, configuration = _pick(check_path(path, what="results folder", error=WeightError), configuration)
    plans, dataset_json = read_json(folder / "plans.json"), read_json(folder / "dataset.json")
    check_described(plans, dataset_json, configuration, where=folder / "plans.json", described=folder / "dataset.json")
    if not is_fold(fold):
        raise WeightError("not a fold of nnU-Net", where=folder, got=f"{str(fold)!a:.100}", expected=EXPECTED)
    check_file_name(checkpoint, "checkpoint", where=folder, error=WeightError)
    weights = folder / f"fold_{fold}" / checkpoint
    if not weights.is_file():
        here = [p.relative_to(folder) for p in sorted(folder.glob("fold_*/*.pth"))]
        got = ", ".join(p.as_posix() for p in here) or "no fold_*/*.pth in the folder"
        raise WeightError("the weights are missing", where=weights, got=got, hint=_others(here, fold, checkpoint))
    return NNUNetResults(folder, configuration, fold, weights, plans, dataset_json, folder.name.split("__")[0])


def _others(here: list[Path], fold: int | str, checkpoint: str) -> str | None:
    """The options that take weights that are there, the same file of another fold first."""
    here = [p for p in here if is_fold(p.parts[0].removeprefix("fold_"))]
    files = [p.name for p in here if p.parts[0] == f"fold_{fold}"]
    every = [(p.parts[0].removeprefix("fold_"), p.name) for p in here]
    options = [shown_option("fold", p.parts[0].removeprefix("fold_")) for p in here if p.name == checkpoint]
    options = options or [shown_option("checkpoint", name) for name in files]
    options = options or [f"{shown_option('fold', f)} {shown_option('checkpoint', n)}" for f, n in every]
    return "take what is there: " + " or ".join(options) if options else None


def load_network(results: NNUNetResults) -> nn.Module:
    """Build the network of a results folder from its plans and load every weight.

    Raises:
        WeightError: when one tensor is missing, left over or of another shape.
    """
    described = results.folder / "dataset.json"
    network = build_network(
        results.plans,
        results.configuration,
        in_channels=len(channel_names(results.dataset_json, where=described)),
        out_channels=output_channels(labels_of(results.dataset_json, where=described)),
        where=results.folder / "plans.json",
    )
    try:
        network.load_state_dict(results.weights, strict=True)
    except RuntimeError as error:
        hint = f"trainer {results.trainer} may change the architecture; export it as TorchScript instead"
        raise WeightError("the weights do not fit the network that the plans describe", where=results.checkpoint,
                          got=str(error)[:500], hint=hint) from error  # fmt: skip
    return network.eval()


def mirroring_axes(results: NNUNetResults) -> tuple[int, ...] | None:
    """Axes (of the transposed volume) along which the training mirrored, so that inference may; None for none.

    Raises:
        WeightError: when the checkpoint names others than the configuration has.
    """
    found = read_beside_weights(results.checkpoint, "inference_allowed_mirroring_axes")
    if found is None or (isinstance(found, list | tuple) and not found):
        return None
    axes = len(plan_managers(results.plans, results.configuration, where=results.folder)[1].patch_size)
    if (
        not isinstance(found, list | tuple)
        or len(set(map(repr, found))) < len(found)
        or not all(type(a) is int and 0 <= a < axes for a in found)
    ):
        raise WeightError("the checkpoint mirrors along axes that there are not", where=results.checkpoint,
                          got=ascii(found)[:100], expected=f"some of 0 .. {axes - 1}, each once")  # fmt: skip
    return tuple(found)


def describe_results(results: NNUNetResults) -> dict[str, Any]:
    """Labels, channels, spacing (x, y, z in mm), orientation and configuration of a results folder."""
    manager, config = plan_managers(results.plans, results.configuration, where=results.folder)
    spacing = [float(s) for s in config.spacing]
    if len(spacing) == PLANAR:
        spacing = [float(manager.plans["original_median_spacing_after_transp"][0]), *spacing]
    zyx, described = [spacing[i] for i in manager.transpose_backward], results.folder / "dataset.json"
    return {
        "labels": labels_of(results.dataset_json, where=described),
        "channels": channel_names(results.dataset_json, where=described),
        "spacing": (zyx[2], zyx[1], zyx[0]),
        "orientation": "RAS" if reorients(results.plans) else None,
        "configuration": results.configuration,
        "fold": results.fold,
        "checkpoint": results.checkpoint.name,
    }
