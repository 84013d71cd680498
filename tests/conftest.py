"""Fixtures that every test may use: tiny phantom data, written once per session."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from common.backbones.sam3d import sam3d_network
from common.card import save_weights
from common.data.phantom import write_phantom
from common.engine.settings import model_card
from common.labels import LabelSpace
from common.methods.sam_med3d_start import general_model, mixture, read_decoders
from tests.nnunet_folders import nnunet_folder, nnunet_plans  # noqa: F401 (fixtures)


@pytest.fixture(scope="session")
def phantom_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny 3-D collection (``phantom_ct``, ``phantom_mr``, ``phantom_lge``); treat it as read-only."""
    return write_phantom(tmp_path_factory.mktemp("phantom") / "phantom", size="tiny", parts=("tasks",))


@pytest.fixture(scope="session")
def phantom_general_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny mixed-modality dataset of a task-agnostic expert; treat it as read-only."""
    root = tmp_path_factory.mktemp("phantom_general") / "phantom"
    write_phantom(root, size="tiny", parts=("general",))
    return root.with_name("phantom_general")


@pytest.fixture(scope="session")
def phantom_2d_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny 2-D collection (``phantom_2d_ct``, ``phantom_2d_mr``, ``phantom_2d_skin``); treat it as read-only."""
    root = tmp_path_factory.mktemp("phantom_2d") / "phantom"
    write_phantom(root, size="tiny", parts=("2d",))
    return root.with_name("phantom_2d")


@pytest.fixture(scope="session")
def tiny_case(phantom_dir: Path) -> dict[str, str]:
    """The first training case of the tiny CT task: ``image``, ``label`` (absolute paths), ``case``, ``task``."""
    folder = phantom_dir / "phantom_ct"
    entry = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["training"][0]
    return {
        "image": str(folder / entry["image"]),
        "label": str(folder / entry["label"]),
        "case": entry["id"],
        "task": folder.name,
    }


class Sam3DFiles:
    """Tiny files of SAM-Med3D as its two bundles leave them, with random weights."""

    labels = LabelSpace(("liver", "spleen", "liver tumour"))

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def general(self, name: str = "general", *, seed: int = 0, boxes: bool = True) -> Path:
        """A general model's ``model.pt``."""
        network = sam3d_network("tiny", seed=seed, boxes=boxes)
        settings = {"variant": "tiny", "image_size": 32, "rel_pos": "intended", "boxes": boxes}
        return self._write(name, network.state_dict(), settings, ["liver", "spleen"], 4.0)

    def expert(
        self, name: str, *structures: str, of: Path, seed: int = 7, encoder: bool = False, spacing: float = 4.0
    ) -> Path:
        """A decoder's ``model.pt``, fine-tuned (at random) on a general model, whose encoder may move, too."""
        general = general_model(of)
        torch.manual_seed(seed)
        for key, parameter in general.network.named_parameters():
            if key.startswith("mask_decoder.") or encoder:
                parameter.data.add_(0.05 * torch.randn_like(parameter))
        return self._write(name, general.network.state_dict(), general.settings, list(structures), spacing)

    def mixture(
        self,
        name: str = "mixture",
        *,
        general: Path,
        experts: dict[str, Path],
        bias: list[float] | None = None,
        **options: Any,
    ) -> Path:
        """A mixture's ``model.pt``; ``bias`` is added to the gate's last one, so that it asks whom a test wants."""
        base = general_model(general)
        found = read_decoders(experts, base.network)
        network = mixture(base, found, hidden=16, **options)
        if bias is not None:
            network.gate.head[-1].bias.data.add_(torch.tensor(bias))
        settings = {
            "network": network.settings,
            "expert_structures": [list(e.structures) for e in found.values()],
            "expert_hashes": [e.sha256 for e in found.values()],
            "gate_at": "every",
            "prompts": "points",
            "spacing": 4.0,
            "clip": {"CT": [-1000, 1000]},
            "modalities": ["CT", "LGE MR", "T2 MR"],
        }
        card = model_card("sam_med3d_moe", self.labels, ["image"], settings).with_extra(epoch=3)
        return save_weights(self.folder / name / "model.pt", copy.deepcopy(network).state_dict(), card)

    def _write(
        self, name: str, state: dict[str, Any], network: dict[str, Any], structures: list[str], spacing: float
    ) -> Path:
        settings = {
            "network": network,
            "name": name,
            "structures": structures,
            "train_what": "decoder",
            "prompts": "points",
            "spacing": spacing,
            "clip": {"CT": [-1000, 1000]},
            "modalities": ["CT", "LGE MR", "T2 MR"],
        }
        card = model_card("sam_med3d_moe_expert", self.labels, ["image"], settings)
        return save_weights(self.folder / name / "model.pt", state, card)


