"""Real scans, found through the environment variable AMALGAM_DATA; skipped without it."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Orientationd

from common.data.datasets.datalist import items, label_space, read_collection
from common.data.datasets.verify import check
from common.data.intensity.volume import NormalizePercentiled, VolumeStatsd
from common.data.io import read_volume
from common.data.transforms.loading import LoadCased
from common.data.transforms.restore import RestoreGridd, SavePredictiond
from common.data.transforms.transforms import CheckGridsd, CopyRawd, DescribeCased, MapLabelsd, SafeSpacingd
from common.geometry import Grid

ROOT = Path(os.environ.get("AMALGAM_DATA", "missing"))
pytestmark = [pytest.mark.data, pytest.mark.skipif(not ROOT.is_dir(), reason="AMALGAM_DATA is not set")]
KEYS = ["image", "label"]


@pytest.mark.parametrize(("name", "counts"), [("chaos_mr", (8, 5, 3)), ("la2018", (16, 4, 12)), ("acdc", (16, 4, 0))])
def test_check_passes(name, counts):
    dataset = read_collection(ROOT / name).datasets[0]
    assert tuple(len(dataset.splits[s]) for s in ("training", "validation", "unlabelled")) == counts
    assert [p for p in check(ROOT / name) if p.severity == "error"] == []


@pytest.mark.slow
@pytest.mark.selected
def test_check_passes_on_ct():
    assert check(ROOT / "btcv_ct") == []


def test_union_is_matched_by_name_across_differing_ids():
    pair = f"{ROOT / 'btcv_ct'},{ROOT / 'chaos_mr'}"
    collection, whole = read_collection(pair), label_space(pair)
    assert len(whole) == 13
    ct, mr = (d.labels for d in collection.datasets)
    for name in ("liver", "spleen", "left kidney", "right kidney"):
        values = [dict(zip(s.names, s.values, strict=True))[name] for s in (ct, mr)]
        assert whole.lookup(ct)[values[0]] == whole.lookup(mr)[values[1]] == whole.index(name)
    assert ct.values[ct.index("liver") - 1] != mr.values[mr.index("liver") - 1]
    assert whole.annotated(mr).sum() == 5


@pytest.mark.parametrize("task", ["btcv_ct", "chaos_mr"])
def test_the_chain_and_back(tmp_path, task):
    pair = f"{ROOT / 'btcv_ct'},{ROOT / 'chaos_mr'}"
    pre = Compose(
        [
            LoadCased(KEYS),
            DescribeCased(pair),
            CheckGridsd(KEYS),
            MapLabelsd("label", pair),
            Orientationd(KEYS, "RAS", labels=None),
            SafeSpacingd(KEYS, (2.0, 2.0, 4.0), mode=("bilinear", "nearest")),
            VolumeStatsd(),
            CopyRawd(),
            NormalizePercentiled("image"),
        ]
    )
    item = items(pair, "validation", tasks=task, limit=1)[0]
    data = pre(item)
    assert set(torch.unique(data["label"]).int().tolist()) <= set(np.flatnonzero(data["annotated"]).tolist())
    assert data["image"].shape == data["raw"].shape and data["stats"].shape == (1, 10)
    data["pred"] = data["label"].clone()
    result = SavePredictiond("pred", tmp_path)(RestoreGridd("pred", pre)(data))
    written, original = nib.load(result["pred_file"]), read_volume(item["label"])
    assert Grid.of(written).same_as(Grid.of(original))
    lookup = label_space(pair).lookup(read_collection(pair).dataset(task).labels)
    there, back = np.vectorize(lookup.get)(original.numpy()[0]), np.asarray(written.dataobj)
    assert 2 * ((there > 0) & (back == there)).sum() / ((there > 0).sum() + (back > 0).sum()) > 0.85


@pytest.mark.parametrize(
    ("name", "shape", "spacing"),
    [
        ("ct_jpeg2000_20slices", (512, 512, 20), (0.9766, 0.9766, 2.0)),
        ("mr_t1post_oblique", (260, 320, 8), (0.6875, 0.6875, 6.5)),
        ("ct_3slice_liver", (512, 512, 3), (0.8105, 0.8105, 1.0)),
    ],
)
def test_dicom_folders(name, shape, spacing):
    image = read_volume(ROOT / "dicom_samples" / name)
    assert tuple(image.shape) == (1, *shape)
    assert np.allclose(Grid.of(image).spacing, spacing, atol=1e-3)


@pytest.mark.parametrize(
    "name", ["brats_mr", "btp_mr", "ms_mr", "spinalcord_mr", "totalseg_ctmr", "busi", "ph2", "glas"]
)
def test_every_other_set_reads(name):
    for entry in items(ROOT / name, "training", limit=1):
        dataset = read_collection(ROOT / name).datasets[0]
        image = read_volume(entry["image"], dim=dataset.dim, channels=dataset.channels)
        label = read_volume(entry["label"], dim=dataset.dim)
        assert Grid.of(image).same_as(Grid.of(label))
