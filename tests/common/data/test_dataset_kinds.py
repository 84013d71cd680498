"""Files dataset.json and collection.json whose entries are of a wrong kind."""

import json

import pytest

from common.data.datasets.datalist import read_collection
from common.data.datasets.dataset import read_dataset
from common.data.datasets.dataset_json import channel_names
from common.errors import DataError

GOOD = {
    "name": "ct",
    "labels": {"background": 0, "liver": 1},
    "channel_names": {"0": "CT"},
    "training": [{"image": "a.nii", "label": "al.nii"}],
}
WRONG = {
    "name": (["a"], 5, {}, True),
    "labels": ("liver", ["liver"], None, {"liver": 0, "spleen": 1}, {"liver": 1.5}),
    "exclusive": ("false", 0, None, []),
    "dim": ("drei", [3], 7, 3.5, True, None, "3"),
    "channel_names": (
        {"x": "CT", "0": "MR"},
        {"²": "CT"},
        {"0": "CT", "00": "MR"},
        {"0": 5},
        {"0": None},
        [5],
        5,
        {},
        [],
    ),
    "training": (
        *([{"image": i, "label": "b.nii"}] for i in (5, {"CT": []}, [["a.nii"]], [None], "a\0b", "x" * 5000, "\ud800")),
        *([{"image": "a.nii", "label": n}] for n in (5, ["b.nii"], "b\0", "x" * 300)),
        *([{"image": "a.nii", "label": "b.nii", k: ["p"]}] for k in ("id", "subject", "patient", "modality")),
        [5],
        {"image": "a.nii"},
        None,
    ),
}


def write(folder, content, name="dataset.json"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in WRONG.items() for v in values])
def test_a_wrong_entry_is_refused(key, value, tmp_path):
    with pytest.raises(DataError):
        read_dataset(write(tmp_path, {**GOOD, key: value}))


def test_infinite_values_and_repeated_keys_are_refused(tmp_path):
    for old, new in (('"liver": 1', '"liver": 1e999'), ('"liver": 1', '"liver": 1, "liver": 2')):
        (tmp_path / "dataset.json").write_text(json.dumps(GOOD).replace(old, new))
        with pytest.raises(DataError, match=r"dataset\.json"):
            read_dataset(tmp_path)


def test_what_stays_allowed(tmp_path):
    entry = {"image": ["a.nii"], "label": "al.nii", "id": 7, "patient": 12}
    (case,) = read_dataset(write(tmp_path / "a", {**GOOD, "dim": 2, "training": [entry] * 1})).cases()
    assert (case.id, case.subject) == ("7", "12")
    assert channel_names({"channel_names": None, "modality": {"0": "CT"}}, tmp_path) == ("CT",)
    ten = {str(i): f"c{i}" for i in (10, 9, *range(9))}
    assert channel_names({"modality": ten}, tmp_path) == tuple(f"c{i}" for i in range(11))
    (tmp_path / "b").mkdir()
    (tmp_path / "b/dataset.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    assert read_dataset(tmp_path / "b").name == "ct"


def test_a_collection_that_lists_itself(tmp_path):
    write(tmp_path / "a", GOOD)
    for listed in (["."], ["a", "."], ["collection.json"], ["../" + tmp_path.name], ["b"], [".::ct"]):
        write(tmp_path / "b", {"datasets": [".."]}, "collection.json")
        with pytest.raises(DataError, match="lists itself"):
            read_collection(write(tmp_path, {"datasets": listed}, "collection.json"))
    (tmp_path / "c").symlink_to(tmp_path)
    with pytest.raises(DataError, match="lists itself"):
        read_collection(write(tmp_path, {"datasets": ["c"]}, "collection.json"))
    for level in range(40):
        write(tmp_path / f"l{level}", {"datasets": [f"../l{level + 1}"]}, "collection.json")
    with pytest.raises(DataError):
        read_collection(tmp_path / "l0")


@pytest.mark.parametrize(
    "entries",
    [
        {"datasets": "a"},
        {"datasets": [5]},
        {"datasets": [None]},
        {"datasets": {"a": 1}},
        {"datasets": ["a\0"]},
        {"name": ["a"]},
        {"name": []},
        {"name": 5},
        {"tasks": ["ct"]},
        {"tasks": "ct"},
        {"tasks": {"ct": 5}},
        {"tasks": {"ct": ["labels"]}},
        {"tasks": {"ct": {"labels": ["liver"]}}},
        {"tasks": {"ct": {"labels": {"liver": ["a"]}}}},
        {"tasks": {"ct": {"labels": {"liver": 5}}}},
        {"tasks": {"ct": {"labels": None}}},
        {"tasks": {"ct": {"modality": 5}}},
        {"tasks": {"ct": {"modalty": "MR"}}},
    ],
)
def test_a_collections_entries_of_a_wrong_kind_are_refused(entries, tmp_path):
    write(tmp_path / "a", GOOD)
    with pytest.raises(DataError, match=r"collection\.json"):
        read_collection(write(tmp_path, {"datasets": ["a"], **entries}, "collection.json"))


def test_a_collection_renames(tmp_path):
    write(tmp_path / "a", GOOD)
    options = {"ct": {"labels": {"liver": "left liver"}, "modality": "MR"}}
    whole = read_collection(write(tmp_path, {"name": "x", "datasets": ["a"], "tasks": options}, "collection.json"))
    assert (whole.name, whole.labels.names, whole.modalities) == ("x", ("left liver",), ("MR",))
