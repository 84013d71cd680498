import json
import shutil
from pathlib import Path

import pytest

from common.data.datasets import datalist
from common.data.datasets.datalist import read_collection, structures
from common.data.datasets.dataset import read_dataset
from common.data.datasets.verify import check
from common.errors import AmalgamationError, DataError, LabelError
from tests.tools.empty_dataset import empty_dataset


def test_reads_a_dataset(make_dataset):
    dataset = read_dataset(make_dataset())
    assert (dataset.name, dataset.channels, dataset.dim) == ("d", ("CT",), 3)
    assert dataset.labels.to_json() == {"background": 0, "liver": 1, "spleen": 5}
    assert [c.id for c in dataset.cases("training")] == ["c0", "c1"]
    assert [c.id for c in dataset.cases("val")] == ["c2"]
    assert len(dataset.cases()) == 3
    assert dataset.cases("training")[0].label.is_file()
    with pytest.raises(DataError, match="no such split"):
        dataset.cases("holdout")


def test_items_are_plain(make_dataset):
    found = datalist.items(make_dataset(), "training", limit=1)
    assert json.loads(json.dumps(found)) == found
    assert set(found[0]) == {"image", "label", "case", "task", "modality"}
    assert (found[0]["case"], found[0]["task"], found[0]["modality"]) == ("c0", "d", "CT")


def test_a_channel_with_several_names_needs_cases_that_say_which(make_dataset, edit_json):
    folder = make_dataset(modality={"0": "CT | MR"})
    with pytest.raises(DataError, match=r"(?s)several names.*CT \| MR.*c0, c1.*modality"):
        read_dataset(folder)
    assert [p.got[-21:] for p in check(folder) if p.severity == "error"] == ["'CT | MR'; c0, c1, c2"]
    for split, number in (("training", 0), ("training", 1)):
        edit_json(folder, lambda d, s=split, n=number: d[s][n].update(modality="CT"))
    with pytest.raises(DataError, match=r"c2"):
        read_dataset(folder)
    edit_json(folder, lambda d: d["validation"][0].update(modality="MR"))
    assert read_dataset(folder).channels == ("CT | MR",)


def test_modalities(make_dataset, edit_json, tmp_path):
    folder = make_dataset()
    assert datalist.modalities(folder) == ("CT",)
    edit_json(folder, lambda d: d["training"][1].update(modality="CBCT"))
    assert datalist.modalities(folder) == ("CT", "CBCT")
    assert [i["modality"] for i in datalist.items(folder, "training")] == ["CT", "CBCT"]
    assert [i["modality"] for i in datalist.items(folder, "training", modality="CBCT")] == ["CBCT"]
    with pytest.raises(DataError, match="no such modality"):
        datalist.items(folder, "training", modality="PET")
    assert datalist.structures(folder) == {"d": datalist.read_dataset(folder).labels.names}
    listing = {"datasets": [str(folder)], "tasks": {"d": {"modality": "X-ray"}}}
    (tmp_path / "collection.json").write_text(json.dumps(listing))
    assert datalist.modalities(tmp_path / "collection.json") == ("X-ray", "CBCT")
    edit_json(folder, lambda d: d["training"][1].update(modality={"0": "CT"}))
    with pytest.raises(DataError, match="one modality"):
        datalist.read_dataset(folder)


@pytest.mark.parametrize("key", ["unlabelled", "unlabeled"])
def test_unlabelled_spellings(make_dataset, edit_json, key):
    folder = make_dataset()
    edit_json(folder, lambda d: d.update({key: ["images/u_0000.nii.gz"]}))
    found = datalist.items(folder, "unlabelled")
    assert found[0]["case"] == "u"
    assert "label" not in found[0]


def test_missing_validation_is_split_by_hash_and_stays(make_dataset, edit_json):
    folder = make_dataset(cases=12)
    edit_json(folder, lambda d: d.update(training=d["training"] + d.pop("validation")))
    first, again = read_dataset(folder), read_dataset(folder)
    assert first == again
    assert first.cases("validation")
    assert len(first.cases("training")) + len(first.cases("validation")) == 12
    edit_json(folder, lambda d: d["training"].reverse())
    assert {c.id for c in read_dataset(folder).cases("validation")} == {c.id for c in first.cases("validation")}


