"""Files whose name is not of their kind are told by what they hold."""

import gzip
import shlex
import subprocess

import nibabel as nib
import numpy as np
import pytest

from common.data.io import read_volume
from common.data.volumes.contents import held
from common.errors import DataError

NIFTI = nib.Nifti1Image(np.zeros((3, 3, 3), np.int16), np.eye(4)).to_bytes()


@pytest.mark.parametrize(
    ("name", "content", "words", "command"),
    [
        ("a.nii", gzip.compress(NIFTI, mtime=0), "gzip-compressed data", "mv -- {p} {p}.gz"),
        ("a b.nii.gz", NIFTI, "an uncompressed NIfTI volume", "mv -- {p} {s}.nii"),
        ("a.mha", NIFTI, "an uncompressed NIfTI volume", "mv -- {p} {s}.nii"),
        ("a.nii", b"NRRD0004\n", "a NRRD volume", "mv -- {p} {s}.nrrd"),
        ("a.nrrd", gzip.compress(b"NRRD0004", mtime=0), "gzip-compressed data", "mv -- {p} {p}.gz && gunzip -- {p}.gz"),
        ("a.nrrd", b"ObjectType = Image\n", "a MetaImage volume", "mv -- {p} {s}.mha"),
        ("a.nii.gz", b"\0" * 128 + b"DICM", "a DICOM file", "mv -- {p} {s}.dcm"),
        ("a.nii.gz", b"\x89PNG\r\n", "a PNG picture", "mv -- {p} {s}.png"),
        ("a.mhd", b"PK\x03\x04", "a zip archive", "unzip -- {p}"),
        ("a.nii.gz", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS", "git lfs pull"),
        ("a.nii.gz", b"<!DOCTYPE html><html>", "a web page", "download it again"),
    ],
)
def test_told_with_what_to_type(tmp_path, name, content, words, command):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"holds {words}") as refusal:
        read_volume(path)
    quoted = command.replace("{p}.gz", shlex.quote(f"{path}.gz")).replace("{p}", shlex.quote(str(path)))
    for stem in [tmp_path / name.split(".")[0]]:
        quoted = " ".join(shlex.quote(str(stem) + w[3:]) if w.startswith("{s}") else w for w in quoted.split(" "))
    assert quoted in refusal.value.hint and "cut off" not in str(refusal.value)


@pytest.mark.parametrize(("name", "content"), [("it's.nii", gzip.compress(NIFTI, mtime=0)), ("-rf x.nii.gz", NIFTI)])
def test_the_command_works(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as refusal:
        read_volume(tmp_path / name)
    subprocess.run(["sh", "-c", refusal.value.hint], check=True)
    (renamed,) = tmp_path.iterdir()
    assert read_volume(renamed).shape == (1, 3, 3, 3)


@pytest.mark.parametrize("name", ["a.hdr", "a.mgz", "a.gipl", "a"])
def test_kinds_that_are_not_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"\0" * 400)
    with pytest.raises(DataError, match=r"(?s)not a kind of file that is read.*\.nrrd.*save it as NIfTI"):
        read_volume(tmp_path / name)


def test_nothing_is_recognised(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert held(tmp_path / "x") is None
