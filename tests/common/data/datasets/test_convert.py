import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from common.data.datasets.convert import (
    convert_nnunet,
    convert_pairs,
    split_dataset,
    write_collection,
    write_dataset,
    write_json,
)
from common.data.datasets.datalist import read_collection
from common.data.datasets.dataset import read_dataset
from common.data.datasets.merge import merge_datasets
from common.data.datasets.verify import check
from common.errors import AmalgamationError, ConfigError, DataError, ExpertError, LabelError
from common.experts.spec import ExpertSpec

VOLUME = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)


@pytest.fixture
def raw(nifti, tmp_path):
    """An nnU-Net raw folder with two channels, five training cases and two test cases."""
    folder = tmp_path / "Dataset007_Brain"
    for i in range(7):
        part = "Tr" if i < 5 else "Ts"
        for c in range(2):
            nifti(folder / f"images{part}" / f"BR_{i:03d}_{c:04d}.nii.gz", VOLUME + i + c / 10)
        if i < 6:
            nifti(folder / f"labels{part}" / f"BR_{i:03d}.nii.gz", (VOLUME * 3).astype(np.uint8))
    data = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "core": 2, "edge": 1}}
    (folder / "dataset.json").write_text(json.dumps({**data, "numTraining": 5, "file_ending": ".nii.gz"}))
    return folder


def test_nnunet_raw_folder(raw, tmp_path):
    dataset = convert_nnunet(raw, tmp_path / "new")
    assert (dataset.name, dataset.channels) == ("Dataset007_Brain", ("T1", "FLAIR"))
    assert dataset.labels.to_json() == {"background": 0, "edge": 1, "core": 2}
    assert [len(dataset.splits[s]) for s in ("test", "unlabelled")] == [1, 1]
    assert len(dataset.cases("training")) + len(dataset.cases("validation")) == 5 and dataset.cases("validation")
    assert check(tmp_path / "new") == []
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["dataset.json"]
    shutil.move(tmp_path / "new", tmp_path / "elsewhere")
    assert read_dataset(tmp_path / "elsewhere").cases()[0].images[0].name == dataset.cases()[0].images[0].name


@pytest.mark.parametrize("name", ["CT | MR", "CT|MR", "a|b | c", "|", " | "])
def test_a_channel_of_several_names_is_refused_where_it_is_declared(raw, tmp_path, name):
    description = json.loads((raw / "dataset.json").read_text())
    description["channel_names"]["0"] = name
    (raw / "dataset.json").write_text(json.dumps(description))
    out = tmp_path / "new"
    with pytest.raises(AmalgamationError, match=r"channel.*(\n.*)*--rename") as caught:
        convert_nnunet(raw, out)
    assert caught.value.where == raw / "dataset.json" and not out.exists()
    assert convert_nnunet(raw, out, rename={name: "T2"}).channels[0] == "T2"
    with pytest.raises(AmalgamationError, match=r"channel.*(\n.*)*--channels"):
        convert_pairs(raw / "imagesTr", raw / "labelsTr", tmp_path / "pairs", name="x", channels=[name, "FLAIR"])
    assert not (tmp_path / "pairs").exists()
    labels = {"names": ["liver"], "values": [1]}
    entry = {"name": "a", "kind": "nnunet", "path": "x", "task": "t", "channels": [name, "FLAIR"], "labels": labels}
    if name == "CT | MR":  # as an expert of a merged data set reads it
        assert ExpertSpec.from_dict(entry).channels == (name, "FLAIR")
    else:
        with pytest.raises(ExpertError, match="channel"):
            ExpertSpec.from_dict(entry)


