"""Tiny models with random weights and small scans in several orientations, as a server and our commands take them."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser
from PIL import Image

from common.card import save_weights
from common.engine.run.settings import model_card

ROOT = Path(__file__).resolve().parents[2]
STRUCTURES = ["liver", "spleen", "left kidney"]
AFFINES = {
    "ras": np.diag([3.0, 3.0, 4.0, 1.0]),
    "lps": np.array([[-3.0, 0, 0, 60], [0, -3, 0, 50], [0, 0, 4, -20], [0, 0, 0, 1]]),
    "oblique": np.array([[-2.4, 0.3, 0, 12], [0.3, 2.4, 0, -30], [0, 0, 4.0, 7], [0, 0, 0, 1]]),
}
SHAPE = (30, 26, 18)
SETTINGS = {
    "ka2er": {
        "spacing": [5.0, 5.0, 5.0], "roi_size": [64, 32, 32],
        "network": {"feature_size": 12, "num_heads": [1, 2, 4, 8]},
    },
    "m4oe": {
        "image_size": 64, "modalities": ["CT", "T2 MR"],
        "intensities": {
            "CT": {"scheme": "CTNormalization", "mean": 100.0, "std": 60.0, "percentile_00_5": -50.0,
                   "percentile_99_5": 250.0},
            "T2 MR": {"scheme": "ZScoreNormalization"},
        },
        "heads": [["abdomen", ["liver", "spleen"]], ["kidneys", ["left kidney", "liver"]]],
        "network": {"embed": 12, "num_heads": [1, 2, 3, 6], "window": 2},
    },
    "samora": {
        "intensities": {"T2 MR": {"scheme": "ZScoreNormalization"}},
        "network": {"variant": "tiny", "image_size": 64, "d_attn": 16, "heads": 2},
    },
    "sam_med3d_moe": {
        "spacing": 4.0, "modalities": ["T2 MR"], "clip": {}, "expert_structures": [["spleen"]],
        "network": {"variant": "tiny", "image_size": 32, "boxes": True, "hidden": 16, "heads": 2},
    },
    "ic_moe": {
        "intensities": {"ultrasound": {"scheme": "RGBTo01Normalization"}},
        "network": {"variant": "tiny", "image_size": 64},
    },
}  # fmt: skip


def toy_weights(bundle: str, folder: Path, *, channels: tuple[str, ...] = ("image",)) -> Path:
    """A ``model.pt`` of a bundle as its training leaves it, but for what a training would have learned."""
    parser = ConfigParser()
    parser.read_config(str(ROOT / "bundles" / bundle / "configs" / "inference.json"))
    defaults = parser["model"]["defaults"]
    own = {**SETTINGS[bundle], "network": {**defaults["network"], **SETTINGS[bundle]["network"]}}
    parser["model"]["path"] = ""
    parser["model"]["defaults"] = {**defaults, **own, "structures": STRUCTURES, "channels": list(channels)}
    torch.manual_seed(3)
    network = parser.get_parsed_content("network_def")
    for (
        name,
        parameter,
    ) in network.named_parameters():  # zeros at the start of adapters would give every voxel one class
        if parameter.requires_grad and name.endswith(("weight", "bias")) and parameter.ndim < 2:
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    labels = parser.get_parsed_content("labels")
    settings = {
        k: v for k, v in parser["model"]["defaults"].items() if k not in ("structures", "channels", "exclusive")
    }
    card = model_card(bundle, labels, channels, json.loads(json.dumps(settings)))
    return save_weights(folder / bundle / "model.pt", network.state_dict(), card)


def scan(path: Path, affine: np.ndarray, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Path:
    """Soft blobs on a dark ground."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape).astype(float)
    voxels = rng.normal(40, 6, shape)
    for _ in range(4):
        centre = np.array(shape) * rng.uniform(0.25, 0.75, 3)
        distance = sum(((g - c) / (n / 6)) ** 2 for g, c, n in zip(grid, centre, shape, strict=True))
        voxels += rng.uniform(60, 160) * np.exp(-distance)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels.astype(np.float32), affine), path)
    return path


def studies(folder: Path) -> Path:
    """One scan of each orientation."""
    for number, (name, affine) in enumerate(AFFINES.items()):
        scan(folder / f"{name}.nii.gz", affine, seed=number)
    return folder


def pictures(folder: Path) -> Path:
    """Two pictures, one also as JPEG."""
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:70, :90]
    for number in range(2):
        distance = ((columns - 30 - 20 * number) / 15) ** 2 + ((rows - 35) / 12) ** 2
        noise = np.random.default_rng(number).normal(0, 6, distance.shape)
        image = Image.fromarray((40 + 150 * np.exp(-distance) + noise).clip(0, 255).astype(np.uint8))
        image.save(folder / f"picture{number}.png")
    image.save(folder / "photo.jpg", quality=95)
    return folder


def bright(image: Path, label: Path) -> Path:
    """A label map of a scan: 1 where it is bright, 2 where it is brighter."""
    given = nib.load(image)
    values = np.asarray(given.dataobj)
    nib.save(nib.Nifti1Image(((values > 90).astype(np.uint8) + (values > 130)).astype(np.uint8), given.affine), label)
    return label
