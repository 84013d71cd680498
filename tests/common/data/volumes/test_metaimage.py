"""Every permitted MHA and MHD equals SimpleITK in values and world; what it reads wrongly is refused in plain words."""

import zlib

import numpy as np
import pytest
import SimpleITK

from common.data.io import read_volume
from common.errors import DataError, GeometryError
from tests.common.data.volumes.conftest import ARRAY, judged, placed, plain

PACKED = zlib.compress(plain())
TURN = "0 1 0 -1 0 0 0 0 1"


@pytest.mark.parametrize(
    ("changes", "data"),
    [
        ({}, None),
        ({"AnatomicalOrientation": "LPS"}, None),
        ({"TransformMatrix": None, "Offset": None}, None),
        ({"TransformMatrix": None, "Orientation": TURN, "Offset": None, "Position": "10 20 30"}, None),
        ({"ElementSpacing": None, "ElementSize": "2 1.5 3"}, None),
        ({"ElementSpacing": "2 -1.5 3"}, None),
        ({"CompressedData": "True", "CompressedDataSize": str(len(PACKED))}, PACKED),
        ({"BinaryDataByteOrderMSB": "True"}, plain(ARRAY.astype(">i2"))),
        ({"ElementType": "MET_LONG_LONG"}, plain(ARRAY.astype("i8"))),
        ({"ElementType": "MET_LONG"}, plain(ARRAY.astype("i4"))),
        ({"ElementType": "MET_UCHAR"}, plain(ARRAY.astype("u1"))),
        ({"ElementType": "MET_DOUBLE"}, plain(ARRAY.astype("f8"))),
        ({"ElementNumberOfChannels": "1", "DistanceUnits": "mm"}, None),
        ({"HeaderSize": "-1"}, b"before" + plain()),
        ({"ElementToIntensityFunctionSlope": "1", "ElementToIntensityFunctionOffset": "0"}, None),
    ],
)
def test_permitted_headers(meta_file, changes, data):
    path = meta_file(changes, data)
    image = read_volume(path)
    assert np.array_equal(image.numpy()[0], ARRAY) and np.array_equal(judged(path)[0], ARRAY)
    np.testing.assert_allclose(placed(image), judged(path)[1])


def test_the_place_by_hand(meta_file):
    image = read_volume(meta_file())  # rows of TransformMatrix are the axes, in LPS
    np.testing.assert_allclose(placed(image, (0, 0, 0)), (-10, -20, 30))
    np.testing.assert_allclose(placed(image, (1, 0, 0)), (-10, -22, 30))
    np.testing.assert_allclose(placed(image, (0, 1, 0)), (-8.5, -20, 30))


@pytest.mark.parametrize("names", ["data.raw", "LIST", "s%d.raw 0 3 1"])
def test_detached_headers(meta_file, tmp_path, names):
    (tmp_path / "data.raw").write_bytes(plain())
    for k in range(4):
        (tmp_path / f"s{k}.raw").write_bytes(plain(ARRAY[:, :, k]))
    listed = "\n".join(["LIST", *(f"s{k}.raw" for k in range(4))]) if names == "LIST" else names
    path = meta_file({"ElementDataFile": listed}, b"", "scan.mhd")
    assert np.array_equal(read_volume(path).numpy()[0], ARRAY)
    np.testing.assert_allclose(placed(read_volume(path)), judged(path)[1])


