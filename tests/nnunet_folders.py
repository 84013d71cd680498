"""Tiny nnU-Net results folders in every shape that experts come in."""

import json
import os
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.backbones.nnunet.description import labels_of, output_channels
from common.backbones.nnunet.network import build_network


@contextmanager
def nnunet_environment(root: Path, workers: int = 1) -> Any:
    """nnU-Net's three folders below ``root``, so many worker processes, nothing printed."""
    values = {f"nnUNet_{k}": str(root / k) for k in ("raw", "preprocessed", "results")}
    values["nnUNet_n_proc_DA"] = str(workers)
    before = {k: os.environ.get(k) for k in values}
    os.environ.update(values)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        for k, v in before.items():
            os.environ.pop(k, None) if v is None else os.environ.__setitem__(k, v)


def tiny_plans(
    *,
    transpose: tuple[int, int, int] = (0, 1, 2),
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0),
    strides: tuple[tuple[int, ...], ...] = ((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    norm: str = "ZScoreNormalization",
    masked: bool = False,
    reader: str = "NibabelIOWithReorient",
    resenc: bool = False,
    old: bool = False,
    channels: int = 1,
) -> dict[str, Any]:
    """Plans as nnU-Net writes them; ``spacing`` and ``strides`` are in the transposed axis order."""
    dim, stages = len(spacing), len(strides)
    kernels = [[3] * dim] * stages
    config: dict[str, Any] = {
        "data_identifier": "x",
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": [16] * dim,
        "batch_size": 2,
        "batch_dice": False,
        "median_image_size_in_voxels": [16] * dim,
        "spacing": list(spacing),
        "normalization_schemes": [norm] * channels,
        "use_mask_for_norm": [masked] * channels,
    }
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        config[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        config[f"resampling_fn_{what}_kwargs"] = {"is_seg": what == "seg", "order": order, "order_z": 0}
    if old:
        config |= {
            "UNet_class_name": "PlainConvUNet",
            "UNet_base_num_features": 4,
            "unet_max_num_features": 8,
            "n_conv_per_stage_encoder": [1] * stages,
            "n_conv_per_stage_decoder": [1] * (stages - 1),
            "num_pool_per_axis": [2] * dim,
            "pool_op_kernel_sizes": [list(s) for s in strides],
            "conv_kernel_sizes": kernels,
        }
    else:
        blocks = "n_blocks_per_stage" if resenc else "n_conv_per_stage"
        name = "ResidualEncoderUNet" if resenc else "PlainConvUNet"
        config["architecture"] = {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": [4, 8, 8, 8][:stages],
                "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
                "kernel_sizes": kernels,
                "strides": [list(s) for s in strides],
                blocks: [1] * stages,
                "n_conv_per_stage_decoder": [1] * (stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }
    known = {"mean": 20.0, "std": 5.0, "percentile_00_5": -10.0, "percentile_99_5": 60.0, "min": -20.0, "max": 90.0}
    return {
        "dataset_name": "Dataset900_tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [spacing[0]] * (3 - dim) + list(spacing),
        "original_median_shape_after_transp": [16, 16, 16],
        "image_reader_writer": reader,
        "transpose_forward": list(transpose),
        "transpose_backward": [int(i) for i in np.argsort(transpose)],
        "configurations": {"2d" if dim == 2 else "3d_fullres": config},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(c): known for c in range(channels)},
    }


def write_folder(
    root: Path,
    name: str = "Dataset900_tiny",
    *,
    trainer: str = "nnUNetTrainer",
    labels: dict[str, Any] | None = None,
    channel_names: tuple[str, ...] = ("T1",),
    prefix: str = "",
    seed: int = 0,
    fold: int | str = 0,
    extra: dict[str, Any] | None = None,
    **plans: Any,
) -> Path:
    """Write ``<root>/<name>/{trainer}__nnUNetPlans__{configuration}`` with random weights and return that folder."""
    content = tiny_plans(channels=len(channel_names), **plans)
    configuration = next(iter(content["configurations"]))
    names = {str(i): c for i, c in enumerate(channel_names)}
    data = {
        "channel_names": names,
        "labels": labels or {"background": 0, "liver": 1, "spleen": 2},
        "numTraining": 3,
        "file_ending": ".nii.gz",
        **(extra or {}),
    }
    torch.manual_seed(seed)
    heads = output_channels(labels_of(data))
    network = build_network(content, configuration, in_channels=len(channel_names), out_channels=heads)
    folder = root / name / f"{trainer}__nnUNetPlans__{configuration}"
    (folder / f"fold_{fold}").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(content))
    (folder / "dataset.json").write_text(json.dumps(data))
    checkpoint = {
        "network_weights": {prefix + k: v for k, v in network.state_dict().items()},
        "logging": {"ema_fg_dice": [np.float32(0.5), np.float64(0.25)]},
        "_best_ema": np.float64(0.5),
        "trainer_name": trainer,
        "init_args": {"configuration": configuration, "fold": fold},
        "inference_allowed_mirroring_axes": tuple(range(len(content["configurations"][configuration]["patch_size"]))),
    }
    torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder
