"""NRRD and MetaImage files written by hand, and where SimpleITK says that their voxels lie."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
NRRD = {
    "type": "short", "dimension": "3", "space": "left-posterior-superior", "sizes": "2 3 4",
    "space directions": "(0,-1.5,0) (2,0,0) (0,0,3)", "kinds": "domain domain domain", "endian": "little",
    "encoding": "raw", "space origin": "(10,20,30)",
}  # fmt: skip
META = {
    "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False", "TransformMatrix": "0 1 0 -1 0 0 0 0 1", "Offset": "10 20 30",
    "CenterOfRotation": "0 0 0", "AnatomicalOrientation": "RAI", "ElementSpacing": "2 1.5 3", "DimSize": "2 3 4",
    "ElementType": "MET_SHORT",
}  # fmt: skip


def plain(array: np.ndarray = ARRAY) -> bytes:
    return array.tobytes(order="F")


def judged(path: Path, voxel: tuple[int, ...] = (1, 2, 3)) -> tuple[np.ndarray, np.ndarray]:
    """Values ``[X, Y, Z]`` and the RAS world position of a voxel, as SimpleITK has them."""
    image = SimpleITK.ReadImage(str(path))
    place = np.array(image.TransformIndexToPhysicalPoint(voxel)) * [-1, -1, 1]
    return SimpleITK.GetArrayFromImage(image).T.astype(np.float32), place


def placed(image, voxel: tuple[int, ...] = (1, 2, 3)) -> np.ndarray:
    """The RAS world position of a voxel, as we have it."""
    return (image.affine.numpy() @ [*voxel, 1])[:3]


@pytest.fixture
def nrrd_file(tmp_path: Path) -> Callable[..., Path]:
    """``nrrd_file({"encoding": "hex", "kinds": None}, data, keys)``: None takes a field away."""

    def write(changes: dict[str, str | None] | None = None, data: bytes | None = None, *, name: str = "scan.nrrd",
              keys: dict[str, str] | None = None) -> Path:  # fmt: skip
        fields = {k: v for k, v in {**NRRD, **(changes or {})}.items() if v is not None}
        lines = ["NRRD0005", *(f"{k}: {v}" for k, v in fields.items()), *(f"{k}:={v}" for k, v in (keys or {}).items())]
        path = tmp_path / name
        path.write_bytes("\n".join([*lines, "", ""]).encode() + (plain() if data is None else data))
        return path

    return write


@pytest.fixture
def meta_file(tmp_path: Path) -> Callable[..., Path]:
    """``meta_file({"Offset": None}, data)``: None takes a field away; ``ElementDataFile`` comes last."""

    def write(changes: dict[str, str | None] | None = None, data: bytes | None = None, name: str = "scan.mha") -> Path:
        fields = {**META, **(changes or {})}
        fields["ElementDataFile"] = fields.pop("ElementDataFile", "LOCAL")
        path = tmp_path / name
        text = "".join(f"{k} = {v}\n" for k, v in fields.items() if v is not None)
        path.write_bytes(text.encode() + (plain() if data is None else data))
        return path

    return write
