"""nnU-Net used as nnU-Net means it, on tiny data: the reference that our own path is compared with."""

import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json

from tests.nnunet_folders import nnunet_environment

NAME = "Dataset901_tiny"
CASES = ("a", "b", "c")


def write_raw(root: Path) -> Path:
    """Three cases of 20 x 24 x 18 voxels, LPS, coarse along y, with an empty border (nnU-Net crops it)."""
    folder = root / "raw" / NAME
    rng = np.random.default_rng(3)
    affine = np.diag([-1.5, -3.0, 1.0, 1.0])
    for sub in ("imagesTr", "labelsTr", "imagesVa", "labelsVa"):
        (folder / sub).mkdir(parents=True)
    for case, part in (*((c, "Tr") for c in CASES), ("v", "Va")):
        image = rng.normal(40, 10, (26, 22, 24)).astype(np.float32)
        label = np.zeros(image.shape, np.uint8)
        label[6:16, 5:12, 6:14] = 1
        label[17:21, 12:18, 6:20] = 2
        image += 60.0 * (label == 1) - 30.0 * (label == 2)
        image[:3], image[:, :, -2:] = 0, 0
        nib.save(nib.Nifti1Image(image, affine), folder / f"images{part}" / f"{case}_0000.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), folder / f"labels{part}" / f"{case}.nii.gz")
    listing = [{"image": f"imagesTr/{c}_0000.nii.gz", "label": f"labelsTr/{c}.nii.gz", "id": c} for c in CASES]
    content = {
        "name": "tiny",
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIOWithReorient",
        "training": listing,
        "validation": [{"image": "imagesVa/v_0000.nii.gz", "label": "labelsVa/v.nii.gz", "id": "v"}],
    }
    save_json(content, str(folder / "dataset.json"))
    return folder


def train(root: Path) -> Path:
    """Fingerprint, plan, preprocess and train two iterations with nnU-Net's own code; the results folder."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    write_raw(root)
    with nnunet_environment(root):
        extractor = DatasetFingerprintExtractor(NAME, num_processes=1)
        extractor.num_foreground_voxels_for_intensitystats = len(CASES) * 500_000
        extractor.run()
        planner = ExperimentPlanner(NAME)
        planner.UNet_base_num_features = 4
        planner.UNet_max_features_2d = planner.UNet_max_features_3d = 8
        plans = planner.plan_experiment()
        data = load_json(str(root / "raw" / NAME / "dataset.json"))
        manager = PlansManager(plans)
        config = manager.get_configuration("3d_fullres")
        out = root / "preprocessed" / NAME
        (out / config.data_identifier).mkdir()
        for case in CASES:
            image = [str(root / "raw" / NAME / "imagesTr" / f"{case}_0000.nii.gz")]
            label = str(root / "raw" / NAME / "labelsTr" / f"{case}.nii.gz")
            target = str(out / config.data_identifier / case)
            DefaultPreprocessor(verbose=False).run_case_save(target, image, label, manager, config, data)
        os.environ["nnUNet_n_proc_DA"] = "0"  # no worker processes; the planner does not accept it
        trainer = nnUNetTrainer(
            {**plans, "continue_training": False}, "3d_fullres", "all", data, device=torch.device("cpu")
        )
        trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 2, 1
        trainer.run_training()
    return root / "results" / NAME / "nnUNetTrainer__nnUNetPlans__3d_fullres"


def predictor(folder: Path, fold: Any = "all") -> Any:
    """``nnUNetPredictor`` without mirroring and blending."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    with redirect_stdout(StringIO()):
        result = nnUNetPredictor(use_mirroring=False, use_gaussian=False, device=torch.device("cpu"), allow_tqdm=False)
        result.initialize_from_trained_model_folder(str(folder), (fold,), "checkpoint_final.pth")
    return result


@pytest.fixture(scope="session")
def trained_by_nnunet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of ``raw``, ``preprocessed`` and ``results`` that nnU-Net's own code filled; treat it as read-only."""
    root = tmp_path_factory.mktemp("nnunet")
    train(root)
    return root


@pytest.fixture(scope="session")
def nnunet_predictor() -> Any:
    """``(folder, fold) -> nnUNetPredictor``."""
    return predictor
