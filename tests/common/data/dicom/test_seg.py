"""A SEG says what the label map says: voxel by voxel, on the source's slices, as an independent reader sees it."""

import builtins
import shutil

import numpy as np
import pydicom
import pytest

from common.data.dicom import seg as module
from common.data.dicom.seg import Algorithm, check_sources, write_seg
from common.data.dicom.series import SeriesOptions, read_dicom
from common.engine.monitor.overlays import class_colors
from common.errors import ConfigError, DataError, LabelError
from common.geometry import Grid
from common.labels import LabelSpace

hd = pytest.importorskip("highdicom", exc_type=ImportError)
TURN = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])
LABELS = LabelSpace(("liver", "left kidney", "liver tumour", "aorta", "Übriges"))
TOY = Algorithm("toy", "0.3.1", {"weights sha256": "ab" * 32})


def labelled(shape=(12, 10, 8), values=(1, 2, 5)):
    rng = np.random.default_rng(0)
    label = rng.choice([0, 0, *values], shape).astype(np.uint8)
    label[..., 3] = 0
    return label


def written(volume, label, path, **more):
    options = {"algorithm": TOY, "colors": class_colors(len(LABELS)), **more}
    return write_seg(label, LABELS, Grid.of(volume.image), volume.slices, path, **options)


def by_instance(path, slices):
    """``{(SOPInstanceUID of the slice, segment label): [rows, columns]}`` with nothing but pydicom."""
    data = pydicom.dcmread(path)
    names = {s.SegmentNumber: s.SegmentLabel for s in data.SegmentSequence}
    frames = data.pixel_array.reshape(-1, data.Rows, data.Columns)
    found = {}
    for frame, group in zip(frames, data.PerFrameFunctionalGroupsSequence, strict=True):
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        own = group if "SegmentIdentificationSequence" in group else data.SharedFunctionalGroupsSequence[0]
        number = own.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[source.ReferencedSOPInstanceUID, names[number]] = frame
    return found


@pytest.mark.parametrize("turn", [None, TURN])
def test_frames_are_the_slices_of_the_source(dicom_series, tmp_path, turn):
    volume = read_dicom(dicom_series(tmp_path / "s", np.zeros((12, 10, 8)), turn=turn))
    label = labelled()
    file = written(volume, label, tmp_path / "out" / "s.dcm")
    assert file.written == ("liver", "left kidney", "Übriges") and file.empty == ("liver tumour", "aorta")
    frames = by_instance(file.path, volume.slices)
    for k, one in enumerate(volume.slices):
        for value in (1, 2, 5):
            expected = (label[..., k] == value).T
            frame = frames.pop((one.instance, LABELS.names[value - 1]), np.zeros_like(expected))
            assert np.array_equal(frame > 0, expected)
    assert frames == {}


@pytest.mark.parametrize("turn", [None, TURN])
def test_highdicom_reads_the_label_map_back(dicom_series, tmp_path, turn):
    volume = read_dicom(dicom_series(tmp_path / "s", np.zeros((12, 10, 8)), turn=turn))
    label = labelled(values=(1, 2))
    seg = hd.seg.segread(written(volume, label, tmp_path / "s.dcm").path)
    sources = [s.instance for s in volume.slices]
    read = seg.get_pixels_by_source_instance(sources, combine_segments=True, assert_missing_frames_are_empty=True)
    assert np.array_equal(read.transpose(2, 1, 0), label)
    found = seg.get_volume(combine_segments=True)
    rows = found.get_closest_patient_orientation()
    assert found.spacing == pytest.approx((3.0, 1.25, 1.5)) and len(rows) == 3
    lps = np.diag([-1, -1, 1, 1]) @ Grid.of(volume.image).affine
    inside = np.argwhere(found.array == 2)
    world = found.map_indices_to_reference(inside)
    index = np.rint((np.linalg.inv(lps) @ np.c_[world, np.ones(len(world))].T)[:3].T).astype(int)
    assert (label[tuple(index.T)] == 2).all() and len(index) == (label == 2).sum()


