"""Whatever is wrong with a zip, who opens it refuses it by its name."""

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.data.io import read_volume
from common.engine.run.plain import read_plain
from common.errors import AmalgamationError
from common.experts.script import check_script
from common.weights import read_state_dict
from common.zips import DAMAGED
from tools.bundle.zip import unpack

_NAMES = ("a/configs/inference.json", "a/code/net.py", "a/data.pkl")


def _zip(packing: int, *, flags: int = 0, method: int | None = None, damage: bool = False, cut: int = 0) -> bytes:
    """A zip with one thing wrong: the same in the entries and in the list of contents."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name in _NAMES:
            archive.writestr(name, np.random.default_rng(0).bytes(300) + b"x" * 3000)
    content = bytearray(buffer.getvalue())
    for sign, flag, kind in ((b"PK\3\4", 6, 8), (b"PK\1\2", 8, 10)):
        place = content.find(sign)
        while place >= 0:
            (old,) = struct.unpack_from("<H", content, place + flag)
            struct.pack_into("<H", content, place + flag, old | flags)
            if method is not None:
                struct.pack_into("<H", content, place + kind, method)
            place = content.find(sign, place + 4)
    if damage:
        start = 50 + len(_NAMES[0])  # behind what lzma says of itself
        content[start : start + 120] = bytes(0xFF - b for b in content[start : start + 120])
    return bytes(content[: len(content) - cut])


ODD = {
    "damaged deflate": _zip(zipfile.ZIP_DEFLATED, damage=True),
    "damaged bzip2": _zip(zipfile.ZIP_BZIP2, damage=True),
    "damaged lzma": _zip(zipfile.ZIP_LZMA, damage=True),
    "damaged bytes": _zip(zipfile.ZIP_STORED, damage=True),
    "encrypted": _zip(zipfile.ZIP_DEFLATED, flags=1),
    "unknown packing": _zip(zipfile.ZIP_STORED, method=99),
    "stored called deflated": _zip(zipfile.ZIP_STORED, method=8),
    "stored called lzma": _zip(zipfile.ZIP_STORED, method=14),
    "names that are no text": _zip(zipfile.ZIP_STORED, flags=0x800).replace(b"net.py", b"net\xff\xff\xff"),
    "patched data": _zip(zipfile.ZIP_STORED, flags=0x20),
    "cut": _zip(zipfile.ZIP_DEFLATED, cut=40),
    "empty": b"",
    "a list of contents alone": b"PK\5\6" + b"\0" * 18,
    "contents from nowhere": b"PK\3\4" + b"x" * 40 + b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 1, 1, 2**31, 2**31, 0),
}
READERS: dict[str, Callable[[Path], Any]] = {
    "bundle": lambda path: unpack(path, path.parent / "out"),
    "script": check_script,
    "weights": read_state_dict,
    "checkpoint": read_plain,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_a_broken_zip_is_refused_by_name(tmp_path: Path, content: bytes, read: Callable[[Path], Any]) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    with pytest.raises(AmalgamationError, match=r"broken\.pt"):
        read(path)
    assert [p.name for p in tmp_path.iterdir() if p.name != "out"] == ["broken.pt"]
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_what_the_reader_of_zips_raises_is_known(tmp_path: Path) -> None:
    raised = set()
    for content in ODD.values():
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for entry in archive.infolist():
                    archive.read(entry)
        except DAMAGED as error:
            raised.add(type(error).__name__)
    assert {"BadZipFile", "error", "LZMAError", "NotImplementedError", "RuntimeError", "UnicodeDecodeError"} <= raised


@pytest.mark.parametrize("name", ["damaged", "cut", "another", "no header"])
def test_weights_with_a_broken_part_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.pt"
    torch.save({"w": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    place = content.find(b"data.pkl") + 8
    if name == "damaged":
        content[place : place + 30] = b"\xff" * 30
    content = content[: {"cut": 1000, "no header": 2}.get(name, len(content))]
    path.write_bytes(b"\x80\x02}q\x00X" + content[10:60] if name == "another" else bytes(content))
    with pytest.raises(AmalgamationError, match=r"model\.pt"):
        read_state_dict(path)


@pytest.mark.parametrize("place", [0, 3, 12, 40, 90, -6])
def test_a_broken_gzip_stream_is_refused(tmp_path: Path, place: int) -> None:
    """Damage in its header, its voxels and its checksum."""
    import nibabel

    image = nibabel.Nifti1Image(np.arange(1000, dtype=np.int16).reshape(10, 10, 10), np.eye(4))
    content = bytearray(gzip.compress(image.to_bytes(), mtime=0))
    content[place] ^= 0xFF
    path = tmp_path / "case.nii.gz"
    path.write_bytes(bytes(content))
    with pytest.raises(AmalgamationError, match=r"case\.nii\.gz"):
        read_volume(path)
