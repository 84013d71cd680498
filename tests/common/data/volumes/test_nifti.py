"""NIfTI headers that leave something out or ask for what nobody reads: refused by what it is, with what to type."""

import gzip
import shlex
import struct
import sys

import nibabel as nib
import numpy as np
import pytest

from common.data.io import read_volume
from common.data.volumes.nifti import check_nifti
from common.errors import DataError, GeometryError

ARRAY = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
PIXDIM_Z, XYZT, QFORM, SFORM, SLOPE, INTER = 88, 123, 252, 254, 112, 116


def saved(path, array=ARRAY, edits=(), affine=None):
    """A NIfTI file with bytes of its header overwritten."""
    image = nib.Nifti1Image(array, np.diag([2.0, 2, 3, 1]) if affine is None else affine)
    image.set_qform(image.affine, 1)
    raw = bytearray(image.to_bytes())
    for offset, form, value in edits:
        struct.pack_into(form, raw, offset, value)
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


@pytest.mark.parametrize("name", ["c.nii", "c.nii.gz"])
@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ([(SFORM, "<h", 0), (PIXDIM_Z, "<f", 0.0)], "no voxel size"),
        ([(SFORM, "<h", 0), (PIXDIM_Z, "<f", float("nan"))], "no voxel size"),
        ([(SFORM, "<h", 0), (QFORM, "<h", 0)], "which side is left"),
        ([(XYZT, "<b", 3)], r"(?s)not in millimetres.*got: +micrometres"),
        ([(XYZT, "<b", 1)], r"(?s)not in millimetres.*got: +metres"),
        ([(PIXDIM_Z, "<f", 0.0)], "disagree about the spacing"),
    ],
)
def test_places_that_are_not_said(tmp_path, name, edits, words):
    with pytest.raises(GeometryError, match=words):
        read_volume(saved(tmp_path / name, edits=edits))


@pytest.mark.parametrize("edits", [[], [(SFORM, "<h", 0)], [(QFORM, "<h", 0)], [(XYZT, "<b", 2)], [(XYZT, "<b", 0)]])
def test_places_that_are_said(tmp_path, edits):
    image = read_volume(saved(tmp_path / "c.nii.gz", edits=edits))
    assert np.array_equal(image.numpy()[0], ARRAY)
    assert np.allclose(image.affine, np.diag([2.0, 2, 3, 1]))


def test_colour_complex_and_unsaid_volumes_become_scans_by_the_command_of_the_hint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def typed(error, folder):
        """What a refusal says to type, as a shell would split it."""
        python, option, code, *rest = shlex.split(error.hint[error.hint.index("python ") :])
        assert (python, option) == ("python", "-c")
        monkeypatch.setattr(sys, "argv", ["-c", *rest])
        exec(code, {})
        return read_volume(folder / rest[-1]).numpy()[0]

    colour = np.zeros(ARRAY.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colour["R"] = 30
    with pytest.raises(DataError, match="colour voxels") as refusal:
        read_volume(saved(tmp_path / "it's $(colour).nii.gz", colour))
    assert np.allclose(typed(refusal.value, tmp_path), 10)
    with pytest.raises(DataError, match="complex voxels") as refusal:
        read_volume(saved(tmp_path / "c.nii.gz", (3 * ARRAY + 4j * ARRAY).astype(np.complex64)))
    assert np.allclose(typed(refusal.value, tmp_path), 5 * ARRAY)
    with pytest.raises(DataError, match="which side is left") as refusal:
        read_volume(saved(tmp_path / "u.nii.gz", edits=[(SFORM, "<h", 0), (QFORM, "<h", 0)]))
    assert np.array_equal(typed(refusal.value, tmp_path), ARRAY)


def test_an_impossible_scaling(tmp_path):
    path = saved(tmp_path / "c.nii", edits=[(SLOPE, "<f", 1.0), (INTER, "<f", float("nan"))])
    with pytest.raises(DataError, match=r"(?s)scaling is impossible.*nifti_tool") as refusal:
        read_volume(path)
    assert "cut off" not in str(refusal.value)


def test_vectors_are_told_by_their_number(tmp_path):
    with pytest.raises(DataError, match=r"(?s)got 4-D.*choose volume k of 2"):
        read_volume(saved(tmp_path / "v.nii", np.stack([ARRAY, ARRAY], -1)[:, :, :, None]))


@pytest.mark.parametrize("keep", [slice(-3), slice(-100), slice(30)])
def test_what_ends_too_early(tmp_path, keep):
    for name in ("c.nii", "c.nii.gz"):
        path = saved(tmp_path / name)
        path.write_bytes(path.read_bytes()[keep])
        with pytest.raises(DataError, match="cut off"):
            read_volume(path)


def test_a_flipped_byte_is_seen_by_the_checksum(tmp_path):
    path = saved(tmp_path / "c.nii.gz", np.random.default_rng(0).integers(0, 99, (9, 9, 9)).astype(np.int16))
    data = bytearray(path.read_bytes())
    check_nifti(path)
    data[-12] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="cut off or damaged"):
        check_nifti(path)