class TestRefusals:
    def test_missing_folder_names_the_command(self, tmp_path):
        with pytest.raises(DataError, match="python -m tools phantom"):
            read_collection(tmp_path / "nothing")
        with pytest.raises(DataError, match="python -m tools phantom"):
            read_collection(tmp_path)
        with pytest.raises(DataError, match="python -m tools phantom"):
            read_dataset(tmp_path)

    @pytest.mark.parametrize("text", ["{", "[1]", ""])
    def test_malformed_json(self, tmp_path, text):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(DataError, match=r"dataset\.json"):
            read_dataset(tmp_path)

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"modality": None}, "channels"),
            ({"training": [], "validation": []}, "no cases"),
            ({"training": {"image": "x"}}, "must be a list"),
            ({"training": [{"label": "x"}]}, "names no image"),
            ({"training": [{"image": "a.nii.gz"}]}, "no label map"),
            ({"training": [{"image": "a.nii.gz", "label": ["x", "y"]}]}, "one integer label map"),
            ({"training": [{"image": ["a", "b"], "label": "x"}]}, "too many channel"),
        ],
    )
    def test_entries(self, make_dataset, changes, word):
        with pytest.raises(DataError, match=word):
            read_dataset(make_dataset(**changes))

    def test_labels(self, make_dataset):
        with pytest.raises(LabelError, match="names no labels"):
            read_dataset(_without_labels(make_dataset()))

    @pytest.mark.parametrize("ids", [("Case", "case"), ("caf\u00e9", "cafe\u0301"), ("x", "x."), ("\uff21", "A")])
    def test_ids_that_a_disk_takes_for_one(self, make_dataset, edit_json, ids):
        folder = make_dataset()
        edit_json(
            folder, lambda d: [d[s][0].update(id=i) for s, i in zip(("training", "validation"), ids, strict=True)]
        )
        with pytest.raises(DataError, match="differ in capitals"):
            read_dataset(folder)
        problems = [p for p in check(folder) if "differ in capitals" in p.got]
        assert len(problems) == 1 and problems[0].severity == "error" and ascii(ids[0]) in problems[0].got

    def test_tasks_that_a_disk_takes_for_one(self, make_dataset, edit_json):
        first, second = make_dataset("one"), make_dataset("two")
        edit_json(first, lambda d: d.update(name="CT"))
        edit_json(second, lambda d: d.update(name="ct"))
        with pytest.raises(DataError, match="differ in capitals"):
            read_collection([first, second])

    def test_duplicate_ids(self, make_dataset, edit_json):
        folder = make_dataset()
        edit_json(folder, lambda d: d["validation"][0].update(id="c0"))
        with pytest.raises(DataError, match="id repeats"):
            read_dataset(folder)

    @pytest.mark.parametrize("key", ["subject", "patient"])
    def test_subject_leakage(self, make_dataset, edit_json, key):
        folder = make_dataset()
        edit_json(folder, lambda d: (d["training"][0].update({key: "p1"}), d["validation"][0].update({key: "p1"})))
        with pytest.raises(DataError, match="two splits") as error:
            read_dataset(folder)
        assert "p1" in str(error.value) and "tools data split" in str(error.value)

    def test_bids_subject_leakage(self, make_dataset, edit_json):
        folder = make_dataset()
        edit_json(folder, lambda d: (d["training"][0].update(image="sub-01_ses-1.nii.gz"),
                                     d["validation"][0].update(image="sub-01_ses-2.nii.gz")))  # fmt: skip
        with pytest.raises(DataError, match="sub-01"):
            read_dataset(folder)


def _without_labels(folder):
    data = json.loads((folder / "dataset.json").read_text())
    del data["labels"]
    (folder / "dataset.json").write_text(json.dumps(data))
    return folder


class TestChannels:
    NAMES = ("FLAIR", "T1", "T2")

    def read(self, make_dataset, image):
        changes = {"modality": list(self.NAMES), "training": [{"image": image, "label": "l.nii.gz"}], "validation": []}
        return read_dataset(make_dataset(**changes)).cases("training")[0]

    def test_by_name_in_any_order(self, make_dataset):
        case = self.read(make_dataset, {"T2": "c.nii", "FLAIR": "a.nii", "T1": "b.nii"})
        assert [p.name for p in case.images] == ["a.nii", "b.nii", "c.nii"]

    def test_list(self, make_dataset):
        case = self.read(make_dataset, [f"x_000{i}.nii.gz" for i in range(3)])
        assert case.id == "x"

    @pytest.mark.parametrize(
        ("image", "missing"),
        [
            ({"FLAIR": "a.nii", "T2": "b.nii"}, "T1"),
            (["x_0000.nii.gz", "x_0002.nii.gz"], "T1"),
            (["a.nii.gz", "b.nii.gz"], "T2"),
            ("x_0000.nii.gz", "T1, T2"),
        ],
    )
    def test_missing_by_name(self, make_dataset, image, missing):
        with pytest.raises(DataError, match=f"missing channel .*{missing}"):
            self.read(make_dataset, image)

    def test_swapped_order(self, make_dataset):
        with pytest.raises(DataError, match="not in the order"):
            self.read(make_dataset, ["x_0001.nii.gz", "x_0000.nii.gz", "x_0002.nii.gz"])

    def test_nnunet_suffix_finds_the_siblings(self, make_dataset, nifti, tmp_path):
        import numpy as np

        for i in range(3):
            nifti(tmp_path / "d" / f"x_000{i}.nii.gz", np.zeros((2, 2, 2), np.float32))
        assert [p.name for p in self.read(make_dataset, "x_0000.nii.gz").images] == [
            f"x_000{i}.nii.gz" for i in range(3)
        ]

    def test_4d_file_is_left_to_the_reader(self, make_dataset):
        assert len(self.read(make_dataset, "x.nii.gz").images) == 1

    @pytest.mark.parametrize("given", ["CT", ["CT"], {"0": "CT"}])
    def test_spellings(self, make_dataset, given):
        assert read_dataset(make_dataset(modality=given)).channels == ("CT",)

    def test_by_index_not_by_text(self, make_dataset):
        names = {str(i): f"c{i}" for i in reversed(range(11))}
        folder = make_dataset(channel_names=names, training=[], validation=[], unlabelled=["x.nii.gz"])
        assert read_dataset(folder).channels == tuple(f"c{i}" for i in range(11))