def test_nnunet_s_list_of_cases_is_kept_to(raw, tmp_path):
    description = json.loads((raw / "dataset.json").read_text())

    def entry(i, images=None):
        files = images or [f"imagesTr/BR_{i:03d}_{c:04d}.nii.gz" for c in range(2)]
        return {"images": files, "label": f"labelsTr/BR_{i:03d}.nii.gz"}

    def described(table):
        (raw / "dataset.json").write_text(json.dumps({**description, "dataset": table}))
        return convert_nnunet(raw, tmp_path / "new", val=0)

    other = [str(raw / f"imagesTs/BR_005_{c:04d}.nii.gz") for c in range(2)]
    dataset = described({"first": entry(0), "third": entry(2), "moved": entry(3, other)})
    cases = sorted([*dataset.cases("training"), *dataset.cases("validation")], key=lambda c: str(c.label))
    assert {c.id: c.images[1].name for c in cases} == {
        "first": "BR_000_0001.nii.gz", "third": "BR_002_0001.nii.gz", "moved": "BR_005_0001.nii.gz",
    }  # fmt: skip
    assert [c.label.name for c in cases if c.label] == ["BR_000.nii.gz", "BR_002.nii.gz", "BR_003.nii.gz"]
    assert not dataset.cases("test")  # BR_005 lies in imagesTs, and is trained on here
    for table, words in (
        ([], "names no cases"),
        ({"a": {"label": "labelsTr/BR_000.nii.gz"}}, "names no image"),
        ({"a": {"images": entry(0)["images"]}}, "has no label map"),
        ({"a": entry(0, ["imagesTr/BR_000_0000.nii.gz", "$HOME/BR_000_0001.nii.gz"])}, "file that is not there"),
        ({"a/../b": entry(0)}, "a/../b"),
        ({"a": entry(0, ["imagesTr/BR_000_0000.nii.gz"] * 3)}, "channel"),
    ):
        with pytest.raises(DataError, match=words):
            described(table)


def test_nnunet_names_that_are_refused_are_renamed_on_the_way(raw, tmp_path):
    """As in AMOS, whose fifteenth structure is called ``prostate/uterus``."""
    data = json.loads((raw / "dataset.json").read_text())
    data |= {
        "channel_names": {"0": "T1/T2", "1": "FLAIR"},
        "labels": {"background": 0, "edge": 1, "prostate/uterus": 2},
    }
    (raw / "dataset.json").write_text(json.dumps(data))
    with pytest.raises(LabelError, match="cannot be the name"):
        convert_nnunet(raw, tmp_path / "new")
    names = {"prostate/uterus": "prostate or uterus", "T1/T2": "T1 by T2"}
    dataset = convert_nnunet(raw, tmp_path / "new", rename=names)
    assert dataset.labels.to_json() == {"background": 0, "edge": 1, "prostate or uterus": 2}
    assert dataset.channels == ("T1 by T2", "FLAIR")
    with pytest.raises(DataError, match="nothing of this name"):
        convert_nnunet(raw, tmp_path / "new", rename={**names, "liver": "Leber"})


def test_nnunet_missing_channel(raw, tmp_path):
    (raw / "imagesTr" / "BR_002_0001.nii.gz").unlink()
    with pytest.raises(DataError, match="BR_002"):
        convert_nnunet(raw, tmp_path / "new")