def test_several_values_a_voxel_and_a_fourth_axis_are_channels(meta_file):
    fours = np.arange(48, dtype=np.int16).reshape(2, 2, 3, 4)
    path = meta_file({"ElementNumberOfChannels": "2"}, plain(fours))
    assert np.array_equal(read_volume(path, channels=("a", "b")).numpy(), fours)
    with pytest.raises(DataError, match="choose volume k of 2"):
        read_volume(path)
    axes = {"NDims": "4", "DimSize": "2 3 4 2", "Offset": "10 20 30 0", "ElementSpacing": "2 1.5 3 1",
            "CenterOfRotation": "0 0 0 0", "TransformMatrix": "0 1 0 0 -1 0 0 0 0 0 1 0 0 0 0 1"}  # fmt: skip
    path = meta_file(axes, plain(np.moveaxis(fours, 0, -1)))
    image = read_volume(path, channels=("a", "b"))
    assert np.array_equal(image.numpy(), fours)
    there = SimpleITK.ReadImage(str(path)).TransformIndexToPhysicalPoint((1, 2, 3, 0))
    np.testing.assert_allclose(placed(image), (-there[0], -there[1], there[2]))
    with pytest.raises(DataError, match="choose volume k of 2"):
        read_volume(path)
    mixed = dict(axes, TransformMatrix="0 1 0 0 -1 0 0 0 0 0 0 1 0 0 1 0")
    with pytest.raises(GeometryError, match="fourth axis is mixed"):
        read_volume(meta_file(mixed, plain(fours)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ElementSpacing": None}, "no voxel size"),
        ({"ElementSpacing": "2 0 3"}, "no voxel size"),
        ({"ElementSpacing": "2 nan 3"}, "numbers cannot be read"),
        ({"ElementSpacing": "2 3"}, "contradicts itself about its axes"),
        ({"Offset": "nan 0 0"}, "numbers cannot be read"),
        ({"DistanceUnits": "cm"}, "not in millimetres"),
        ({"TransformMatrix": None, "AnatomicalOrientation": "RPI"}, "in letters alone"),
        ({"TransformMatrix": "2 0 0 0 1.5 0 0 0 3"}, "no rotation"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "no rotation"),
        ({"TransformMatrix": "1 0 0 0.6 0.8 0 0 0 1"}, "sheared"),
    ],
)
def test_places_that_are_not_said(meta_file, changes, words):
    with pytest.raises(GeometryError, match=words) as refusal:
        read_volume(meta_file(changes))
    assert "scan.mha" in str(refusal.value) and "cut off" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "data", "words"),
    [
        ({"BinaryData": "False"}, b"1 2 3", "written as text"),
        ({"ElementToIntensityFunctionSlope": "2"}, None, "scaling that no program applies"),
        ({"ElementToIntensityFunctionOffset": "-1000"}, None, "scaling that no program applies"),
        ({"CompressedData": "True"}, PACKED, "(?s)how many bytes.*expected: +44"),
        ({"ElementType": "MET_LONG"}, plain(ARRAY.astype("i8")), "(?s)more voxels than its header says.*MET_LONG_LONG"),
        ({"HeaderSize": "6"}, b"before" + plain(), "more voxels than its header says"),
        ({"ElementType": "MET_STRING"}, None, "no numbers that are read"),
        ({"DimSize": "2 3"}, None, "contradicts itself about its size"),
        ({"DimSize": "2 3 -4"}, None, "contradicts itself about its size"),
        ({"DimSize": "2 3 ²"}, None, "contradicts itself about its size"),
        ({"DimSize": "2 3 ٤"}, None, "contradicts itself about its size"),
        ({"DimSize": "2 3 " + "4" * 5000}, None, "contradicts itself about its size"),
        ({"HeaderSize": "²"}, None, "numbers cannot be read"),
        ({"HeaderSize": "--1"}, None, "numbers cannot be read"),
        ({"HeaderSize": "1" * 5000}, None, "numbers cannot be read"),
        ({"ElementNumberOfChannels": "x"}, None, "numbers cannot be read"),
        ({"ElementDataFile": "none.raw"}, b"", "(?s)file of its voxels is missing.*none.raw"),
        ({"ElementDataFile": "../x.raw"}, b"", "outside its folder"),
        ({"ElementDataFile": "s%n.raw 0 3 1"}, b"", "pattern that is not understood"),
    ],
)
def test_contents_that_are_no_scan(meta_file, changes, data, words):
    with pytest.raises(DataError, match=words) as refusal:
        read_volume(meta_file(changes, data))
    assert "scan.mha" in str(refusal.value) and "cut off" not in str(refusal.value)


@pytest.mark.parametrize("packed", [False, True])
def test_what_ends_too_early(meta_file, packed):
    changes = {"CompressedData": "True", "CompressedDataSize": str(len(PACKED))} if packed else {}
    whole, path = meta_file(changes, PACKED if packed else None).read_bytes(), meta_file()
    for size in (1, 40, 150, len(whole) - 20, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="cut off"):
            read_volume(path)


def test_a_flipped_byte_and_a_stream_without_end(meta_file):
    data = zlib.compress(np.random.default_rng(0).bytes(48))
    for damaged in (data[:20] + bytes([data[20] ^ 1]) + data[21:], data[:-5]):
        changes = {"CompressedData": "True", "CompressedDataSize": str(len(damaged))}
        with pytest.raises(DataError, match="cut off or damaged"):
            read_volume(meta_file(changes, damaged))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"CompressedDataSize": "10"}, "cut off or damaged"),
        ({"CompressedDataSize": "999"}, "cut off"),
        ({"HeaderSize": "-1"}, "where its compressed voxels begin"),
    ],
)
def test_compressed_voxels_in_a_file_of_their_own(meta_file, tmp_path, changes, words):
    (tmp_path / "data.zraw").write_bytes(PACKED)
    packed = {"CompressedData": "True", "ElementDataFile": "data.zraw"}
    for sizes in ({}, {"CompressedDataSize": str(len(PACKED))}):
        assert np.array_equal(read_volume(meta_file({**packed, **sizes}, b"", "scan.mhd")).numpy()[0], ARRAY)
    with pytest.raises(DataError, match=words):
        read_volume(meta_file({**packed, **changes}, b"", "scan.mhd"))


def test_strangers(meta_file):
    path = meta_file()
    path.write_bytes(b"this is no volume at all" * 9)
    with pytest.raises(DataError, match="not a MetaImage file") as refusal:
        read_volume(path)
    assert "cut off" not in str(refusal.value)
