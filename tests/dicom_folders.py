"""CT series as a scanner writes them, in any shape and order."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


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
