import json

import nibabel as nib
import numpy as np
import pytest
from rich.progress import Progress

from tools.__main__ import main


@pytest.fixture
def dataset(tmp_path):
    root = tmp_path / "a set, with commas"
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
        for i in range(3):
            array = np.random.default_rng(i).random((4, 5, 6))
            array = (array > 0.5).astype(np.uint8) if part == "labels" else (array * 1200 - 1000).astype(np.float32)
            nib.save(nib.Nifti1Image(array, np.eye(4)), root / part / f"c{i}.nii.gz")
    entries = [{"image": f"images/c{i}.nii.gz", "label": f"labels/c{i}.nii.gz"} for i in range(3)]
    data = {"name": "set", "modality": {"0": "CT"}, "labels": {"liver": 1}, "training": entries[:2]}
    (root / "dataset.json").write_text(json.dumps({**data, "validation": entries[2:]}))
    return root


def run(*arguments):
    try:
        return main([str(a) for a in ("data", *arguments)])
    except SystemExit as stop:
        return stop.code or 0


def test_list(dataset, capsys):
    assert run("list", dataset) == 0
    assert "liver (1)" in capsys.readouterr().out


def test_check_clean(dataset, capsys):
    assert run("check", dataset, "--quiet") == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out


def test_check_warning_exits_zero(dataset, capsys):
    empty = nib.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4))
    nib.save(empty, dataset / "labels" / "c0.nii.gz")
    assert run("check", dataset) == 0
    out = capsys.readouterr().out
    assert "0 errors, 1 warnings" in out and "set/c0" in out


def test_check_error_exits_one_and_names_case_and_file(dataset, capsys):
    (dataset / "images" / "c1.nii.gz").write_bytes(b"")
    assert run("check", dataset, "--quiet") == 1
    out = capsys.readouterr().out
    assert "1 errors" in out and "set/c1" in out and "c1.ni" in out


@pytest.mark.parametrize("words", [["--channels", "CT"], ["--structures", "liver=1"]])
def test_what_a_raw_folder_says_itself_is_not_taken_and_left(dataset, tmp_path, capsys, words):
    assert run("convert", dataset, tmp_path / "new", *words) == 2
    told = capsys.readouterr().err
    assert words[0] in told and "--rename" in told and not (tmp_path / "new").exists()


def test_check_of_nothing(tmp_path, capsys):
    assert run("check", tmp_path / "none", "--quiet") == 1
    assert "tools" in capsys.readouterr().out


def test_check_options(dataset):
    assert run("check", dataset, "--smallest_mm", 2) == 1
    assert run("check", dataset, "--smalest_mm", 2) == 2


def test_convert_split_collection_merge(dataset, tmp_path, capsys):
    new = tmp_path / "new"
    structures = ["--structures", "liver=1"]
    assert run("convert", dataset / "images", new, "--labels", dataset / "labels", "--channels", "CT", *structures) == 0
    assert run("check", new) == 0
    assert run("split", new, "--val", 0.4, "--out", tmp_path / "again") == 0
    assert run("collection", new, dataset, "--out", tmp_path / "both") == 0
    assert run("list", tmp_path / "both") == 0
    assert run("merge", new, dataset, "--out", tmp_path / "merged") == 0
    merged = json.loads((tmp_path / "merged" / "dataset.json").read_text())
    assert merged["labels"] == {"background": 0, "liver": 1}
    assert "merged" in capsys.readouterr().out


def test_convert_counts_the_label_maps(dataset, tmp_path, capsys):
    arguments = ["convert", dataset / "images", tmp_path / "n", "--labels", dataset / "labels"]
    assert run(*arguments) == 2 and "--channels CT" in capsys.readouterr().err
    arguments += ["--channels", "CT"]
    assert run(*arguments) == 0
    said = capsys.readouterr().out
    assert "3 cases: 3 with a label map, 0 without\n" in said and "--structures '<name>=1'" in said
    for i in (1, 2):
        (dataset / "labels" / f"c{i}.nii.gz").rename(dataset / "labels" / f"case{i}.nii.gz")
    assert run(*arguments) == 0
    assert "3 cases: 1 with a label map, 2 without (c1, c2)" in capsys.readouterr().out