class TestCollections:
    @pytest.fixture
    def pair(self, make_dataset, tmp_path):
        return make_dataset("ct"), make_dataset("mr", labels={"background": 0, "kidney": 2, "liver": 3})

    def test_folder_of_folders(self, pair, tmp_path):
        collection = read_collection(tmp_path)
        assert collection.tasks == datalist.tasks(tmp_path) == ("ct", "mr")
        assert collection.labels.names == ("liver", "spleen", "kidney")
        assert datalist.label_space(tmp_path) == collection.labels
        assert datalist.channels(tmp_path) == ("CT",)
        assert [i["task"] for i in datalist.items(tmp_path, "validation")] == ["ct", "mr"]
        assert [i["task"] for i in datalist.items(tmp_path, "training", tasks="mr")] == ["mr", "mr"]
        assert read_collection(collection) is collection

    def test_comma_list_and_sequence(self, pair):
        assert read_collection(f"{pair[1]}, {pair[0]}").tasks == ("mr", "ct")
        assert read_collection(list(pair)).tasks == ("ct", "mr")

    def test_collection_file_renames(self, pair, tmp_path):
        options = {"mr": {"labels": {"kidney": "left kidney"}}}
        listing = {"name": "both", "datasets": ["ct", str(pair[1])], "tasks": options}
        (tmp_path / "collection.json").write_text(json.dumps(listing))
        for path in (tmp_path, tmp_path / "collection.json"):
            collection = read_collection(path)
            assert collection.name == "both"
            assert collection.dataset("mr").labels.to_json() == {"background": 0, "left kidney": 2, "liver": 3}

    def test_one_task_alone_keeps_the_collection_s_names(self, pair, tmp_path):
        options = {"ct": {"labels": {"liver": "Liver"}, "modality": "X-ray"}}
        (tmp_path / "collection.json").write_text(json.dumps({"datasets": ["ct", "mr"], "tasks": options}))
        for path in (f"{tmp_path}::ct", tmp_path / "collection.json::ct"):
            alone = read_collection(path)
            assert alone.datasets == (read_collection(tmp_path).dataset("ct"),)
            assert alone.labels.names == ("Liver", "spleen") and datalist.modalities(path) == ("X-ray",)
        assert [i["task"] for i in datalist.items(f"{tmp_path}::mr", "training")] == ["mr", "mr"]
        with pytest.raises(DataError, match="no task 'pet'"):
            read_collection(f"{tmp_path}::pet")
        with pytest.raises(DataError, match="does not exist"):
            read_collection(tmp_path / "none::ct")

    def test_a_folder_may_have_the_sign_in_its_name(self, make_dataset, edit_json):
        folder = make_dataset("a::b")
        edit_json(folder, lambda d: d.pop("name", None))
        with pytest.raises(DataError, match='"name": '):
            read_collection(folder)
        edit_json(folder, lambda d: d.update(name="ct"))
        assert read_collection(folder).tasks == ("ct",)

    @pytest.mark.parametrize(
        ("listing", "word"),
        [
            ({"datasets": []}, "lists no datasets"),
            ({"datasets": ["ct"], "tasks": {"pet": {}}}, "unknown tasks"),
            ({"datasets": ["ct"], "tasks": {"ct": {"labels": {"heart": "x"}}}}, "does not exist"),
            ({"datasets": ["ct", "ct"]}, "one name"),
            ({"datasets": ["pet"]}, "does not exist"),
        ],
    )
    def test_collection_file_refusals(self, pair, tmp_path, listing, word):
        (tmp_path / "collection.json").write_text(json.dumps(listing))
        with pytest.raises(DataError, match=word):
            read_collection(tmp_path)

    @pytest.mark.parametrize("folder", ["x.json", "dataset.json", "collection.json", "a,b.json"])
    def test_a_folder_may_be_called_as_a_file(self, make_dataset, tmp_path, folder):
        place = make_dataset().rename(tmp_path / folder)
        assert read_dataset(place).cases() == read_collection(place).datasets[0].cases() != ()
        assert not [p for p in check(place) if p.severity == "error"]
        outer = tmp_path / "outer"
        outer.mkdir()
        place.rename(outer / folder)
        assert read_collection(outer).tasks == read_collection(outer / folder).tasks

    @pytest.mark.parametrize("folder, task", [("cc", "ct,other"), ("x,y", "ct"), ("x,y", "ct,other"), ("a::b", "c,d")])
    def test_commas_take_no_task_of_a_collection_apart(self, make_dataset, tmp_path, monkeypatch, folder, task):
        """Neither where the parts are folders, nor in a list, which is never taken apart."""
        monkeypatch.chdir(tmp_path)
        for name in ("other", "d", "y"):
            make_dataset(name)
        for name, own in (("one", task), ("two", "ct2")):
            file = make_dataset(f"{folder}/{name}") / "dataset.json"
            file.write_text(json.dumps({**json.loads(file.read_text()), "name": own}))
        listing = {"datasets": ["one", "two"], "tasks": {task: {"labels": {"liver": "Leber"}}}}
        (tmp_path / folder / "collection.json").write_text(json.dumps(listing))
        for place in (f"{folder}::{task}", [f"{folder}::{task}"], (f"{folder}::{task}",)):
            found = read_collection(place)
            assert found.tasks == (task,) and "Leber" in found.labels.names
        assert read_collection([f"{folder}::{task}", "other"]).tasks == (task, "other")
        with pytest.raises(DataError, match="does not exist"):
            read_collection(["other,d"])

    def test_several_places_are_told_apart_where_they_are_no_one_place(self, pair, make_dataset, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "collection.json").write_text(json.dumps({"datasets": ["ct"]}))
        make_dataset("other")
        assert read_collection("mr, other").tasks == ("mr", "other")
        assert read_collection(f"{tmp_path}::ct,other").tasks == ("ct", "other")
        assert read_collection(f"other,{tmp_path}::ct").tasks == ("other", "ct")
        (tmp_path / "other" / "dataset.json").write_text("{")
        assert {p.file for p in check("mr, other") if p.severity == "error"} == {"other/dataset.json"}

    def test_refuses_different_channels_and_dimensions(self, make_dataset, tmp_path):
        make_dataset("a")
        make_dataset("b", modality=["T1", "T2"], training=[], validation=[], unlabelled=["x.nii.gz"])
        with pytest.raises(DataError, match="numbers of channels"):
            read_collection(tmp_path)
        shutil.rmtree(tmp_path / "b")
        make_dataset("c", dim=2)
        with pytest.raises(DataError, match="2-D and 3-D"):
            read_collection(tmp_path)

    def test_unknown_task_is_suggested(self, pair, tmp_path):
        with pytest.raises(DataError, match="did you mean 'ct'"):
            datalist.items(tmp_path, "training", tasks=["ctt"])

    def test_works_with_spaces_unicode_and_links(self, pair, tmp_path):
        strange = tmp_path / "Žluťoučký kůň, ok"
        shutil.copytree(pair[0], strange / "ct")
        (strange / "mr").symlink_to(pair[1])
        assert read_collection(strange).tasks == ("ct", "mr")
        assert read_collection(str(strange / "ct")).tasks == ("ct",)


def test_further_structures_come_last_and_no_task_annotates_them(tmp_path: Path) -> None:
    empty_dataset(tmp_path / "ct", {"liver": 1})
    listing = tmp_path / "collection.json"
    listing.write_text(json.dumps({"datasets": ["ct"], "structures": ["femur", "rib"]}))
    found = read_collection(tmp_path)
    assert found.labels.names == ("liver", "femur", "rib") and structures(tmp_path) == {"ct": ("liver",)}
    assert found.labels.annotated(found.datasets[0].labels).tolist() == [True, True, False, False]
    listing.write_text(json.dumps({"datasets": ["ct"], "structures": ["liver"]}))
    assert read_collection(tmp_path).labels.names == ("liver",)


@pytest.mark.parametrize("given", ["femur", [], [1], ["$x"], ["a", "a"], {"femur": 1}, ["background"]])
def test_further_structures_that_are_none_are_refused(given: object, tmp_path: Path) -> None:
    empty_dataset(tmp_path / "ct", {"liver": 1})
    (tmp_path / "collection.json").write_text(json.dumps({"datasets": ["ct"], "structures": given}))
    with pytest.raises(AmalgamationError):
        _ = read_collection(tmp_path).labels
