"""An expert that does not fit the data is refused with what to rename, where a name is all that differs."""

from contextlib import nullcontext
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from common.card import ModelCard, save_weights
from common.contract import OVERRIDE
from common.data.datasets.dataset import Dataset
from common.data.datasets.dataset_json import SPLITS, Case
from common.data.datasets.known_cases import short_hash
from common.errors import ExpertError
from common.experts.fit import check_expert, check_reads_any, check_voxels, doubts, reads, tell_doubts
from common.experts.spec import ExpertSpec
from common.labels import LabelSpace

LABELS = LabelSpace(("Liver", "spleen"))
SPEC = ExpertSpec("e", "nnunet", "nowhere", LABELS, ("CT",), task="ct")
TWO = replace(SPEC, channels=("T1", "FLAIR"))


def refusal(spec, channels=None, labels=None):
    with pytest.raises(ExpertError) as caught:
        check_expert(spec, channels, labels)
    return caught.value


def test_what_fits_is_taken():
    check_expert(SPEC, ("ct",), LabelSpace(("aorta", "spleen", "Liver")))
    check_expert(SPEC, None, None)
    check_expert(TWO, ("t1", "flair"), LABELS)


def test_other_channels_are_to_be_given_the_expert_s_names():
    error = refusal(SPEC, ("image",))
    assert error.got == "CT" and error.expected == "image" and "'e'" in str(error.where)
    assert (
        "--channels CT" in error.hint and """"channel_names": {"0": "CT"} in the dataset.json of 'ct'""" in error.hint
    )
    assert "monai.bundle" not in error.hint  # the expert is trained already


def test_the_same_channels_in_another_order_are_not_renamed():
    hint = refusal(TWO, ("FLAIR", "T1")).hint
    assert "in the expert's order" in hint and '{"0": "T1", "1": "FLAIR"}' in hint and "--channels" not in hint


@pytest.mark.parametrize("role", ["task", "external"])
def test_no_name_helps_against_another_number_of_channels(role):
    hint = refusal(replace(SPEC, role=role), ("CT", "PET")).hint
    assert "leave this expert out" in hint and "--channels" not in hint


def test_of_a_task_agnostic_expert_only_the_number_of_channels_counts():
    check_expert(replace(TWO, role="external", task=""), ("T2", "DWI"), LabelSpace(("heart",)))


@pytest.mark.parametrize("name", ["liver", "LIVER", "Liver_"])
def test_a_structure_of_a_near_name_is_to_be_renamed(name):
    error = refusal(SPEC, ("CT",), LabelSpace((name, "spleen")))
    assert error.got == "Liver" and f"did you mean the data's {name!r}?" in error.hint
    assert "--structures 'Liver=" in error.hint
    assert f'"tasks": {{"ct": {{"labels": {{"{name}": "Liver"}}}}}}' in error.hint


def test_every_structure_of_a_near_name_is_listed_once():
    spec = replace(SPEC, labels=LabelSpace(("Liver", "Liver tumour", "spleen")))
    hint = refusal(spec, None, LabelSpace(("liver", "liver tumour", "spleen"))).hint
    assert '{"liver": "Liver", "liver tumour": "Liver tumour"}' in hint


@pytest.mark.parametrize("names", [("spleen", "aorta"), ("spleen", "right kidney")])
def test_a_structure_that_the_data_do_not_have_makes_the_expert_task_agnostic(names):
    spec = replace(SPEC, labels=LabelSpace(("left kidney", "spleen")))
    hint = refusal(spec, None, LabelSpace(names)).hint
    assert "did you mean" not in hint and "--external True" in hint


