"""Every permitted NRRD equals SimpleITK in values and world; what SimpleITK reads wrongly is refused in plain words."""

import gzip

import numpy as np
import pytest

from common.data.io import read_volume
from common.errors import DataError, GeometryError
from tests.common.data.volumes.conftest import ARRAY, judged, placed, plain

FOUR = {"dimension": "4", "sizes": "3 2 3 4", "space directions": "none (0,-1.5,0) (2,0,0) (0,0,3)"}
FOURS = np.arange(72, dtype=np.int16).reshape(3, 2, 3, 4)


@pytest.mark.parametrize(
    ("space", "first"),
    [
        ("left-posterior-superior", (-10, -20, 30)), ("LPS", (-10, -20, 30)), ("right-anterior-superior", (10, 20, 30)),
        ("RAS", (10, 20, 30)), ("left-anterior-superior", (-10, 20, 30)), ("las", (-10, 20, 30)),
    ],
)  # fmt: skip
def test_each_anatomical_space(nrrd_file, space, first):
    path = nrrd_file({"space": space})
    image = read_volume(path)
    values, place = judged(path)
    assert np.array_equal(image.numpy()[0], values) and np.array_equal(values, ARRAY)
    np.testing.assert_allclose(placed(image), place)
    np.testing.assert_allclose(placed(image, (0, 0, 0)), first)  # by hand: R and L, A and P change sides


@pytest.mark.parametrize(
    ("changes", "data"),
    [
        ({"encoding": "gzip"}, gzip.compress(plain(), mtime=0)),
        ({"encoding": "gz"}, gzip.compress(plain(), mtime=0)),
        ({"encoding": "hex"}, plain().hex().encode()),
        ({"encoding": "ascii", "endian": None}, " ".join(map(str, ARRAY.ravel(order="F"))).encode()),
        ({"endian": "big"}, plain(ARRAY.astype(">i2"))),
        ({"type": "unsigned char", "endian": None}, plain(ARRAY.astype("u1"))),
        ({"type": "longlong"}, plain(ARRAY.astype("i8"))),
        ({"type": "double"}, plain(ARRAY.astype("f8"))),
        ({"kinds": None, "space origin": None}, None),
        ({"kinds": "space ??? none"}, None),
        ({"space units": '"mm" "mm" "mm"', "sample units": '"HU"', "measurement frame": "(0,1,0) (1,0,0) (0,0,1)"},
         None),
        ({"byte skip": "4"}, b"skip" + plain()),
        ({"byte skip": "-1"}, b"skip this" + plain()),
        ({"line skip": "2"}, b"one\ntwo\n" + plain()),
    ],
)  # fmt: skip
def test_permitted_headers(nrrd_file, changes, data):
    path = nrrd_file(changes, data)
    image = read_volume(path)
    assert np.array_equal(image.numpy()[0], ARRAY) and np.array_equal(judged(path)[0], ARRAY)
    np.testing.assert_allclose(placed(image), judged(path)[1])


@pytest.mark.parametrize("names", ["data.raw", "LIST", "s%d.raw 0 3 1"])
def test_detached_headers(nrrd_file, tmp_path, names):
    (tmp_path / "data.raw").write_bytes(plain())
    for k in range(4):
        (tmp_path / f"s{k}.raw").write_bytes(plain(ARRAY[:, :, k]))
    listed = "\n".join(["LIST", *(f"s{k}.raw" for k in range(4))]) if names == "LIST" else names
    path = nrrd_file({"data file": listed}, b"", name="scan.nhdr")
    if names == "LIST":
        path.write_bytes(path.read_bytes().rstrip() + b"\n")
    assert np.array_equal(read_volume(path).numpy()[0], ARRAY)
    np.testing.assert_allclose(placed(read_volume(path)), judged(path)[1])


