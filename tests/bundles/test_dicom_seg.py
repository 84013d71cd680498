"""A real DICOM series through bundles of three methods: the SEG says what the NIfTI says, under the models' names."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

from common.card import save_weights
from common.data.dicom.seg_masks import read_seg
from common.data.dicom.series import read_dicom
from common.engine.run.settings import model_card
from common.labels import LabelSpace
from common.methods.ka2er.student import KA2ERStudent
from common.weights import read_card
from tests.bundles.commands import ROOT, done
from tools.predict.command import segment
from tools.predict.prompt_options import given_prompts

SERIES = Path(os.environ.get("AMALGAM_DATA", "missing")) / "dicom_samples" / "mr_t1post_oblique"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.data,
    pytest.mark.skipif(not SERIES.is_dir(), reason="AMALGAM_DATA is not set"),
]


def same(bundle, weights, folder, **options):
    """Segment the series to both kinds of file and compare them voxel by voxel."""
    found = segment(str(ROOT / "bundles" / bundle), SERIES, folder, weights=weights, result="both", **options)
    expected = np.asarray(nib.load(found[SERIES.name]).dataobj)
    path, labels = folder / f"{SERIES.name}.dcm", read_card(weights).labels
    masks = read_seg(path, read_dicom(SERIES).slices)
    assert expected.any()
    assert set(masks.names) == {labels.names[v - 1] for v in np.unique(expected) if v}
    assert np.array_equal(masks.label_map(LabelSpace(labels.names)), expected)
    made = pydicom.dcmread(path).SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert made.AlgorithmName == bundle and made.AlgorithmVersion


def test_ka2er(tmp_path):
    torch.manual_seed(0)
    network = {"feature_size": 12, "levels": "bottleneck", "prompt_fuse": "add_norm", "fuse_at": "token",
               "num_heads": [3, 6, 12, 24]}  # fmt: skip
    student = KA2ERStudent(num_structures=3, in_channels=1, **network)
    settings = {"spacing": [4.0, 4.0, 4.0], "orientation": "RAS", "roi_size": [32, 32, 32], "network": network}
    labels = LabelSpace(("liver", "left kidney", "brain tumour"))
    card = model_card("ka2er", labels, ["image"], settings)
    weights = save_weights(tmp_path / "model.pt", student.state_dict(), card)
    same("ka2er", weights, tmp_path / "out")


def test_sam_med3d_moe(sam3d_files, tmp_path):
    general = sam3d_files.general()
    weights = sam3d_files.mixture(
        general=general, experts={"tumour": sam3d_files.expert("t", "liver tumour", of=general)}
    )
    points = given_prompts(points={"liver": [[120, 150, 4]], "spleen": [[60, 200, 3]]})
    same("sam_med3d_moe", weights, tmp_path / "out", prompts=points, overrides={"modality": "T2 MR"})


def test_m4oe(phantom_dir, tmp_path):
    folders = {"output_dir": tmp_path / "run", "ckpt_dir": tmp_path / "run", "dataset_dir": phantom_dir}
    done("m4oe", "train", "smoke", **folders, max_epochs=1)
    more = {"task": "phantom_mr", "overrides": {"modality": "T2 MR"}}
    same("m4oe", tmp_path / "run" / "model.pt", tmp_path / "out", **more)