def test_convert_of_cases_that_end_in_four_digits(dataset, tmp_path):
    for part in ("images", "labels"):
        for i in range(3):
            (dataset / part / f"c{i}.nii.gz").rename(dataset / part / f"amos_{i:04d}.nii.gz")
    assert run("convert", dataset / "images", tmp_path / "n", "--labels", dataset / "labels", "--channels", "CT") == 0
    assert run("check", tmp_path / "n", "--quiet") == 0
    data = json.loads((tmp_path / "n" / "dataset.json").read_text())
    named = {e["id"]: e["label"].rsplit("/", 1)[1] for e in data["training"] + data["validation"]}
    assert named == {f"amos_{i:04d}": f"amos_{i:04d}.nii.gz" for i in range(3)}


def test_convert_refuses_bad_structures(dataset, tmp_path, capsys):
    arguments = ["convert", dataset / "images", tmp_path / "n", "--labels", dataset / "labels", "--structures", "liver"]
    assert run(*arguments) == 2
    assert "liver=1" in capsys.readouterr().err


def test_extract(tmp_path):
    source = tmp_path / "four.nii.gz"
    nib.save(nib.Nifti1Image(np.arange(48, dtype=np.float32).reshape(2, 3, 4, 2), np.diag([1, 2, 3, 1.0])), source)
    assert run("extract", source, 1, tmp_path / "one.nii.gz") == 0
    one = nib.load(tmp_path / "one.nii.gz")
    assert one.shape == (2, 3, 4) and one.get_fdata()[0, 0, 0] == 1 and np.allclose(one.affine, np.diag([1, 2, 3, 1]))
    assert run("extract", source, 2, tmp_path / "two.nii.gz") == 2


def test_a_bar_is_shown_beside_the_answer_unless_quiet(dataset, monkeypatch):
    asked = []

    class Recorded(Progress):
        def __init__(self, *columns, **options):
            asked.append((options["disable"], options["transient"], options["console"].stderr))
            super().__init__(*columns, **options)

    monkeypatch.setattr("tools.data.Progress", Recorded)
    assert run("check", dataset) == run("check", dataset, "--quiet") == 0
    assert asked == [(False, True, True), (True, True, True)]


def test_prepared_volumes_are_shown_and_deleted(tmp_path, capsys, monkeypatch):
    from common.data.store.cases import StoredCases
    from common.data.store.place import Store

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    items = [{"case": str(n), "task": "liver [red]", "image": None} for n in range(2)]
    StoredCases(items, dict, store=Store(tmp_path / "data"))
    own = ("--dataset_dir", tmp_path / "data")
    assert run("store", "list", *own) == 0
    shown = capsys.readouterr().out
    assert "2 prepared volumes" in shown and "[red]" in shown and "no prepared volumes" in shown
    assert run("store", "list", *own, "--unused_days", 1) == 0
    assert "[red]" not in (shown := capsys.readouterr().out) and "no prepared volumes unused for 1 days" in shown
    assert run("store", "clear", *own, "--unused_days", 1) == 0
    assert "0 prepared volumes deleted" in capsys.readouterr().out
    assert run("store", "clear", *own) == 0
    assert "2 prepared volumes deleted" in capsys.readouterr().out and not list((tmp_path / "data").iterdir())
    assert run("store", "list", "--dataset_dir", tmp_path) == 0
    assert run("store", "remove") == 2 and "list or clear" in capsys.readouterr().err


def test_volumes_of_a_task_alone_are_shown_with_its_collection(dataset, tmp_path, capsys, monkeypatch):
    from common.data.store.cases import StoredCases
    from common.data.store.place import Store

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    StoredCases([{"case": "a", "image": None}], dict, store=Store(dataset))
    assert run("store", "list", dataset.parent) == 0
    assert "1 prepared volumes" in capsys.readouterr().out