@pytest.mark.parametrize("organ", ["kidney", "adrenal gland"])
def test_an_organ_of_the_other_side_is_no_near_name(organ):
    spec = replace(SPEC, labels=LabelSpace((f"left {organ}", "spleen")))
    hint = refusal(spec, None, LabelSpace((f"right {organ}", "spleen"))).hint
    assert "did you mean" not in hint and "--external True" in hint
    near = f"left {organ}s"
    hint = refusal(spec, None, LabelSpace((f"right {organ}", near, "spleen"))).hint
    assert f"did you mean the data's {near!r}?" in hint and "right" not in hint


def test_overlapping_and_exclusive_structures_are_not_mixed():
    regions = replace(SPEC, labels=LabelSpace(("Liver", "spleen"), exclusive=False))
    error = refusal(regions, None, LABELS)
    assert "overlap" in error.got and "exclude each other" in error.expected and "--external True" in error.hint
    assert "overlap" in refusal(SPEC, None, replace(LABELS, exclusive=False)).expected
    check_expert(regions, None, replace(LABELS, exclusive=False))


@pytest.mark.parametrize(("known", "given"), [
    (("CT arterial", "CT portal"), ("CT portal", "CT arterial")), (("DCE pre", "DCE post"), ("DCE post", "DCE pre")),
    (("DWI b50", "DWI b1000"), ("DWI b1000", "DWI b50")), (("T1-", "T1+"), ("T1+", "T1-")),
    (("CT arterial", "CT portal"), ("portal CT", "arterial CT")), (("CT", "PET"), ("SUV", "NCCT")),
])  # fmt: skip
def test_swapped_channels_of_one_kind_are_refused(known, given):
    assert "in the expert's order" in refusal(replace(SPEC, channels=known), given).hint
    check_expert(replace(SPEC, channels=known), known, LABELS)


def test_channels_are_read_beside_one_another(caplog):
    glio = replace(SPEC, channels=("T1", "CT1", "T2", "FLAIR"))
    for given in (("T1", "T1c", "T2", "FLAIR"), ("T1w", "CT1", "T2w", "FLAIR")):
        check_expert(glio, given, LABELS)
        check_expert(replace(glio, channels=given), glio.channels, LABELS)
        assert reads(glio, given) and not caplog.text
    check_expert(replace(SPEC, channels=("R", "G", "B")), ("red", "green", "blue"), LABELS)
    check_expert(replace(SPEC, channels=("red", "green", "blue")), ("R", "G", "B"), LABELS)
    assert not caplog.text and not reads(glio, ("T1", "T2", "T1c", "FLAIR"))


def test_a_name_that_says_less_is_no_other_name():
    for known, given in (("MR", "MRI"), ("MR", "T1"), ("T2 MR", "MR")):
        check_expert(replace(SPEC, channels=(known,)), (given,), LABELS)
    refusal(replace(SPEC, channels=("MR",)), ("image",))


def test_a_task_agnostic_expert_reads_some_task_by_name():
    both = replace(SPEC, channels=("CT", "PET"), role="external", task="")
    check_reads_any(both, [("T1", "T2"), ("NCCT", "SUV")])
    check_reads_any(both, [("image", "other")])
    check_reads_any(replace(both, channels=("CT portal", "CT arterial")), [("CT portal", "CT arterial")])
    with pytest.raises(ExpertError, match="none of the tasks' modalities"):
        check_reads_any(both, [("T1", "T2"), ("US", "CT")])
    for known, given in ((("CT", "PET"), ("PET", "CT")), (("CT arterial", "CT portal"), ("CT portal", "CT arterial")),
                         (("first", "second"), ("second", "first"))):  # fmt: skip
        with pytest.raises(ExpertError, match="another order") as caught:
            check_reads_any(replace(both, channels=known), [given])
        assert f"in the expert's order: {', '.join(known)}" in str(caught.value.hint)


def test_another_phase_or_tracer_is_told(caplog):
    for known, given, words in (
        ("CT arterial", "CT portal", "phase"),
        ("FDG", "PET", "FDG"),
        ("CT", "CTA", "cta"),
        ("CT", "CT scan", ""),
    ):
        caplog.clear()
        check_expert(replace(SPEC, channels=(known,)), (given,), LABELS)
        assert words in caplog.text and bool(caplog.text) == bool(words)
    with pytest.raises(ExpertError, match="does not read the channels"):
        check_expert(replace(SPEC, channels=("FDG",)), ("PSMA",), LABELS)


