"""Tiny experts of every kind of plans, trained by nnU-Net's own code on files as nnU-Net reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation

from tests.nnunet_folders import nnunet_environment, tiny_plans

NAME = "Dataset902_kinds"
LABELS = {"background": 0, "liver": 1, "spleen": 2}
SHAPE = (44, 40, 36)


@dataclass(frozen=True)
class Kind:
    """A kind of expert.

    Args:
        plans: of :func:`tests.nnunet_folders.tiny_plans`.
        stored: axis codes of its training files.
        spacing: mm of its training files along R, A, S.
        channels: number of image channels.
        high: factor by which everything is higher, for coarse slices.
        background: whether the scans have zeros around the body, as MR often has.
        configuration: its name, where it is not the plans' own.
    """

    plans: dict[str, Any] = field(default_factory=dict)
    stored: str = "LPS"
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: int = 1
    high: int = 1
    background: bool = True
    configuration: str | None = None


KINDS = {
    "plain": Kind(stored="LAS"),
    "transposed": Kind({"transpose": (1, 2, 0)}, stored="PIR"),
    "anisotropic": Kind(
        {"spacing": (4.0, 1.0, 1.0), "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2)), "patch": (10, 32, 32)},
        spacing=(1.0, 1.0, 4.0),
        high=3,
    ),
    "2d": Kind(
        {"spacing": (1.0, 1.0), "strides": ((1, 1), (2, 2), (2, 2)), "patch": (32, 32)}, spacing=(1.0, 1.0, 3.0), high=2
    ),
    "lowres": Kind({"spacing": (2.0, 2.0, 2.0), "patch": (20, 20, 20)}, configuration="3d_lowres"),
    "resenc": Kind({"resenc": True}, stored="RAS"),
    "channels": Kind({"channels": 2}, channels=2, stored="PIR"),
    "masked norm": Kind({"masked": True}),
    "ct": Kind({"norm": "CTNormalization"}, background=False),
}


def phantom(seed: int, kind: Kind) -> tuple[MetaTensor, MetaTensor]:
    """A body with two organs, ``[C, X, Y, Z]`` in RAS, and its label map; another place and size by seed."""
    random = np.random.default_rng(seed)
    size = np.array([SHAPE[0], SHAPE[1], SHAPE[2] * kind.high])
    shape = tuple(round(n / s) for n, s in zip(size, kind.spacing, strict=True))
    axes = [(np.arange(n) + 0.5) * s for n, s in zip(shape, kind.spacing, strict=True)]
    where = np.stack(np.meshgrid(*axes, indexing="ij"))
    shift = random.uniform(-2, 2, (3, 1, 1, 1))
    middle, factor = size.reshape(3, 1, 1, 1) / 2 + shift, np.array([1, 1, kind.high])

    def ball(offset: tuple[float, ...], radii: tuple[float, ...]) -> Any:
        centre = middle + np.array(offset).reshape(3, 1, 1, 1)
        return (((where - centre) / (factor * np.array(radii)).reshape(3, 1, 1, 1)) ** 2).sum(0) < 1

    body = ball((0, 0, 0), (19, 17, 16))
    label = np.zeros(shape, np.uint8)
    label[ball((7, 0, 0), (8, 10, 10)) & body] = 1
    label[ball((-9, 2, -1), (6, 8, 9)) & body] = 2
    outside = 0.0 if kind.background else -60.0
    images = []
    for channel in range(kind.channels):
        levels = np.array([(20.0, 55.0, 5.0), (30.0, 10.0, 60.0)][channel])
        image = levels[label] + random.normal(0, 2, shape)
        images.append(np.where(body, image, outside if kind.background else random.normal(outside, 2, shape)))
    affine = torch.diag(torch.tensor([*kind.spacing, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([-12.0, 7.0, 30.0])
    both = np.stack(images).astype(np.float32), label[None].astype(np.float32)
    return MetaTensor(torch.from_numpy(both[0]), affine=affine), MetaTensor(torch.from_numpy(both[1]), affine=affine)


def turned(volume: MetaTensor, axcodes: str) -> MetaTensor:
    """The same volume stored in another direction."""
    result: MetaTensor = Orientation(axcodes=axcodes, labels=None)(volume)
    return result


def save(volume: MetaTensor, files: list[Path], dtype: Any = np.float32) -> None:
    """One NIfTI file per channel."""
    for channel, file in zip(volume.numpy(), files, strict=True):
        nib.save(nib.Nifti1Image(channel.astype(dtype), np.asarray(volume.affine)), file)


def train(root: Path, kind: Kind, iterations: int) -> tuple[Path, Path]:
    """Preprocess and train with nnU-Net's own code.

    Returns:
        the results folder, and the raw folder with the training files.
    """
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    given = dict(kind.plans)
    patch = given.pop("patch", (24, 24, 24))
    plans = tiny_plans(**given, reader="SimpleITKIO")
    own = next(iter(plans["configurations"]))
    configuration = kind.configuration or own
    config = plans["configurations"][configuration] = plans["configurations"].pop(own)
    config |= {"patch_size": list(patch), "batch_dice": False}
    config["architecture"]["arch_kwargs"]["features_per_stage"] = [8, 16, 16]
    plans["dataset_name"] = NAME
    raw, out = root / "raw" / NAME, root / "preprocessed" / NAME
    for folder in (raw / "imagesTr", raw / "labelsTr", out / config["data_identifier"]):
        folder.mkdir(parents=True)
    names = {str(i): f"T{i + 1}" for i in range(kind.channels)}
    data = {"channel_names": names, "labels": LABELS, "numTraining": 2, "file_ending": ".nii.gz"}
    for file in (raw / "dataset.json", out / "dataset.json"):
        file.write_text(json.dumps(data))
    (out / "dataset_fingerprint.json").write_text("{}")
    with nnunet_environment(root, 0):
        manager = PlansManager(plans)
        for case in range(2):
            image, label = (turned(v, kind.stored) for v in phantom(case, kind))
            files = [raw / "imagesTr" / f"c{case}_{i:04d}.nii.gz" for i in range(kind.channels)]
            save(image, files)
            save(label, [raw / "labelsTr" / f"c{case}.nii.gz"], np.uint8)
            DefaultPreprocessor(verbose=False).run_case_save(
                str(out / config["data_identifier"] / f"c{case}"), [str(f) for f in files],
                str(raw / "labelsTr" / f"c{case}.nii.gz"), manager, manager.get_configuration(configuration), data,
            )  # fmt: skip
        torch.manual_seed(0)
        np.random.seed(0)
        trainer = nnUNetTrainerAdam(
            {**plans, "continue_training": False}, configuration, "all", data, device=torch.device("cpu")
        )
        trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, iterations, 1
        trainer.initial_lr = 0.01
        trainer.logger.plot_progress_png = lambda *_: None  # seconds of matplotlib
        trainer.run_training()
    return root / "results" / NAME / f"nnUNetTrainerAdam__nnUNetPlans__{configuration}", raw
