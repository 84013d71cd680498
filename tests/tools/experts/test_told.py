"""``experts describe``: several folds, the orientation of training files, a home, and other names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import AmalgamationError, ConfigError, DataError, ExpertError, WeightError
from common.experts.expert_set import load_experts
from common.experts.spec import ExpertSpec, read_manifest
from common.methods.ka2er.begin import begun_from
from tests.common.experts.test_training_files import save
from tools.amalgamate.described import Told, read_experts
from tools.experts.command import Experts
from tools.experts.told import read_folds, told


def described(folder: Path, out: Path, **given: Any) -> ExpertSpec:
    Experts().describe(str(folder), str(out / "e.json"), task="t", overwrite=True, **given)
    return read_manifest(out / "e.json")[0]


def test_folds_are_one_expert_and_all_are_hashed(nnunet_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = nnunet_folder()
    single = described(folder, tmp_path)
    for fold in (1, 3):
        shutil.copytree(folder / "fold_0", folder / f"fold_{fold}")
    both = described(folder, tmp_path, folds="0,3")
    assert both.fold == (0, 3) and both.sha256 != single.sha256 and described(folder, tmp_path, folds="0") == single
    assert described(folder, tmp_path, folds="all").fold == (0, 1, 3)
    (folder / "fold_3" / "checkpoint_final.pth").write_bytes(b"another")
    with pytest.raises(ExpertError, match="changed since"):
        load_experts([both])
    shutil.copytree(folder / "fold_0", folder / "fold_all")
    with pytest.raises(ExpertError, match=r"(?s)single folds and one of all.*--folds 0,1,3, or --fold all"):
        told(folder, folds="all")
    for fold in (0, 1, 3):
        shutil.rmtree(folder / f"fold_{fold}")
    assert told(folder, folds="all")["fold"] == "all"
    shutil.rmtree(folder / "fold_all")
    with pytest.raises(ExpertError, match="no folds"):
        told(folder, folds="all")
    with pytest.raises(ConfigError, match="one fold or several"):
        told(folder, fold=0, folds="0,1")


def test_an_orientation_is_never_silently_that_of_the_crop(nnunet_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = nnunet_folder(reader="SimpleITKIO")
    with pytest.raises(ExpertError, match=r"(?s)how this expert's training scans lay.*--training_files"):
        described(folder, tmp_path)
    (tmp_path / "raw").mkdir()
    save(tmp_path / "raw" / "a_0000.nii.gz", "LPS")
    assert described(folder, tmp_path, training_files=str(tmp_path / "raw")).orientation == "LPS"
    names = {"channel_names": {"0": "T2 MR"}, "labels": {"background": 0, "liver": 1}}
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps(names))
    for read in (described, lambda path, _out, **given: read_experts([path], told=Told(**given))):
        with pytest.raises(DataError, match="says to be of something else"):  # not what it learned from
            read(folder, tmp_path, training_files=str(tmp_path / "raw"))
    (tmp_path / "raw" / "dataset.json").unlink()
    assert described(folder, tmp_path, orientation="PIR").orientation == "PIR"
    with pytest.raises(ConfigError, match="told twice"):
        described(folder, tmp_path, orientation="PIR", training_files=str(tmp_path / "raw"))
    reoriented = nnunet_folder("Dataset901_b", reader="SimpleITKIOWithReorient")
    assert described(reoriented, tmp_path).orientation == "RAS"
    with pytest.raises(ExpertError, match=r"(?s)turned to another orientation.*RAS, by nnU-Net's"):
        described(reoriented, tmp_path, orientation="LPS")


def test_pictures_need_no_orientation(nnunet_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = nnunet_folder(reader="NaturalImage2DIO", spacing=(1.0, 1.0), strides=((1, 1), (2, 2), (2, 2)))
    assert described(folder, tmp_path).orientation is None


def test_structures_are_called_otherwise(nnunet_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = nnunet_folder()
    spec = described(folder, tmp_path, map="liver=spleen,spleen=liver")
    assert spec.labels.names == ("spleen", "liver") and spec.labels.values == (1, 2)
    assert load_experts([spec]).for_task("t").spec == spec
    with pytest.raises(ExpertError, match="files and its description name different structures"):
        load_experts([ExpertSpec.from_dict({**spec.to_dict(), "renamed": {}})])
    for wrong, words in (("lung=heart", "no structure of this name"), ("liver=spleen", "one name"),
                         ("liver=$x", r"\$"), ("liver=a/b", "a/b"), ("liver", "cannot read the names"),
                         ("liver=a,liver=b", "twice"), ("liver=", "cannot read the names")):  # fmt: skip
        with pytest.raises(AmalgamationError, match=words):
            described(folder, tmp_path, map=wrong)


def test_a_home_names_structures_and_turns_scans(nnunet_folder: Callable[..., Path], tmp_path: Path) -> None:
    own = {"format": 1, "ask": {"program": "mine", "version": "1", "orientation": "LPS", "tile_step": 0.8},
           "parts": [{"dataset": 900, "structures": ["Leber", "Milz"]}]}  # fmt: skip
    (tmp_path / "mine.json").write_text(json.dumps(own))
    folder = nnunet_folder(reader="SimpleITKIO")
    spec = described(folder, tmp_path, profile=str(tmp_path / "mine.json"), map="Milz=spleen")
    assert spec.labels.names == ("Leber", "spleen") and spec.renamed == {"liver": "Leber"}
    assert spec.orientation == "LPS" and spec.profile is not None and spec.profile["program"] == "mine"
    assert load_experts([spec]).for_task("t").spec == spec
    with pytest.raises(ExpertError, match="its home profile"):
        described(folder, tmp_path, profile=str(tmp_path / "mine.json"), orientation="RAS")


NO_FOLDS = ["٣", "9" * 5000, "0,٣", "00", "1_0", "-1", "x", "$x", "", "0,,1", [True], [1.5], [-1]]


@pytest.mark.parametrize("folds", NO_FOLDS)
def test_what_is_no_fold_is_refused_by_the_options_name(folds: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--folds: these are no folds of nnU-Net") as refusal:
        read_folds(folds)
    assert len(str(refusal.value)) < 500
    if isinstance(folds, str) and "," not in folds:
        with pytest.raises(ConfigError, match=r"--fold: this is no fold of nnU-Net"):
            told(tmp_path, fold=folds)


def test_a_fold_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="a fold is given twice"):
        read_folds("0,1,0")
    assert read_folds("0, 1,all") == (0, 1, "all") and read_folds(None) == () and read_folds([2, "3"]) == (2, 3)


def test_a_folder_that_looks_like_a_fold_changes_nobody_who_answers(
    nnunet_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = nnunet_folder()
    for odd in ("fold_٣", "fold_00"):
        shutil.copytree(folder / "fold_0", folder / odd)
        with pytest.raises(ExpertError, match=r"(?s)looks like a fold and is none.*rename it"):
            told(folder, folds="all")
        with pytest.raises(ExpertError, match="looks like a fold"):
            read_experts([folder])
        with pytest.raises(WeightError, match="looks like a fold"):
            begun_from(folder)
        assert described(folder, tmp_path, fold=0).fold == 0
        shutil.rmtree(folder / odd)


@pytest.mark.parametrize("name", ["[**", "*.pth", "checkpoint_[a-z]*.pth", "**"])
def test_a_checkpoints_name_is_no_pattern(name: str, nnunet_folder: Callable[..., Path]) -> None:
    with pytest.raises(ExpertError, match="there are no folds"):
        told(nnunet_folder(), folds="all", checkpoint=name)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"spacing": "abc"}, "no spacing"), ({"spacing": ("abc",)}, "no spacing"), ({"spacing": (1.0, 2.0)}, "no spacing"),
     ({"spacing": (1.0, 1.0, float("nan"))}, "no spacing"), ({"spacing": 5}, "no spacing"),
     ({"spacing": (0, 1, 1)}, "no spacing"), ({"orientation": "$x"}, "no orientation"),
     ({"orientation": "RRR"}, "no orientation"), ({"orientation": ["R", "A", "S"]}, "no orientation"),
     ({"orientation": "ras"}, "no orientation"), ({"normalise": "x"}, "extra"), ({"normalise": {"scheme": 1}}, "extra"),
     ({"divisor": 0}, "extra"), ({"divisor": "a"}, "extra"), ({"configuration": 5}, "configuration"),
     ({"labels": "liver=١"}, "cannot read the structures"), ({"labels": "liver=" + "9" * 5000}, "cannot read the str"),
     ({"labels": "liver=1_0"}, "cannot read the structures"), ({"labels": {"liver": "x"}}, "cannot read the struct")],
)  # fmt: skip
def test_what_an_option_cannot_be_is_refused(
    given: dict[str, Any], words: str, nnunet_folder: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(AmalgamationError, match=words):
        described(nnunet_folder(), tmp_path, **given)
    assert not (tmp_path / "e.json").exists()


@pytest.mark.parametrize("reader", ["NibabelIONotWithReorientAtAll", "$x WithReorient", "WithReorient"])
def test_a_reader_that_nnunet_has_not_tells_no_orientation(
    reader: str, nnunet_folder: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ExpertError, match="orientation"):
        described(nnunet_folder(reader=reader), tmp_path)


def test_a_name_that_is_changed_twice_is_refused_beside_a_profile(
    nnunet_folder: Callable[..., Path], tmp_path: Path
) -> None:
    own = {"format": 1, "ask": {"program": "mine", "version": "1", "orientation": "LPS", "tile_step": 0.8},
           "parts": [{"dataset": 900, "structures": ["Leber", "Milz"]}]}  # fmt: skip
    (tmp_path / "mine.json").write_text(json.dumps(own))
    folder = nnunet_folder(reader="SimpleITKIO")
    with pytest.raises(ConfigError, match="changed twice"):
        described(folder, tmp_path, profile=str(tmp_path / "mine.json"), map="Leber=a,liver=b")