def card_beside(folder, channel, modality, **contract):
    """An expert of a run of this collection, whose card says what it learned from."""
    entry = {"modalities": {modality: {"channels": [channel], "dim": 3}}, **contract}
    place = folder / "nnunet" / "Dataset001_t" / "trainer"
    place.mkdir(parents=True, exist_ok=True)
    save_weights(folder / "model.pt", {"w": torch.zeros(1)}, ModelCard(LABELS, (channel,), extra={"contract": entry}))
    return replace(SPEC, path=str(place), channels=(channel,))


def test_the_modality_of_the_data_is_compared_too(tmp_path):
    t1 = replace(SPEC, channels=("T1",))
    check_expert(t1, ("MR",), LABELS, modalities=["T1 MR", "MR"])
    of_ct = card_beside(tmp_path, "image", "CT")
    check_expert(of_ct, ("image",), LABELS, modalities=["NCCT"])
    for spec, channels, modality in ((t1, ("MR",), "T2 MR"), (of_ct, ("image",), "T2 MR"),
                                     (replace(SPEC, channels=("CT", "PET")), ("CT", "PET"), "MR")):  # fmt: skip
        with pytest.raises(ExpertError, match="another modality") as caught:
            check_expert(spec, channels, LABELS, modalities=["CT" if spec is of_ct else "MR", modality])
        assert OVERRIDE in str(caught.value.hint) and modality in str(caught.value.expected)
        check_expert(spec, channels, LABELS, modalities=[modality], ignore_card=True)
    general = replace(t1, role="external", task="")
    check_reads_any(general, [("MR",), ("MR",)], [["T2 MR"], ["T1 MR"]])
    with pytest.raises(ExpertError, match="none of the tasks' modalities"):
        check_reads_any(general, [("MR",)], [["T2 MR"]])


def test_names_that_mean_nothing_or_anything_are_no_other_data_set_s(tmp_path, caplog):
    told = card_beside(tmp_path, "CT", "CT", data=[{"name": "ct"}])
    for names, words in ((("label_1",), "label_1"), (("tumours",), "tumours"), (("liver",), "")):
        space = LabelSpace(names)
        for spec, silent in ((replace(told, labels=space), True), (replace(SPEC, labels=space), not words)):
            caplog.clear()
            check_expert(spec, ("CT",), space)
            assert (not caplog.text) is silent and (silent or words in caplog.text)
    other = replace(told, task="other", labels=LabelSpace(("label_1", "liver")))
    with pytest.raises(ExpertError, match="another data set"):
        check_expert(other, ("CT",), other.labels)
    check_expert(other, ("CT",), other.labels, ignore_card=True)
    (tmp_path / "scan.nii").write_bytes(b"scan")
    case, named = Case("a", (tmp_path / "scan.nii",), None, "a"), replace(told, labels=LabelSpace(("label_1",)))
    data = Dataset("ct", tmp_path, ("CT",), named.labels, {**dict.fromkeys(SPLITS, ()), "training": (case,)}, 3, "CT")
    for hashes, match in (["0" * 16], "another data set"), ([short_hash(case.images)], ""):
        own = replace(named, path=card_beside(tmp_path, "CT", "CT", data=[
            {"name": "ct", "cases": {"training": {"number": 1, "hashes": hashes}}}]).path)  # fmt: skip
        with pytest.raises(ExpertError, match=match) if match else nullcontext():
            check_expert(own, ("CT",), own.labels, dataset=data)
    check_expert(replace(told, task="other", labels=LabelSpace(("tumor",))), ("CT",), LabelSpace(("tumor",)))
    assert "tumor" in caplog.text and "(ct)" in caplog.text