def test_patient_study_references_names_codes_colours_and_algorithm(dicom_series, tmp_path):
    folder = dicom_series(tmp_path / "s", np.zeros((12, 10, 8)))
    volume = read_dicom(folder)
    data = pydicom.dcmread(written(volume, labelled(), tmp_path / "s.dcm").path)
    source = pydicom.dcmread(next(folder.iterdir()))
    for tag in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
                "StudyDate", "StudyTime", "AccessionNumber", "FrameOfReferenceUID"):  # fmt: skip
        assert data[tag].value == source[tag].value, tag
    assert data.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4" and data.Modality == "SEG"
    assert data.SegmentationType == "BINARY" and data.SeriesInstanceUID != source.SeriesInstanceUID
    (series,) = data.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert [r.ReferencedSOPInstanceUID for r in series.ReferencedInstanceSequence] == [
        s.instance for s in volume.slices
    ]
    liver, kidney, rest = data.SegmentSequence
    assert [s.SegmentLabel for s in data.SegmentSequence] == ["liver", "left kidney", "Übriges"]
    code = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("64033007", "SCT")
    assert code.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "7771000"
    assert rest.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "99AMALGAM"
    algorithm = liver.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("toy", "0.3.1")
    assert "ab" * 32 in algorithm.AlgorithmParameters and liver.SegmentAlgorithmType == "AUTOMATIC"
    for segment, index in ((liver, 0), (kidney, 1), (rest, 4)):
        rgb = hd.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue).to_rgb()
        wanted = [int(class_colors(5)[index][i : i + 2], 16) for i in (1, 3, 5)]
        assert np.abs(np.subtract(rgb, wanted)).max() <= 2
    assert data.SpecificCharacterSet == "ISO_IR 192"


def test_a_change_of_an_organ_names_the_organ(dicom_series, tmp_path):
    volume = read_dicom(dicom_series(tmp_path / "s", np.zeros((12, 10, 8))))
    (tumour,) = pydicom.dcmread(written(volume, labelled(values=(3,)), tmp_path / "s.dcm").path).SegmentSequence
    assert tumour.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Neoplasm"
    assert tumour.AnatomicRegionSequence[0].CodeMeaning == "Liver"


def test_names_beyond_ascii_in_the_header(dicom_series, tmp_path):
    def rename(k, data):
        data.SpecificCharacterSet, data.PatientName = "ISO_IR 144", "Иванов^Пётр"

    volume = read_dicom(dicom_series(tmp_path / "s", np.zeros((12, 10, 8)), change=rename))
    data = pydicom.dcmread(written(volume, labelled(), tmp_path / "s.dcm").path)
    assert data.PatientName == "Иванов^Пётр"


def test_overlapping_masks(dicom_series, tmp_path):
    volume = read_dicom(dicom_series(tmp_path / "s", np.zeros((12, 10, 8))))
    masks = np.random.default_rng(0).random((5, 12, 10, 8)) < 0.4
    masks[3] = False
    file = written(volume, masks, tmp_path / "s.dcm")
    assert file.empty == ("aorta",)
    seg = hd.seg.segread(file.path)
    read = seg.get_pixels_by_source_instance([s.instance for s in volume.slices])
    assert np.array_equal(read.transpose(3, 2, 1, 0) > 0, masks[[0, 1, 2, 4]])


