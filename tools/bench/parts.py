"""Five nnU-Nets in TotalSegmentator's layout, each with a part of its 117 structures; small, with weights by chance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import zoom

from common.backbones.nnunet.network import build_network
from common.backbones.nnunet.plan import plan_of_settings
from common.card import save_weights
from common.engine.run.settings import model_card
from common.experts.tiles import Tiles
from common.labels import LabelSpace
from common.methods.ka2er.begin import nnunet_settings

from ..experts.profile import read_profile

__all__ = ["PROFILE", "Size", "write_ct", "write_one", "write_parts"]

PROFILE = "totalsegmentator"
_NAMES = {
    291: "part1_organs_1559subj", 292: "part2_vertebrae_1532subj", 293: "part3_cardiac_1559subj",
    294: "part4_muscles_1559subj", 295: "part5_ribs_1559subj",
}  # fmt: skip
_TRAINER = "nnUNetTrainerNoMirroring"
_CONFIGURATION = "3d_fullres"
_SPACING = 1.5


class Size(NamedTuple):
    """How large the networks are.

    Args:
        width: features of the first stage; TotalSegmentator's have 32.
        patch: voxels along each side of a tile; 128 there.
        stages: of the encoder; 6 there.
        convolutions: of a stage; 2 there.
    """

    width: int = 8
    patch: int = 128
    stages: int = 6
    convolutions: int = 2


def write_parts(root: Path, size: Size, *, seed: int = 0) -> list[Path]:
    """Results folders of nnU-Net, ``Dataset291_.../nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres`` and so on.

    Args:
        root: where they go.
        size: of their networks.
        seed: of their weights.

    Returns:
        the folders.
    """
    found = []
    for number, names in read_profile(PROFILE).parts.items():
        dataset = f"Dataset{number}_TotalSegmentator_{_NAMES[number]}"
        folder = root / dataset / f"{_TRAINER}__nnUNetPlans__{_CONFIGURATION}"
        (folder / "fold_0").mkdir(parents=True)
        plans, data = _plans(dataset, size), _dataset(names)
        torch.manual_seed(seed + number)
        network = build_network(plans, _CONFIGURATION, in_channels=1, out_channels=len(names) + 1)
        (folder / "plans.json").write_text(json.dumps(plans, indent=1), encoding="utf-8")
        (folder / "dataset.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
        checkpoint = {
            "network_weights": network.state_dict(), "trainer_name": _TRAINER,
            "init_args": {"configuration": _CONFIGURATION, "fold": 0}, "inference_allowed_mirroring_axes": None,
        }  # fmt: skip
        torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
        found.append(folder)
    return found


def write_one(path: Path, size: Size, *, seed: int = 0, tiles: Tiles | None = None) -> Path:
    """``model.pt`` of one student of the same plans that knows all structures.

    Args:
        path: of the weights.
        size: of the network.
        seed: of the weights.
        tiles: that it takes over from experts.
    """
    names = [name for part in read_profile(PROFILE).parts.values() for name in part]
    settings = {"plans": _plans("Dataset900_student", size), "dataset_json": _dataset(names),
                "configuration": _CONFIGURATION, "turned": "RAS"}  # fmt: skip
    plan = plan_of_settings(settings, path.parent)
    torch.manual_seed(seed)
    network = build_network(plan.plans, plan.configuration, in_channels=1, out_channels=plan.out_channels)
    contract = {"format": 1, "taught": {"CT": names}, "data": [],
                "modalities": {"CT": {"kind": "CT", "channels": ["CT"], "dim": 3}}}  # fmt: skip
    card = model_card(
        "ka2er", LabelSpace(tuple(names)), ["CT"], nnunet_settings(plan=plan, tiles=tiles), contract=contract
    )
    return save_weights(path, network.state_dict(), card)


def write_ct(path: Path, shape: Sequence[int], *, seed: int = 0, spacing: float = _SPACING) -> Path:
    """A body with smooth organs and noise, in Hounsfield units, as a NIfTI file of 16 bits.

    Args:
        path: of the file.
        shape: voxels.
        seed: of the body.
        spacing: mm, along all axes.
    """
    random = np.random.default_rng(seed)
    coarse = random.standard_normal([max(4, n // 24) for n in shape]).astype(np.float32)
    volume = zoom(coarse, [n / c for n, c in zip(shape, coarse.shape, strict=True)], order=1)
    across = [np.linspace(-1.1, 1.1, n, dtype=np.float32) for n in shape[:2]]
    outside = (across[0][:, None] ** 2 + across[1][None] ** 2 > 1)[..., None]
    for plane in range(shape[2]):
        noise = random.standard_normal(shape[:2], dtype=np.float32)
        volume[..., plane] = 40 + 150 * volume[..., plane] + 20 * noise
    values = np.where(outside, -1000, volume).astype(np.int16)
    image = nib.Nifti1Image(values, np.diag([spacing, spacing, spacing, 1.0]))
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def _dataset(names: Sequence[str]) -> dict[str, Any]:
    labels = {"background": 0, **{name: i for i, name in enumerate(names, 1)}}
    return {"name": "parts", "channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1559,
            "file_ending": ".nii.gz"}  # fmt: skip


def _plans(dataset: str, size: Size) -> dict[str, Any]:
    """Plans in the older form, which the public ones have."""
    config: dict[str, Any] = {
        "data_identifier": "nnUNetPlans_3d_fullres", "preprocessor_name": "DefaultPreprocessor", "batch_size": 2,
        "patch_size": [size.patch] * 3, "median_image_size_in_voxels": [231.0, 231.0, 231.0],
        "spacing": [_SPACING] * 3, "normalization_schemes": ["CTNormalization"], "use_mask_for_norm": [False],
        "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": size.width,
        "unet_max_num_features": 10 * size.width, "batch_dice": False,
        "n_conv_per_stage_encoder": [size.convolutions] * size.stages,
        "n_conv_per_stage_decoder": [size.convolutions] * (size.stages - 1),
        "num_pool_per_axis": [size.stages - 1] * 3,
        "pool_op_kernel_sizes": [[1, 1, 1], *[[2, 2, 2]] * (size.stages - 1)],
        "conv_kernel_sizes": [[3, 3, 3]] * size.stages,
    }  # fmt: skip
    for what, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        config[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
        config[f"resampling_fn_{what}_kwargs"] = {
            "is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None,
        }  # fmt: skip
    known = {"mean": 0.0, "std": 250.0, "median": 0.0, "percentile_00_5": -900.0, "percentile_99_5": 900.0,
             "min": -1024.0, "max": 3000.0}  # fmt: skip
    return {
        "dataset_name": dataset, "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [_SPACING] * 3, "original_median_shape_after_transp": [231, 231, 231],
        "image_reader_writer": "NibabelIOWithReorient", "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2], "configurations": {_CONFIGURATION: config},
        "experiment_planner_used": "ExperimentPlanner", "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": known},
    }  # fmt: skip