def test_who_can_be_asked_about_another_task_s_scans(tmp_path):
    assert (
        reads(SPEC, ("CT",), "CT") and reads(SPEC, ("CTA",)) and reads(replace(SPEC, channels=("MR",)), ("T1",), "T1")
    )
    assert not reads(SPEC, ("T1",), "T1") and not reads(SPEC, ("CT", "PET")) and not reads(SPEC, ("image",))
    assert not reads(TWO, ("FLAIR", "T1")) and not reads(SPEC, ("CT",), "T2 MR")
    assert reads(SPEC, ("image",), ignore_card=True) and not reads(SPEC, ("a", "b"), ignore_card=True)
    anything = replace(SPEC, role="external", task="", channels=("image",))
    assert reads(anything, ("CT",), "CT") and not reads(replace(anything, channels=("CT",)), ("T1",))


@pytest.mark.parametrize(("known", "given", "modality", "words"), [
    ("CT arterial", "CT delayed", "CT delayed", "another phase"), ("CT", "image", "", "image tells nothing"),
    ("FDG PET", "PET", "PET", "FDG"), ("T1", "MR", "MR", "tells more"), ("CT", "CT", "CTA", "cta"),
    ("CT P", "CTP", "", "ctp"), ("CT", "CT scan", "CT", ""), ("CT", "CT", "LiTS", ""),
])  # fmt: skip
def test_who_is_asked_about_other_scans_is_told_of_once(known, given, modality, words, caplog):
    general = replace(SPEC, name=f"{known} for {given} of {modality or 0}", channels=(known,), role="external", task="")
    for _ in range(2):  # once in a process
        check_reads_any(general, [(given,)], [[modality]] if modality else None)
    assert words in caplog.text and len(caplog.records) == bool(words)
    assert bool(doubts(general, (given,), modality)) == bool(words)
    again = replace(general, name=f"{general.name} again")
    check_expert(again, (given,), LABELS, modalities=[modality])
    tell_doubts(again, (given,), modality)
    assert len(caplog.records) == 2 * bool(words) and ("again" in caplog.text) == bool(words)
    caplog.clear()
    assert reads(again, (given,), modality) and not caplog.text  # a question


def test_intensities_that_an_expert_did_not_learn_from_are_told(tmp_path, caplog):
    told = card_beside(tmp_path / "e", "SUV", "SUV")
    card = ModelCard(LABELS, ("SUV",), extra={"contract": {"modalities": {"SUV": {
        "channels": ["SUV"], "intensities": [{"lows": [0, 0], "highs": [5, 12]}]}}}})  # fmt: skip
    save_weights(tmp_path / "e" / "model.pt", {"w": torch.zeros(1)}, card)
    grey = np.random.default_rng(0).uniform(0, 9, (9, 9, 9)).astype(np.float32)

    def data(name, channel, voxels):
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{name}.nii")
        case = Case("a", (tmp_path / f"{name}.nii",), None, "a")
        return Dataset("ct", tmp_path, (channel,), LABELS, {**dict.fromkeys(SPLITS, ()), "unlabelled": (case,)})

    check_expert(told, ("SUV",), LABELS, modalities=["SUV"], dataset=data("suv", "SUV", grey))
    assert "intensities" not in caplog.text
    check_expert(told, ("SUV",), LABELS, modalities=["SUV"], dataset=data("bq", "SUV", grey * 4000))
    assert "expert 'e': ct, case a: intensities" in caplog.text and "another scale" in caplog.text
    caplog.clear()
    check_voxels(told, [data("other", "T2 MR", grey * 4000)])  # which it cannot read
    assert "intensities" not in caplog.text
    check_voxels(SPEC, [data("ct", "CT", grey + 1000)])  # without a card, too, a CT is in HU
    assert "expert 'e'" in caplog.text and "hardly anything" in caplog.text
