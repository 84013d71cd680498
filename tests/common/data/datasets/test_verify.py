import json

from common.data.datasets.verify import check


def test_collection_is_read_task_by_task_with_progress(make_dataset, tmp_path):
    make_dataset("a")
    make_dataset("b", cases=2)
    seen = []
    assert check(tmp_path, progress=lambda *args: seen.append(args)) == []
    assert seen[0] == ("a/c0", 1, 5) and seen[-1] == ("b/c1", 5, 5)


def test_one_scan_in_two_tasks_of_one_split_is_fine(make_dataset, tmp_path):
    make_dataset("a")
    make_dataset("b")  # same length of name and cases: same voxels
    assert check(tmp_path) == []


def test_a_broken_task_does_not_hide_the_others(make_dataset, tmp_path):
    broken, other = make_dataset("a"), make_dataset("bb")
    (broken / "dataset.json").write_text("[]")
    (other / "labels" / "c0.nii.gz").write_bytes(b"")
    found = check(tmp_path)
    assert {(p.case, p.kind) for p in found} == {("a", "datalist"), ("bb/c0", "unreadable")}


def test_collection_level_problems_are_reported(make_dataset, tmp_path):
    make_dataset("a")
    make_dataset("bb", dim=2)
    assert "datalist" in {p.kind for p in check(tmp_path)}
    (tmp_path / "collection.json").write_text(json.dumps({"datasets": ["nowhere"]}))
    assert {p.kind for p in check(tmp_path)} == {"datalist"}


def test_missing_folder(tmp_path):
    assert [p.kind for p in check(tmp_path / "none")] == ["datalist"]
