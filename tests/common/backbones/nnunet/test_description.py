"""What an nnU-Net's ``dataset.json`` says is read from every version's form, and nothing is guessed."""

import json

import pytest

from common.backbones.nnunet.description import channel_names, check_description, labels_of, output_channels
from common.backbones.nnunet.network import read_results_folder
from common.errors import AmalgamationError, WeightError


def test_regions_and_ignore_label():
    regions = {"labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, "regions_class_order": [1, 2]}
    space = labels_of(regions)
    assert (space.names, space.exclusive, output_channels(space)) == (("whole", "core"), False, 2)
    plain = labels_of({"labels": {"background": 0, "liver": 1, "ignore": 2}})
    assert (plain.names, output_channels(plain)) == (("liver",), 2)


def test_channel_names_of_old_and_new_files():
    assert channel_names({"modality": {"1": "T2", "0": "T1"}}) == ("T1", "T2")
    assert channel_names({"channel_names": {"0": "CT"}}) == ("CT",)


@pytest.mark.parametrize(
    "labels",
    [None, [], {}, "x", 5, {"background": 0}, {"liver": []}, {"liver": "x"}, {"liver": None}, {"liver": 1.5},
     {"liver": 1e999}, {"liver": {"a": 1}}, {"liver": True}],
)  # fmt: skip
def test_labels_of_another_kind_are_refused(labels):
    with pytest.raises(WeightError, match="does not name the labels"):
        labels_of({"labels": labels})
    with pytest.raises(WeightError, match="does not name the labels"):
        labels_of({})


@pytest.mark.parametrize("order", [5, "12", [1], [1, "x"], {"a": 1}])
def test_regions_of_another_kind_are_refused(order):
    with pytest.raises(WeightError, match=r"regions|labels"):
        labels_of({"labels": {"whole": [1, 2], "core": [2]}, "regions_class_order": order})


@pytest.mark.parametrize("names", [5, ["CT"], "CT", {"x": "CT"}, {"0": ["CT"]}, {"0": None}, {"\u00b2": "CT"}])
def test_channels_of_another_kind_are_refused(names):
    with pytest.raises(WeightError, match="does not name the channels"):
        channel_names({"channel_names": names})


def test_channels_that_are_described_in_two_ways_are_refused():
    for names, modality in (({"0": "CT"}, {"0": "T2"}), ({"0": "T1", "1": "FLAIR"}, {"0": "FLAIR", "1": "T1"}),
                            ({"0": "CT"}, "MR")):  # fmt: skip
        with pytest.raises(WeightError, match="contradict") as error:
            channel_names({"channel_names": names, "modality": modality})
        assert "channel_names: " + ", ".join(names.values()) in str(error.value) and "modality: " in str(error.value)
    assert channel_names({"channel_names": {"0": "T1", "1": "FLAIR"}, "modality": "MR"}) == ("T1", "FLAIR")


def test_channel_names_of_null_are_those_of_the_modality():
    assert channel_names({"channel_names": None, "modality": {"0": "CT"}}) == ("CT",)


@pytest.mark.parametrize(("labels", "got"), [({"Background": 0, "liver": 1}, "Background"), ({"liver": 1}, "None"),
                                             ({"background": False, "liver": 1}, "False"),
                                             ({"background": 0, "BACKGROUND": 1, "liver": 2}, "BACKGROUND"),
                                             ({"background": [0], "liver": 1}, "[0]")])  # fmt: skip
def test_nnunet_reads_one_background_alone(labels, got):
    with pytest.raises(WeightError, match='does not declare the label "background"') as caught:
        check_description({"labels": labels, "channel_names": {"0": "CT"}}, where="dataset.json")
    assert caught.value.where == "dataset.json" and got in str(caught.value.got)
    assert check_description({"labels": {"background": 0, "liver": 1}, "channel_names": {"0": "CT"}}) == ("CT",)


ODD = [{"labels": {"Background": 0, "liver": 1, "spleen": 2}}, {"labels": {"background": 0, "liver": 1, "spleen": 1}},
       {"labels": {"background": 0, "liver": 1, "$x": 2}}, {"channel_names": {"x": "CT"}}, {"channel_names": {}},
       {"channel_names": {"0": "CT", "1": "PET"}},
       {"labels": {"background": 0, "liver": 1, "spleen": 2, "ignore": "x"}},
       {"labels": {"background": 0, "liver": 1, "spleen": 2, "ignore": 7}}, {"channel_names": {"0": "$x"}},
       {"labels": {"background": 0, "liver": [1, 2], "spleen": [2, 3]}, "regions_class_order": [1, 1]}]  # fmt: skip


@pytest.mark.parametrize("change", ODD, ids=str)
def test_a_results_folder_names_its_file(nnunet_folder, change):
    folder = nnunet_folder()
    file = folder / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(AmalgamationError) as caught:
        read_results_folder(folder)
    assert str(caught.value.where) in (str(file), str(folder / "plans.json"))