@pytest.mark.parametrize("kind", ["list", "vector", "3-vector"])
@pytest.mark.parametrize("last", [False, True])
def test_values_beside_each_other_are_channels(nrrd_file, kind, last):
    changes = dict(FOUR, kinds=f"{kind} domain domain domain")
    if last:
        changes = {"dimension": "4", "sizes": "2 3 4 3", "kinds": f"domain domain domain {kind}",
                   "space directions": "(0,-1.5,0) (2,0,0) (0,0,3) none"}  # fmt: skip
    path = nrrd_file(changes, plain(np.moveaxis(FOURS, 0, -1) if last else FOURS))
    image = read_volume(path, channels=("a", "b", "c"))
    assert np.array_equal(image.numpy(), FOURS)
    assert np.array_equal(read_volume(path, volume=1).numpy()[0], FOURS[1])
    np.testing.assert_allclose(placed(image), judged(path)[1])
    with pytest.raises(DataError, match=r"(?s)got 4-D.*choose volume k of 3 with: python -m tools data extract .*nrrd"):
        read_volume(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": None}, "which side of the patient is left"),
        ({"space": None, "space directions": None, "spacings": "2 2 3"}, "which side of the patient is left"),
        ({"space": None, "space directions": None}, "no voxel size"),
        ({"space": None, "space directions": None, "spacings": "2 nan 3"}, "no voxel size"),
        ({"space directions": None, "spacings": "2 2 3"}, "an axis in space has no direction"),
        ({"space": "scanner-xyz"}, "which side of the patient is left"),
        ({"space": "3D-right-handed"}, "which side of the patient is left"),
        ({"space": "3D-left-handed"}, "which side of the patient is left"),
        ({"space directions": "(0,-1.5,0) (2,0,0) none"}, "an axis in space has no direction"),
        ({"space directions": "(0,-1.5,0) (2,0,0) (0,0,x)"}, "an axis in space has no direction"),
        ({"space directions": "(0,-1.5,0) (2,0,0) (0,0,0)"}, "the affine is singular"),
        ({"space directions": "(2,0,0) (2,0,0) (0,0,3)"}, "the affine is singular"),
        ({"space directions": "(2,0,0) (0.5,1.5,0) (0,0,3)"}, "the axes are sheared"),
        ({"space origin": "(nan,20,30)"}, "the origin is no place"),
        ({"space units": '"cm" "cm" "cm"'}, "not in millimetres"),
    ],
)
def test_places_that_are_not_said(nrrd_file, changes, words):
    with pytest.raises(GeometryError, match=words) as refusal:
        read_volume(nrrd_file(changes))
    assert "scan.nrrd" in str(refusal.value) and "cut off" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(FOUR, kinds="RGB-color domain domain domain"), "holds colour"),
        (dict(FOUR, kinds="time domain domain domain"), "series of volumes over time"),
        (dict(FOUR, kinds="??? domain domain domain"), "without saying what it is"),
        (dict(FOUR, kinds="3D-masked-symmetric-matrix domain domain domain"), "holds tensors"),
        (dict(FOUR, kinds="quaternion domain domain domain"), "holds quaternions"),
        (dict(FOUR, kinds="complex domain domain domain", sizes="2 2 3 4"), "holds complex numbers"),
        ({"space": "right-anterior-superior-time"}, "series of volumes over time"),
        ({"kinds": "domain domain"}, "contradicts itself about its axes"),
        ({"encoding": "bzip2"}, "(?s)encoding of the voxels.*unu save"),
        ({"type": "block", "block size": "2"}, "no numbers that are read"),
        ({"endian": None}, "in which order the bytes"),
        ({"sizes": "2 3 0"}, "no sizes"),
        ({"sizes": "2 3 ٤"}, "no sizes"),
        ({"sizes": "2 3 " + "4" * 5000}, "no sizes"),
        ({"byteskip": "٣"}, "no sizes"),
        ({"dimension": "²"}, "contradicts itself about its axes"),
        ({"dimension": "٣"}, "contradicts itself about its axes"),
        ({"dimension": "3" * 5000}, "contradicts itself about its axes"),
        ({"data file": "none.raw"}, "(?s)file of its voxels is missing.*none.raw"),
        ({"data file": "../scan.nrrd"}, "outside its folder"),
        ({"data file": "/etc/passwd"}, "outside its folder"),
        ({"data file": "s%s.raw 0 3 1"}, "pattern that is not understood"),
    ],
)
def test_contents_that_are_no_scan(nrrd_file, changes, words):
    with pytest.raises(DataError, match=words) as refusal:
        read_volume(nrrd_file(changes, plain(FOURS)))
    assert "scan.nrrd" in str(refusal.value) and "cut off" not in str(refusal.value)


def test_layers_of_segments(nrrd_file):
    layers = {"Segment0_Layer": "0", "Segment0_LabelValue": "1", "Segment1_Layer": "1", "Segment1_LabelValue": "1"}
    changes = dict(FOUR, kinds="list domain domain domain")
    with pytest.raises(DataError, match=r"(?s)several layers.*2 layers.*Export as labelmap"):
        read_volume(nrrd_file(changes, plain(FOURS), keys=layers))
    assert read_volume(nrrd_file(keys={**layers, "Segment1_Layer": "0"})).shape == (1, 2, 3, 4)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_what_ends_too_early(nrrd_file, encoding):
    whole = nrrd_file({"encoding": encoding}, gzip.compress(plain()) if encoding == "gzip" else plain()).read_bytes()
    path = nrrd_file()
    for size in (1, 7, 40, 150, len(whole) - 20, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="cut off"):
            read_volume(path)


def test_a_flipped_byte(nrrd_file):
    data = bytearray(gzip.compress(np.random.default_rng(0).bytes(48)))
    data[20] ^= 1
    with pytest.raises(DataError, match="cut off or damaged"):
        read_volume(nrrd_file({"encoding": "gzip"}, bytes(data)))


def test_strangers(nrrd_file):
    path = nrrd_file()
    path.write_bytes(b"this is no volume at all" * 9)
    with pytest.raises(DataError, match="not a NRRD file") as refusal:
        read_volume(path)
    assert "cut off" not in str(refusal.value)


def test_flat_images_need_no_place(nrrd_file):
    flat = {"dimension": "2", "sizes": "4 6", "space": None, "space directions": None, "space origin": None,
            "kinds": None, "spacings": "2 2"}  # fmt: skip
    assert np.array_equal(read_volume(nrrd_file(flat), dim=2).numpy()[0], ARRAY.reshape((4, 6), order="F"))
