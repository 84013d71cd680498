"""Places of results are judged before anything is computed, and nothing else in them is touched."""

import pytest

from common.errors import DataError
from tools.predict.delivery import Target, check_apart, deliver, pages_of, seg_beside, stale, targets_of
from tools.predict.scans import Scan


@pytest.fixture
def scans(tmp_path):
    (tmp_path / "in").mkdir()
    files = [tmp_path / "in" / f"{n}.nii.gz" for n in "ab"]
    for file in files:
        file.write_text("scan")
    return [Scan(f.name[0], (f,)) for f in files]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_no_result_and_a_file_no_folder(scans, tmp_path, overwrite):
    for name in ("res.png", "out/a.nii.gz", "page.html"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").write_text("mine")
    one = scans[:1]
    with pytest.raises(DataError, match="a folder lies where a result"):
        targets_of(one, tmp_path / "in", tmp_path / "res.png", overwrite, "nifti")
    with pytest.raises(DataError, match="a folder lies where a result"):
        targets_of(scans, tmp_path / "in", tmp_path / "out", overwrite, "nifti")
    for output in ("file", "file/out", "file/a.nii.gz"):
        with pytest.raises(DataError, match="a file lies where the folder"):
            targets_of(one, tmp_path / "in", tmp_path / output, overwrite, "nifti")
    with pytest.raises(DataError, match="a folder lies where a result"):
        pages_of(one, tmp_path / "page.html", overwrite)
    with pytest.raises(DataError, match="a file lies where the folder"):
        pages_of(one, tmp_path / "file", overwrite)
    assert (tmp_path / "file").read_text() == "mine" and (tmp_path / "res.png").is_dir()


def test_what_is_there_is_refused_unless_told(scans, tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("a.dcm", "page.html", "named.dcm"):
        (tmp_path / "out" / name).write_text("mine")
    out, one = tmp_path / "out", scans[:1]
    for overwrite in (False, True):
        calls = (
            lambda o=overwrite: targets_of(scans, tmp_path / "in", out, o, "nifti"),
            lambda o=overwrite: targets_of(one, tmp_path / "in", out / "named.nii.gz", o, "both"),
            lambda o=overwrite: pages_of(one, out / "page.html", o),
        )
        for call in calls:
            if overwrite:
                assert call()
                continue
            with pytest.raises(DataError, match="already"):
                call()
    with pytest.raises(DataError, match="overwrite its scan"):
        targets_of(scans, tmp_path / "in", tmp_path / "in", True, "nifti")
    for call in (targets_of, pages_of):
        arguments = (tmp_path / "in", out / "x.nii.gz", True, "nifti") if call is targets_of else (out / "x.html", True)
        with pytest.raises(DataError, match="several scans need a folder"):
            call(scans, *arguments)
    assert {p.read_text() for p in out.iterdir()} == {"mine"}


@pytest.mark.parametrize(
    ("length", "kind", "recorded", "word"),
    [(248, "nifti", False, None), (249, "nifti", False, "volume"), (236, "nifti", True, None),
     (237, "nifti", True, "result"), (239, "dicom_seg", True, None), (240, "dicom_seg", True, "result")],
)  # fmt: skip
def test_names_that_no_disk_takes_are_refused_before(scans, tmp_path, length, kind, recorded, word):
    scan = Scan("x" * length, scans[0].files)
    for output in (tmp_path / "out", tmp_path):
        if word is None:
            assert targets_of([scan], tmp_path / "in", output, False, kind, recorded=recorded)
            continue
        with pytest.raises(DataError, match=f"no {word} can have this name"):
            targets_of([scan], tmp_path / "in", output, False, kind, recorded=recorded)
    with pytest.raises(DataError, match="no result can have this name"):
        targets_of(scans[:1], tmp_path / "in", tmp_path / f"{'y' * 240}.nii.gz", False, "nifti", recorded=True)
    with pytest.raises(DataError, match="no page can have this name"):
        pages_of(scans[:1], tmp_path / f"{'y' * 255}.html", False)


def test_complete_files_take_the_places_of_their_own_names_alone(scans, tmp_path):
    out, hidden = tmp_path / "out", tmp_path / "hidden"
    (hidden / "pages").mkdir(parents=True)
    out.mkdir()
    for name in ("a.nii.gz", "a.dcm", "a.png", "b.mha"):
        (out / name).write_text("old")
    for name in ("a.nii.gz", "a.dcm", "b.nii.gz", "pages/a.html"):
        (hidden / name).write_text("new")
    targets = targets_of(scans, tmp_path / "in", out, True, "both")
    results = {n: hidden / f"{n}.nii.gz" for n in "ab"}
    found = deliver(results, targets, {"a": hidden / "a.dcm"}, {"a": tmp_path / "more" / "a.html"}, hidden)
    assert found == {n: out / f"{n}.nii.gz" for n in "ab"} and seg_beside(found["a"]) == targets["a"].seg
    assert {p.name: p.read_text() for p in out.iterdir()} == {
        "a.nii.gz": "new", "a.dcm": "new", "b.nii.gz": "new", "a.png": "old", "b.mha": "old",
    }  # fmt: skip
    assert (tmp_path / "more" / "a.html").read_text() == "new"
    notes = stale(found, targets, both=True)
    assert [n.split(": stays")[0] for n in notes] == [str(out / "a.png"), str(out / "b.mha")]
    named = {"a": Target(out / "a.nii.gz", named=True)}
    assert stale({"a": out / "a.nii.gz"}, named, both=False) == []


@pytest.mark.parametrize(
    ("output", "page"),
    [("out.html", "out.html"), ("Out.html", "out.HTML"), ("x/y.html", "x/y.html"), ("a.html./b", "a.html"),
     ("\uff4f.html", "o.html")],
)  # fmt: skip
def test_a_page_has_a_place_of_its_own(scans, tmp_path, output, page):
    one = scans[:1]
    targets = targets_of(one, tmp_path / "in", tmp_path / output, False, "nifti")
    with pytest.raises(DataError, match="folder"):
        check_apart(targets, pages_of(one, tmp_path / page, False), "nifti")
    check_apart(targets, pages_of(one, tmp_path / "other.html", False), "both")
    twins = {n: Target(tmp_path / n, named=False) for n in ("A", "a")}
    with pytest.raises(DataError, match="one name"):
        check_apart(twins, {}, "nifti")
    assert not (tmp_path / "out.html").exists()
