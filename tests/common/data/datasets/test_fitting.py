"""Cases reach a model in its channel order and under its modality's name, or not at all."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

from common.contract import OVERRIDE, Contract
from common.data.datasets import fitting
from common.data.datasets.fitting import _lines, fitting_items, odd_scans
from common.data.datasets.known_cases import short_hash
from common.data.prompts.objects import ClampModalityd, clip_bounds
from common.data.prompts.targets import KeepTargetsd
from common.data.transforms.transforms import DescribeCased, MapLabelsd
from common.errors import DataError, LabelError
from common.labels import LabelSpace
from common.scan_fit import COMPARED, mark_of


def contract(*channels: str, name: str = "", taught: tuple[str, ...] = ("liver",)) -> Contract:
    name = name or " + ".join(channels)
    return Contract(channels, {name: {"channels": list(channels)}}, {name: taught})


@pytest.fixture
def dataset(tmp_path: Path) -> Any:
    def make(*channels: str, joined: bool = False, structures: tuple[str, ...] = ("liver", "spleen")) -> Path:
        for i in range(1 if joined else len(channels)):
            shape = (8, 8, 8, len(channels)) if joined else (8, 8, 8)
            nib.save(nib.Nifti1Image(np.full(shape, i, np.float32), np.eye(4)), tmp_path / f"a_{i:04d}.nii.gz")
        nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.uint8), np.eye(4)), tmp_path / "label.nii.gz")
        image: Any = (
            "a_0000.nii.gz" if joined or len(channels) == 1 else [f"a_{i:04d}.nii.gz" for i in range(len(channels))]
        )
        if joined:
            (tmp_path / "a_0000.nii.gz").rename(tmp_path / "whole.nii.gz")
            image = "whole.nii.gz"
        labels = {"background": 0, **{n: i for i, n in enumerate(structures, 1)}}
        content = {"name": "d", "modality": list(channels), "labels": labels,
                   "test": [{"image": image, "label": "label.nii.gz", "id": "a"}]}  # fmt: skip
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        return tmp_path

    return make


def test_channels_come_in_the_models_order(dataset: Any, caplog: pytest.LogCaptureFixture) -> None:
    item = fitting_items(dataset("FLAIR", "T1"), "test", contract("T1", "FLAIR"))[0]
    assert [Path(p).name for p in item["image"]] == ["a_0001.nii.gz", "a_0000.nii.gz"]
    assert "d: channels FLAIR, T1 are read in the model's order, T1, FLAIR" in caplog.text


def test_what_does_not_fit_is_refused(dataset: Any, caplog: pytest.LogCaptureFixture) -> None:
    folder = dataset("T2 MR")
    with pytest.raises(DataError, match="case a"):
        fitting_items(folder, "test", contract("CT"))
    assert len(fitting_items(folder, "test", contract("CT"), ignore_card=True)) == 1
    assert "d: channel T2 MR in the place of channel CT, as asked" in caplog.text
    with pytest.raises(DataError, match="missing channel FLAIR"):
        fitting_items(dataset("T1"), "test", contract("T1", "FLAIR"), ignore_card=True)
    joined = dataset("FLAIR", "T1", joined=True)
    with pytest.raises(DataError, match="in one file"):
        fitting_items(joined, "test", contract("T1", "FLAIR"))
    (item,) = fitting_items(joined, "test", contract("T1", "FLAIR"), ignore_card=True)
    assert Path(item["image"]).name == "whole.nii.gz"
    assert "d: channels FLAIR, T1 lie in one file and are read in the place of T1, FLAIR, as asked" in caplog.text
    assert "are read in the model's order" not in caplog.text


def test_dicom_files_that_say_something_else(dicom_series: Any, tmp_path: Path) -> None:
    dicom_series(tmp_path / "a", np.zeros((6, 7, 8), np.int16))
    content = {"name": "d", "modality": ["image"], "labels": {"background": 0, "liver": 1}, "unlabelled": ["a"]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert len(fitting_items(tmp_path, "unlabelled", contract("NCCT"))) == 1
    with pytest.raises(DataError, match="CT"):
        fitting_items(tmp_path, "unlabelled", contract("T2 MR"))
    assert len(fitting_items(tmp_path, "unlabelled", contract("T2 MR"), ignore_card=True)) == 1


def test_dicom_files_that_the_data_set_calls_something_else(dicom_series: Any, tmp_path: Path) -> None:
    dicom_series(tmp_path / "a", np.zeros((6, 7, 8), np.int16))
    both = Contract(("CT | T2 MR",), {n: {"channels": [n]} for n in ("CT", "T2 MR")})
    content = {"name": "d", "modality": ["T2 MR"], "labels": {"background": 0, "liver": 1}, "unlabelled": ["a"]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="DICOM says") as error:
        fitting_items(tmp_path, "unlabelled", both)
    assert "case a" in str(error.value) and "T2 MR" in str(error.value)
    assert len(fitting_items(tmp_path, "unlabelled", both, ignore_card=True)) == 1
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "modality": ["NCCT"]}))
    assert fitting_items(tmp_path, "unlabelled", both)[0]["modality"] == "CT"


def scans(folder: Path, dicom_series: Any, channel: str, **tags: str) -> Path:
    def said(_: int, data: Any) -> None:
        for key, value in tags.items():
            setattr(data, key, value)

    dicom_series(folder / "a", np.zeros((6, 7, 8), np.int16), change=said)
    content = {"name": "d", "modality": [channel], "labels": {"background": 0, "liver": 1}, "unlabelled": ["a"]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(("channel", "tags", "words"), [
    ("CT", {"Modality": "OT"}, "d: DICOM says OT, which is no modality"),
    ("image", {"Modality": "OT"}, "d: OT is taken for CT, though OT tells nothing of what it is"),
    ("CT", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "d: DICOM says SC, which is no modality"),
    ("CT", {"RescaleType": "US"}, "d: DICOM says that the numbers of this CT are US (RescaleType), and not HU"),
])  # fmt: skip
def test_what_dicom_leaves_open_is_told(
    dicom_series: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, channel: str, tags: dict[str, str], words: str
) -> None:
    assert len(fitting_items(scans(tmp_path, dicom_series, channel, **tags), "unlabelled", contract("CT"))) == 1
    assert words in caplog.text


def test_what_dicom_leaves_open_of_a_channel_is_told(
    dicom_series: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, tag in (("a", "CT"), ("b", "OT")):
        scans(tmp_path / name, dicom_series, "CT", Modality=tag)
    content = {"name": "d", "modality": ["CT", "PET"], "labels": {"background": 0, "liver": 1},
               "unlabelled": [{"image": ["a/a", "b/a"], "id": "c"}]}  # fmt: skip
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    fitting_items(tmp_path, "unlabelled", contract("CT", "PET"))
    assert "d: channel PET: DICOM says OT" in caplog.text and "channel CT: DICOM" not in caplog.text


def test_a_pet_in_bq_is_no_suv(dicom_series: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = scans(tmp_path, dicom_series, "PET", Modality="PT", Units="BQML")
    with pytest.raises(DataError, match="not what the model was trained on") as error:
        fitting_items(folder, "unlabelled", contract("SUV"))
    assert "BQML" in str(error.value.got)
    assert len(fitting_items(folder, "unlabelled", contract("PET"))) == 1
    assert "the numbers of this PET are BQML (Units), which its name does not say (PET)" in caplog.text
    scans(tmp_path, dicom_series, "PET SUV", Modality="PT", Units="BQML")
    with pytest.raises(DataError, match="DICOM says"):
        fitting_items(tmp_path, "unlabelled", contract("SUV"))


def test_a_name_of_several_kinds_is_no_sure_one(dataset: Any) -> None:
    assert fitting_items(dataset("CT or MR"), "test", contract("CT"))[0]["modality"] == "CT or MR"


def test_a_synonym_gets_the_models_name(dataset: Any) -> None:
    assert fitting_items(dataset("NCCT"), "test", contract("CT"))[0]["modality"] == "CT"
    assert fitting_items(dataset("image"), "test", contract("CT"))[0]["modality"] == "image"
    assert fitting_items(dataset("image"), "test", Contract())[0]["modality"] == "image"


def test_untaught_structures_are_not_scored_and_do_not_compete(dataset: Any, caplog: pytest.LogCaptureFixture) -> None:
    folder, known = dataset("CT"), contract("CT")
    item = fitting_items(folder, "test", known)[0]
    assert "d: not taught on CT, and so not scored: spleen" in caplog.text
    space = LabelSpace(("liver", "spleen"))
    assert DescribeCased(folder, labels=space, contract=known)(item)["annotated"].tolist() == [True, True, False]
    assert DescribeCased(folder, labels=space)(item)["annotated"].tolist() == [True, True, True]
    logits = torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1)
    for targets, winner in (("all", 1), ("task", 1), (["spleen"], 2)):
        keep = KeepTargetsd(targets, space.names, contract=known)
        data = {"pred": logits, "modality": "CT", "annotated": torch.ones(3, dtype=torch.bool)}
        assert int(keep(data)["pred"].argmax(0)) == winner
    assert int(KeepTargetsd("all", space.names, contract=known)({"pred": logits})["pred"].argmax(0)) == 2
    said = {"contract": known, "modality": "CTA"}  # the user's word goes before the data set's
    for item in ({"pred": logits}, {"pred": logits, "modality": "image"}):
        assert int(KeepTargetsd("all", space.names, **said)(item)["pred"].argmax(0)) == 1
    nameless = DescribeCased(folder, labels=space, **said)({"image": "x.nii", "task": "d", "modality": "image"})
    assert nameless["annotated"].tolist() == [True, True, False] and nameless["modality"] == "CTA"
    for made in (lambda: KeepTargetsd("all", space.names, contract=known, modality="US"),
                 lambda: DescribeCased(folder, labels=space, contract=known, modality="US")):  # fmt: skip
        with pytest.raises(DataError, match="not what the model"):
            made()


def test_structures_that_a_model_never_knew_are_background_of_its_evaluation(dataset: Any) -> None:
    folder, label = dataset("CT"), torch.tensor([[[[0.0, 1.0, 2.0]]]])
    known = LabelSpace(("spleen", "liver"))
    for names, annotated, mapped in ((("liver",), [True, True], [0, 1, 0]), (known.names, [True] * 3, [0, 2, 1])):
        space = LabelSpace(names)
        told = DescribeCased(folder, labels=space, contract=Contract())({"image": "x.nii", "task": "d"})
        assert told["annotated"].tolist() == annotated
        found = MapLabelsd("label", folder, labels=space)({"label": label, "task": "d"})["label"]
        assert found.flatten().tolist() == mapped
    for strange in (("Liver", "spleen"), ("kidney",)):  # a slip is no structure that was never known
        with pytest.raises(LabelError, match=r"spells a structure in another way|no structure of these data"):
            DescribeCased(folder, labels=LabelSpace(strange), contract=Contract())


def test_synonyms_of_ct_are_clipped_as_they_were_in_training() -> None:
    image, bounds = torch.full((1, 2, 2, 2), 3000.0), {"CT": [-1000, 1000]}

    def most(modality: str, **options: Any) -> float:
        return float(ClampModalityd("image", bounds, **options)({"image": image, "modality": modality})["image"].max())

    assert most("CT") == most("CTA") == most("NCCT") == 1000 and most("T2 MR") == 3000
    assert most("CTA", modalities=["CTA", "CT"]) == 3000  # a network that was trained without
    assert clip_bounds(bounds, ["CTA", "MR"]) == {"CT": [-1000, 1000], "CTA": [-1000, 1000]}
    assert clip_bounds({}, ["CTA"]) == {}


@pytest.fixture
def two_series(dicom_series: Any, tmp_path: Path) -> Any:
    """A data set of one case whose channels are two DICOM series, tagged as given."""

    def make(tags: tuple[str, str], channels: tuple[str, str]) -> Path:
        for name, tag in zip("ab", tags, strict=True):
            if not (tmp_path / name).is_dir():
                dicom_series(tmp_path / name, np.zeros((6, 7, 8), np.int16))
            for path in (tmp_path / name).iterdir():
                data = pydicom.dcmread(path)
                data.Modality = tag
                data.save_as(path)
        content = {"name": "d", "modality": list(channels), "labels": {"background": 0, "liver": 1},
                   "unlabelled": [{"image": ["a", "b"], "id": "a"}]}  # fmt: skip
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        return tmp_path

    return make


def test_dicom_says_what_each_channel_is(two_series: Any) -> None:
    model = contract("CT", "PET")
    assert len(fitting_items(two_series(("CT", "PT"), ("CT", "PET")), "unlabelled", model)) == 1
    assert len(fitting_items(two_series(("PT", "CT"), ("PET", "CT")), "unlabelled", model)) == 1
    for tags, channels, told in ((("PT", "CT"), ("CT", "PET"), "PT of channel CT"),
                                 (("PT", "CT"), ("first", "second"), "channel 1: PT"),
                                 (("CT", "MR"), ("CT", "PET"), "MR of channel PET")):  # fmt: skip
        folder = two_series(tags, channels)
        with pytest.raises(DataError, match="case a") as caught:
            fitting_items(folder, "unlabelled", model)
        assert told in str(caught.value.got)
        assert len(fitting_items(folder, "unlabelled", model, ignore_card=True)) == 1


def test_pictures_are_no_volumes(dataset: Any) -> None:
    pictures = Contract(("CT",), {"CT": {"channels": ["CT"], "dim": 2}})
    with pytest.raises(DataError, match="learned from pictures"):
        fitting_items(dataset("CT"), "test", pictures, ignore_card=True)


HU = {"lows": [-1024.0, -1000.0], "highs": [100.0, 300.0]}


def test_intensities_that_the_model_never_saw_are_told_and_kept(dataset: Any, caplog: pytest.LogCaptureFixture) -> None:
    folder = dataset("CT")
    rng = np.random.default_rng(0)
    body = np.where(rng.random((8, 8, 8)) < 0.5, -1000.0, rng.normal(40, 30, (8, 8, 8)))
    known = Contract(("CT",), {"CT": {"channels": ["CT"], "intensities": [HU]}}, {"CT": ("liver",)})

    def doubt(voxels: Any) -> str:
        nib.save(nib.Nifti1Image(np.asarray(voxels, np.float32), np.eye(4)), folder / "a_0000.nii.gz")
        return str(fitting_items(folder, "test", known)[0].get("doubt", ""))

    assert doubt(body) == "" and "case a: intensities" not in caplog.text
    assert "offset" in doubt(body + 1024) and "d, case a: intensities" in caplog.text
    assert "single slice" in doubt(body[:, :, :1]) and "single slice" in caplog.text
    (folder / "a_0000.nii.gz").write_bytes(b"no scan")  # the evaluation itself says so
    assert "doubt" not in fitting_items(folder, "test", known)[0]


def test_a_scan_is_read_once_while_it_and_the_card_stay(
    dataset: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, read = dataset("CT"), list[Any]()
    real = fitting.read_volume

    def counted(paths: Any, **options: Any) -> Any:
        read.append(paths)
        return real(paths, **options)

    def doubt(known: Contract) -> str:
        return str(fitting_items(folder, "test", known)[0].get("doubt", ""))

    monkeypatch.setattr(fitting, "read_volume", counted)
    card = Contract(("CT",), {"CT": {"channels": ["CT"], "intensities": [HU]}})
    other = Contract(("CT",), {"CT": {"channels": ["CT"], "intensities": [{"lows": [-1.0, 0.0], "highs": [0.0, 1.0]}]}})
    assert doubt(card) == doubt(card) and len(read) == 2, "it may still change unnoticed"
    monkeypatch.setattr(fitting, "_SETTLED_NS", -(10**18))
    with caplog.at_level("INFO"):
        first = doubt(card)
    assert doubt(card) == first and len(read) == 3 and "comparing 1 scans with the model's card" in caplog.text
    assert doubt(other) == doubt(other) and len(read) == 4
    nib.save(nib.Nifti1Image(np.full((8, 8, 1), -1000, np.float32), np.eye(4)), folder / "a_0000.nii.gz")
    assert "single slice" in doubt(card) and "single slice" not in first and len(read) == 5


@pytest.mark.parametrize("name", ["tumor", "label_1", "liver"])
def test_names_of_another_data_set(dataset: Any, caplog: pytest.LogCaptureFixture, name: str) -> None:
    folder = dataset("CT", structures=(name, "spleen"))
    own, others = ({"name": "d", "cases": {"test": {"hashes": h}}} for h in (
        [short_hash([folder / "a_0000.nii.gz"])], ["0" * 16]))  # fmt: skip
    for data, told in (
        ((own,), False),
        ((), True),
        (({"name": "KiTS"},), True),
        ((others,), True),
        (({"name": "d"},), True),
    ):
        known = replace(contract("CT", taught=(name, "spleen")), data=data)
        caplog.clear()
        if name == "label_1" and data and told and ("cases" in data[0] or data[0]["name"] != "d"):
            with pytest.raises(DataError, match="another data set") as caught:
                fitting_items(folder, "test", known)
            assert data[0]["name"] in str(caught.value.expected) and OVERRIDE in str(caught.value.hint)
        fitting_items(folder, "test", known, ignore_card=True)
        assert (f"{name}: nobody says" in caplog.text) is (told and name != "liver")


def test_data_with_more_structures_than_the_model(dataset: Any, caplog: pytest.LogCaptureFixture) -> None:
    folder, own = dataset("CT"), LabelSpace(("liver",))
    for known, words in ((contract("CT"), "not taught on CT, and so not scored: spleen"), (Contract(), "no spleen")):
        caplog.clear()
        item = DescribeCased(folder, labels=own, contract=known)(fitting_items(folder, "test", known)[0])
        assert item["annotated"].tolist() == [True, True] and words in caplog.text
    label = MapLabelsd("label", folder, labels=own)({"label": torch.tensor([0, 1, 2]), "task": "d"})["label"]
    assert label.tolist() == [0, 1, 0]
    with pytest.raises(LabelError):
        DescribeCased(folder, labels=own)  # a training
    for names, match in ((("Liver", "kidney"), "another way"), (("heart",), "no structure of these data")):
        with pytest.raises(LabelError, match=match):
            DescribeCased(dataset("CT"), labels=LabelSpace(names), contract=Contract())
    with pytest.raises(LabelError, match="another way") as caught:
        DescribeCased(dataset("CT", structures=("gall bladder", "liver")), labels=LabelSpace(("gallbladder", "liver")),
                      contract=Contract())  # fmt: skip
    assert '{"gall bladder": "gallbladder"}' in str(caught.value.hint)


def test_a_given_modality_is_compared_with_what_the_data_say(dataset: Any, caplog: pytest.LogCaptureFixture) -> None:
    both = Contract(("CT | T2 MR",), {n: {"channels": [n]} for n in ("CT", "T2 MR")},
                    {"CT": ("liver", "spleen"), "T2 MR": ("liver",)})  # fmt: skip
    folder = dataset("T2 MR")
    with pytest.raises(DataError, match="something else") as error:
        fitting_items(folder, "test", both, modality="CT")
    assert error.value.where == "d, case a" and "--modality CT" in str(error.value) and OVERRIDE in str(error.value)
    with pytest.raises(DataError, match="not what the model") as error:  # as the model, not as the data have it
        fitting_items(folder, "test", both, modality="US")
    assert error.value.where == "modality" and error.value.got == "US"
    item = fitting_items(folder, "test", both, ignore_card=True, modality="CT")[0]
    assert item["modality"] == "T2 MR" and "T2 MR is read as CT, as asked" in caplog.text + item["overridden"]
    assert fitting_items(folder, "test", both, modality="T2")[0]["modality"] == "T2 MR"
    caplog.clear()
    unsaid = fitting_items(dataset("image"), "test", both, modality="CT")[0]  # nobody else says what it is
    assert unsaid["modality"] == "CT" and "not scored" not in caplog.text
    content = json.loads((folder / "dataset.json").read_text())
    content["test"][0]["modality"] = "T2 MR"
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="something else"):
        fitting_items(folder, "test", both, modality="CT")


def test_items_bear_the_cards_mark_and_what_was_overridden(dataset: Any) -> None:
    folder, known = dataset("T2 MR"), contract("CT")
    (item,) = fitting_items(folder, "test", contract("T2 MR"))
    assert item[COMPARED] == mark_of(contract("T2 MR")) and "overridden" not in item
    (item,) = fitting_items(folder, "test", known, ignore_card=True)
    record = json.loads(item["overridden"])
    assert (
        record["expected"] == "channel CT"
        and "d: channel T2 MR in the place of channel CT, as asked" in record["notes"]
    )


def test_voxels_of_another_size_are_doubted(dataset: Any) -> None:
    known = Contract(("CT",), {"CT": {"channels": ["CT"], "spacing": {"lowest": [20.0] * 3, "highest": [30.0] * 3}}})
    assert "spacing 1 x 1 x 1 mm" in fitting_items(dataset("CT"), "test", known)[0]["doubt"]


def test_five_cases_are_named_and_the_others_counted():
    dataset = SimpleNamespace(name="d")
    odd = {f"c{i}": "dark" for i in range(7)}
    assert _lines(dataset, {}) == []
    assert _lines(dataset, dict(list(odd.items())[:5])) == [f"d, case c{i}: dark" for i in range(5)]
    assert _lines(dataset, dict(list(odd.items())[:6]), ": why")[-1] == "d, case c4: dark, and 1 further cases: why"
    assert _lines(dataset, odd)[-1] == "d, case c4: dark, and 2 further cases" and len(_lines(dataset, odd)) == 5


@pytest.mark.parametrize(
    ("count", "read"), [(1, [0]), (10, list(range(10))), (11, [0, 2, 4, 6, 8, 10]), (20, list(range(0, 20, 2)))]
)
def test_ten_scans_at_most_are_read_evenly(count, read, monkeypatch):
    cases = tuple(SimpleNamespace(id=str(i)) for i in range(count))
    dataset = SimpleNamespace(name="d", channels=("CT",), cases=lambda split="": cases if split == "training" else (),
                              modality_of=lambda case: "CT")  # fmt: skip
    contract = SimpleNamespace(modalities={"CT": {"channels": ["CT"], "intensities": [{}]}}, channels=("CT",))
    seen = []
    monkeypatch.setattr(
        fitting, "_remarked", lambda case, *given: seen.append(case.id) or ("dark" if case.id == "0" else "")
    )
    fit = SimpleNamespace(_replace=lambda order: order)
    (line,) = odd_scans(dataset, "CT", contract, fit)
    assert seen == [str(i) for i in read] and line == f"d, case 0: dark ({len(read)} of {count} scans were compared)"
    assert (
        odd_scans(dataset, "MR", contract, fit)
        == []
        == odd_scans(dataset, "CT", SimpleNamespace(modalities={"MR": {"channels": ["T1"]}}, channels=("T1",)), fit)
    )