def test_nothing_found(dicom_series, tmp_path, caplog):
    volume = read_dicom(dicom_series(tmp_path / "s", np.zeros((12, 10, 8))))
    file = written(volume, np.zeros((12, 10, 8), np.uint8), tmp_path / "s.dcm")
    data = pydicom.dcmread(file.path)
    assert not data.pixel_array.any() and len(data.SegmentSequence) == 5 and int(data.NumberOfFrames) == 5
    assert "nothing was found" in caplog.text and file.written == ()
    assert len(data.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 8


def test_interpolated_slices_have_no_frames(dicom_series, tmp_path):
    folder = dicom_series(tmp_path / "s", np.zeros((12, 10, 8)))
    (folder / "028.dcm").unlink()  # the fifth
    volume = read_dicom(folder, SeriesOptions(fill_gaps=True))
    label = np.full((12, 10, 8), 1, np.uint8)
    frames = by_instance(written(volume, label, tmp_path / "s.dcm").path, volume.slices)
    assert len(frames) == 7 and all(f.all() for f in frames.values())


def test_a_tilted_series_gets_its_own_slices_back(dicom_series, tmp_path):
    voxels = np.zeros((12, 30, 8), np.int16)
    voxels[3:9, 10:20] = 1000
    volume = read_dicom(dicom_series(tmp_path / "s", voxels, lean=1.25), SeriesOptions(straighten=True))
    label = (volume.image[0].numpy() > 500).astype(np.uint8)
    frames = by_instance(written(volume, label, tmp_path / "s.dcm").path, volume.slices)
    assert all(np.array_equal(f.T > 0, voxels[..., 0] > 0) for f in frames.values()) and len(frames) == 8


def test_an_enhanced_source(dicom_series, enhanced_series, tmp_path):
    dicom_series(tmp_path / "s", np.zeros((12, 10, 8)))
    path = enhanced_series(tmp_path / "s")
    volume, label = read_dicom(path), labelled(values=(1, 2))
    data = pydicom.dcmread(written(volume, label, tmp_path / "s.dcm").path)
    uid = pydicom.dcmread(path).SOPInstanceUID
    assert data.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == uid
    found = np.zeros_like(label)
    for frame, group in zip(data.pixel_array, data.PerFrameFunctionalGroupsSequence, strict=True):
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        number = int(source.ReferencedFrameNumber) - 1
        k = next(i for i, s in enumerate(volume.slices) if s.frame == number)
        found[..., k] += frame.T * group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    assert np.array_equal(found, label)


@pytest.mark.parametrize("tag", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_a_series_that_cannot_be_referred_to(dicom_series, tmp_path, tag):
    folder = dicom_series(tmp_path / "s", np.zeros((4, 4, 3)), change=lambda k, d: setattr(d, tag, ""))
    with pytest.raises(DataError, match=rf"(?s)no {tag}.*--result nifti"):
        check_sources(read_dicom(folder).slices)


def test_what_anonymisers_remove_and_a_seg_can_do_without(dicom_series, tmp_path):
    def strip(k, data):
        for tag in ("PatientID", "PatientName", "PatientBirthDate", "AccessionNumber", "StudyID", "SOPInstanceUID"):
            delattr(data, tag)

    volume = read_dicom(dicom_series(tmp_path / "s", np.zeros((12, 10, 8)), change=strip))
    data = pydicom.dcmread(written(volume, labelled(), tmp_path / "s.dcm").path)
    assert data.PatientID == "" and len(data.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 8


def test_refusals(dicom_series, tmp_path, monkeypatch):
    volume = read_dicom(dicom_series(tmp_path / "s", np.zeros((12, 10, 8))))
    with pytest.raises(LabelError, match="without a name"):
        written(volume, np.full((12, 10, 8), 7), tmp_path / "a.dcm")
    with pytest.raises(LabelError, match="one mask for each"):
        written(volume, np.zeros((2, 12, 10, 8), bool), tmp_path / "a.dcm")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        written(volume, labelled(), tmp_path / "file" / "a.dcm")
    assert not (tmp_path / "a.dcm").exists()
    with monkeypatch.context() as older:
        older.setattr(hd, "__version__", "0.9.1")
        with pytest.raises(ConfigError, match=r"(?s)version 0\.9\.1.*0\.28 or newer"):
            check_sources(volume.slices)
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("highdicom"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"(?s)highdicom.*pip install 'highdicom>=0.28'.*--result nifti"):
        written(volume, labelled(), tmp_path / "a.dcm")
    shutil.rmtree(tmp_path / "s")


def test_names_are_one_value_each_and_stay_apart(dicom_series, tmp_path):
    """A backslash ends a value, spaces at the end are lost, and 64 characters are all."""
    volume = read_dicom(dicom_series(tmp_path / "s", np.zeros((12, 10, 8))))
    odd = Algorithm("a\\b\x1b[2J\n" + "x" * 80, "1\\2\r\n" + "3" * 80)
    names = ("a" * 63, "a" * 63 + " b", "a" * 63 + " c")
    path = tmp_path / "s.dcm"
    write_seg(labelled(values=(1, 2, 3)), LabelSpace(names), Grid.of(volume.image), volume.slices, path, algorithm=odd,
              colors=class_colors(3), description="x\\y\n")  # fmt: skip
    data = pydicom.dcmread(path)
    labels = [str(s.SegmentLabel) for s in data.SegmentSequence]
    assert labels[0] == names[0] and len({x.rstrip() for x in labels}) == 3 and max(map(len, labels)) <= 64
    own = data.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    for text in (data.ManufacturerModelName, data.SoftwareVersions, data.SeriesDescription, data.ContentDescription,
                 own.AlgorithmName, own.AlgorithmVersion):  # fmt: skip
        assert isinstance(text, str) and len(text) <= 64 and text.isprintable() and "\\" not in text


def test_a_made_label_is_no_other_structures_name():
    names = ["a" * 63, "a" * 63 + " b"]
    for _ in range(3):  # a structure that is called as the label was made
        names = [*names, module._segment_labels(names)[1]]
        labels = module._segment_labels(names)
        assert len(set(labels)) == len(names) and labels[2:] == names[2:] and max(map(len, labels)) <= 64
