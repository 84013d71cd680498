"""Files that a header names, and whether the voxels in them are whole."""

import gzip
import zlib

import pytest

from common.data.volumes.detached import Stored, named_files, refuse_damaged
from common.errors import DataError


@pytest.fixture
def header(tmp_path):
    folder = tmp_path / "scans"
    (folder / "raw").mkdir(parents=True)
    for name in ("a b.raw", "raw/s01.raw", "raw/s03.raw"):
        (folder / name).write_bytes(b"12345678")
    (tmp_path / "beside.raw").write_bytes(b"1")
    return folder / "x.nhdr"


@pytest.mark.parametrize(
    ("value", "listed", "names"),
    [
        ("a b.raw", (), ["a b.raw"]),
        ("./a b.raw", (), ["a b.raw"]),
        ("raw/../a b.raw", (), ["a b.raw"]),
        ("raw/s%02d.raw 1 3 2", (), ["raw/s01.raw", "raw/s03.raw"]),
        ("LIST", ("a b.raw", "raw/s01.raw"), ["a b.raw", "raw/s01.raw"]),
        ("list 2", ("raw/s01.raw",), ["raw/s01.raw"]),
    ],
)
def test_names(header, value, listed, names):
    folder = header.parent.resolve()
    found = [p.resolve().relative_to(folder).as_posix() for p in named_files(value, listed, header)]
    assert found == names


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("../beside.raw", "outside its folder"),
        ("/etc/passwd", "outside its folder"),
        ("raw", "voxels is missing"),
        ("", "no file of voxels"),
        ("LIST", "no file of voxels"),
        ("s%s.raw 1 2 1", "pattern"),
        ("s%d%d.raw 1 2 1", "pattern"),
        ("s%99999d.raw 1 2 1", "pattern"),
        ("s%d.raw 1 2 0", "pattern"),
        ("s%d.raw 1", "pattern"),
        ("s%d.raw ١ ٢ ١", "pattern"),
        (f"s%d.raw 1 {'2' * 5000} 1", "pattern"),
        ("s%d.raw 1 999999999", "pattern"),
    ],
)
def test_refused_names(header, value, words):
    with pytest.raises(DataError, match=words):
        named_files(value, (), header)


def test_a_link_out_of_the_folder(header):
    (header.parent / "link.raw").symlink_to(header.parent.parent / "beside.raw")
    with pytest.raises(DataError, match="outside its folder"):
        named_files("link.raw", (), header)


@pytest.mark.parametrize("packing", ["gzip", "zlib"])
def test_whole_and_damaged_streams(tmp_path, packing):
    path, voxels = tmp_path / "x", bytes(range(256)) * 9000  # more than one piece
    packed = gzip.compress(voxels) if packing == "gzip" else zlib.compress(voxels)
    path.write_bytes(b"head" + packed)
    refuse_damaged(Stored((path,), 4, None, packing, len(voxels)), path)
    with pytest.raises(DataError, match="cut off"):
        refuse_damaged(Stored((path,), 4, None, packing, len(voxels) + 1), path)
    with pytest.raises(DataError, match="cut off"):
        refuse_damaged(Stored((path,), 4, len(packed) + 1, packing, len(voxels)), path)
    with pytest.raises(DataError, match="cut off"):  # nothing packs so well: refused before memory is taken
        refuse_damaged(Stored((path,), 4, None, packing, 2**40), path)
    path.write_bytes(b"head" + packed[:-1])
    with pytest.raises(DataError, match="cut off or damaged"):
        refuse_damaged(Stored((path,), 4, None, packing, len(voxels)), path)


def test_plain_voxels(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"12345678")
    refuse_damaged(Stored((path, path), 2, None, "", 12), path)
    with pytest.raises(DataError, match=r"(?s)cut off.*12 bytes of voxels.*13 bytes"):
        refuse_damaged(Stored((path, path), 2, None, "", 13), path)