def test_nnunet_s_ignore_label_is_no_structure(raw, tmp_path):
    data = json.loads((raw / "dataset.json").read_text())
    labels = data["labels"]
    (raw / "dataset.json").write_text(json.dumps(data | {"labels": {**labels, "ignore": 3}}))
    with pytest.raises(DataError, match=r"(?s)Dataset007_Brain.*without annotation.*\"ignore\": 3.*tools data check"):
        convert_nnunet(raw, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    del labels["core"]  # what the refusal proposes: a map that still holds the value is found afterwards
    (raw / "dataset.json").write_text(json.dumps(data))
    convert_nnunet(raw, tmp_path / "new")
    assert {p.got for p in check(tmp_path / "new")} == {"undeclared values 2"}


@pytest.mark.parametrize("ending", ["", "_seg", "_mask"])
def test_folder_pairs(nifti, tmp_path, ending):
    for i in range(4):
        nifti(tmp_path / "scans" / f"p{i}.nii.gz", VOLUME + i)
        if i:
            nifti(tmp_path / "masks" / f"p{i}{ending}.nii.gz", (VOLUME > 0.5).astype(np.uint8) * 7)
    options = {"name": "pairs", "channels": ("CT",)}
    dataset = convert_pairs(tmp_path / "scans", tmp_path / "masks", tmp_path / "new", **options)
    assert dataset.labels.to_json() == {"background": 0, "pairs structure 7": 7}
    assert [c.id for c in dataset.cases("unlabelled")] == ["p0"]
    assert {p.kind for p in check(tmp_path / "new")} == {"intensity"}  # no CT lies within 0 and 1
    named = convert_pairs(tmp_path / "scans", tmp_path / "masks", tmp_path / "n2", structures={"liver": 7}, **options)
    assert named.labels.names == ("liver",)


def test_folder_pairs_refusals(nifti, tmp_path):
    nifti(tmp_path / "scans" / "a.nii", VOLUME)
    nifti(tmp_path / "masks" / "b.nii", VOLUME)
    (tmp_path / "empty").mkdir()
    for images, labels, word in (("scans", "masks", "of its name"), ("none", "masks", "does not exist"),
                                 ("empty", "masks", "no volumes")):  # fmt: skip
        with pytest.raises(DataError, match=word):
            convert_pairs(tmp_path / images, tmp_path / labels, tmp_path / "new", name="x")


def test_what_is_said_when_no_name_matches(nifti, tmp_path):
    nifti(tmp_path / "scans" / "a_0000.nii", VOLUME)
    nifti(tmp_path / "scans" / "a_0001.nii", VOLUME)
    nifti(tmp_path / "masks" / "a.nii", VOLUME)
    with pytest.raises(DataError, match="of its name") as caught:
        convert_pairs(tmp_path / "scans", tmp_path / "masks", tmp_path / "new", name="x")
    assert caught.value.got == "label maps a.nii; scans a_0000, a_0001"
    assert caught.value.expected == "a_0000.nii.gz or a_0000_seg.nii.gz" and "--channels" in caught.value.hint
    with pytest.raises(DataError, match="no such folder of label maps"):
        convert_pairs(tmp_path / "scans", tmp_path / "none", tmp_path / "new", name="x")
    assert not (tmp_path / "new").exists()


def test_nnunet_cases_without_a_label_map_are_refused(raw, tmp_path):
    for file in (raw / "labelsTr").iterdir():
        file.rename(file.with_name(f"wrong_{file.name}"))
    with pytest.raises(DataError, match="no label map") as caught:
        convert_nnunet(raw, tmp_path / "new")
    assert "BR_000" in caught.value.got and not (tmp_path / "new").exists()


def test_an_invalid_dataset_is_not_left_behind(make_dataset, tmp_path):
    dataset = read_dataset(make_dataset())
    twice = replace(dataset, splits={**dataset.splits, "test": dataset.splits["training"]})
    with pytest.raises(DataError, match="repeats"):
        write_dataset(twice, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    before = (dataset.root / "dataset.json").read_bytes()
    with pytest.raises(DataError, match="repeats"):
        write_dataset(twice, dataset.root)
    assert (dataset.root / "dataset.json").read_bytes() == before


def test_split_is_by_subject_and_cures_leakage(make_dataset, edit_json):
    folder = make_dataset(cases=20)

    def two_scans_each(data):
        for i, entry in enumerate(data["training"] + data["validation"]):
            entry["subject"] = f"p{i // 2}"

    edit_json(folder, two_scans_each)
    with pytest.raises(DataError, match="two splits"):
        read_dataset(folder)
    dataset = split_dataset(folder, val=0.3, test=0.2)
    assert read_dataset(folder).splits == dataset.splits
    subjects = [{c.subject for c in dataset.splits[s]} for s in ("training", "validation", "test")]
    assert all(subjects) and not (subjects[0] & subjects[1] or subjects[0] & subjects[2] or subjects[1] & subjects[2])
    with pytest.raises(ConfigError):
        split_dataset(folder, val=1.2)


def test_modalities_survive_a_split_and_a_merge(make_dataset, edit_json, tmp_path):
    ct, mr = make_dataset("ct", 6), make_dataset("mr", modality={"0": "MR"})
    edit_json(ct, lambda d: d["training"][0].update(modality="CBCT"))
    split_dataset(ct, test=0.2)
    again = read_collection(ct)
    assert set(again.modalities) <= {"CT", "CBCT"}
    assert {again.datasets[0].modality_of(c) for c in again.datasets[0].cases()} == {"CT", "CBCT"}
    merge_datasets([ct, mr], tmp_path / "both", name="both")
    found = read_dataset(tmp_path / "both")
    assert {found.modality_of(c) for c in found.cases()} == {"CT", "CBCT", "MR"}


def test_split_refuses_other_problems(make_dataset, edit_json):
    folder = make_dataset()
    edit_json(folder, lambda d: d["training"][0].update(id="c1"))
    with pytest.raises(DataError, match="repeats"):
        split_dataset(folder)


def test_write_dataset_round_trip(make_dataset, tmp_path):
    dataset = read_dataset(make_dataset())
    again = write_dataset(dataset, tmp_path / "deep" / "er")
    assert [(c.id, c.images[0].resolve()) for c in again.cases()] == [
        (c.id, c.images[0].resolve()) for c in dataset.cases()
    ]
    assert (again.labels, again.name) == (dataset.labels, dataset.name)


class TestMerge:
    @pytest.fixture
    def pair(self, make_dataset):
        return make_dataset("ct"), make_dataset("mri", labels={"background": 0, "kidney": 2, "liver": 3})

    @pytest.mark.parametrize("names", ["intersection", "union"])
    def test_values_are_rewritten_by_name(self, pair, tmp_path, names):
        from common.data.io import read_volume

        merged = merge_datasets(pair, tmp_path / "out", name="both", names=names)
        expected = {"intersection": ("liver",), "union": ("liver", "spleen", "kidney")}[names]
        assert merged.labels.names == expected and merged.labels.values == tuple(range(1, len(expected) + 1))
        assert len(merged.cases()) == 6 and check(tmp_path / "out") == []
        originals = {f"{d.name}_{c.id}": (d, c) for d in read_collection(list(pair)).datasets for c in d.cases()}
        for case in merged.cases():
            source, original = originals[case.id]
            before, after = read_volume(original.label).numpy(), read_volume(case.label).numpy()
            for name in expected:
                value = dict(zip(source.labels.names, source.labels.values, strict=True)).get(name, -1)
                assert np.array_equal(after == merged.labels.index(name), before == value)
            assert case.images[0].resolve() == original.images[0].resolve()

    def test_refusals(self, pair, make_dataset, tmp_path):
        with pytest.raises(ConfigError, match="names"):
            merge_datasets(pair, tmp_path / "o", name="x", names="both")
        with pytest.raises(LabelError, match="share no structure"):
            merge_datasets([pair[0], make_dataset("z", labels={"heart": 1})], tmp_path / "o", name="x")


def test_collection_file(make_dataset, tmp_path):
    folders = [make_dataset("a"), make_dataset("bb")]
    path = write_collection(tmp_path / "all", folders, name="all of them")
    assert json.loads(path.read_text())["datasets"] == ["../a", "../bb"]
    assert read_collection(tmp_path / "all").tasks == ("a", "bb")
    with pytest.raises(DataError, match="does not exist"):
        write_collection(tmp_path / "all2", [tmp_path / "none"])


def test_write_json_leaves_nothing_behind(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        write_json(tmp_path / "file" / "a.json", {})