@pytest.fixture
def sam3d_files(tmp_path: Path) -> Sam3DFiles:
    """Writes tiny general models, experts and mixtures into ``tmp_path``."""
    return Sam3DFiles(tmp_path)


def write_dicom(
    folder: Path,
    voxels: Any,
    *,
    spacing: tuple[float, float, float] = (1.5, 1.25, 3.0),
    turn: Any = None,
    lean: float = 0.0,
    study: str | None = None,
    frame: str | None = None,
    change: Any = None,
) -> Path:
    """Write ``[X, Y, Z]`` integers as a CT series; file order is not spatial order.

    ``turn`` are the columns of its axes in LPS, ``lean`` mm by which each slice lies further along its columns (gantry
    tilt), ``change(k, data)`` edits slice k.
    """
    folder.mkdir(parents=True, exist_ok=True)
    turn = np.eye(3) if turn is None else np.asarray(turn)
    series, study, frame = generate_uid(), study or generate_uid(), frame or generate_uid()
    for k in range(voxels.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        if int(pydicom.__version__.split(".")[0]) < 3:
            data.is_little_endian, data.is_implicit_VR = True, False
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, study, frame
        data.Modality, data.PatientID, data.PatientName, data.SeriesNumber = "CT", "p1", "Doe^Jane", 4
        data.PatientBirthDate, data.PatientSex, data.StudyID, data.StudyDate = "19700102", "F", "s", "20200304"
        data.StudyTime, data.AccessionNumber, data.InstanceNumber = "101112", "a", k + 1
        data.ImageOrientationPatient = [float(v) for v in (*turn[:, 0], *turn[:, 1])]
        place = turn @ [-20.0, 12.5 + k * lean, 30 + k * spacing[2]]
        data.ImagePositionPatient = [f"{v:.8g}" for v in place]
        data.PixelSpacing, data.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        data.Rows, data.Columns, data.SamplesPerPixel = voxels.shape[1], voxels.shape[0], 1
        data.PhotometricInterpretation, data.BitsAllocated, data.BitsStored, data.HighBit = "MONOCHROME2", 16, 16, 15
        data.PixelRepresentation, data.RescaleSlope, data.RescaleIntercept = 1, 1, 0
        data.PixelData = np.ascontiguousarray(voxels[:, :, k].T.astype(np.int16)).tobytes()
        if change is not None:
            change(k, data)
        data.save_as(folder / f"{k * 7 % 101:03d}.dcm")
    return folder


@pytest.fixture
def dicom_series() -> Any:
    """The function that writes a CT series (:func:`write_dicom`)."""
    return write_dicom


@pytest.fixture
def enhanced_series(tmp_path: Path) -> Any:
    """``enhanced_series(folder)`` packs a folder of CT slices into one legacy converted enhanced file beside it."""
    highdicom = pytest.importorskip("highdicom", exc_type=ImportError)

    def make(folder: Path) -> Path:
        slices = [pydicom.dcmread(p) for p in sorted(folder.iterdir())]
        packed = highdicom.legacy.LegacyConvertedEnhancedCTImage(
            slices, generate_uid(), 9, generate_uid(), 1, transfer_syntax_uid=ExplicitVRLittleEndian
        )
        target = folder.parent / f"{folder.name}_enhanced" / "all.dcm"
        target.parent.mkdir()
        packed.save_as(target)
        return target

    return make
