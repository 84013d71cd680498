"""The word of experts that stay, and the student's for the rest."""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from common.contract import Contract
from common.errors import ExpertError, GeometryError
from common.experts.answers.beside import Kept
from common.experts.answers.record import record, record_overlapping
from common.experts.answers.united import AskKeptd, LeaveToKeptd, UniteKeptd
from common.experts.spec import ExpertSpec
from common.labels import LabelSpace

NAMES = ("liver", "spleen", "rib", "femur")
CONTRACT = Contract(("CT",), {"CT": {"channels": ["CT"]}})


def described(name: str, *names: str, exclusive: bool = True, kind: str = "torchscript") -> ExpertSpec:
    labels = LabelSpace(names, exclusive=exclusive)
    return ExpertSpec(name=name, kind=kind, path="none", labels=labels, channels=("CT",), role="external")


def said(kept: list[Kept], logits: list[torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What :class:`AskKeptd` makes of answers along one row of voxels."""
    answers = {k.spec.name: (record if k.spec.labels.exclusive else record_overlapping)(one[:, None, None].float())
               for k, one in zip(kept, logits, strict=True)}  # fmt: skip

    class Says:
        def __init__(self, spec: ExpertSpec, device: str) -> None:
            self.name = spec.name

        def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
            return {"answer": answers[self.name]}

    monkeypatch.setattr("common.experts.answers.united.AskExpertd", Says)
    nib.save(nib.Nifti1Image(np.zeros((1, 1, logits[0].shape[1]), np.float32), np.eye(4)), tmp_path / "x.nii.gz")
    item = {"image": str(tmp_path / "x.nii.gz"), "case": "x"}
    found = AskKeptd(kept, NAMES, CONTRACT)(item)
    assert found["image"] == item["image"], "the scan is left to the student's own preprocessing"
    return found["kept"][0, 0, 0].tolist(), json.loads(found["kept_by"])


def test_an_expert_speaks_about_what_it_decides_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([[9, 0, 0, 0], [0, 9, 0, 3], [0, 0, 9, 4]])  # none, rib, spleen, spleen before rib
    told, by = said([Kept(described("a", "rib", "spleen"), ("rib",))], [logits], tmp_path, monkeypatch)
    assert told == [0, 3, 0, 0] and by == {"a": ["rib"]}


def test_two_that_stay_dispute_and_the_surer_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [Kept(described("a", "liver"), ("liver",)), Kept(described("b", "femur", "rib"), ("femur", "rib"))]
    one = torch.tensor([[0.0, 0, 9, 0], [9, 2, 0, 0]])
    other = torch.tensor([[0.0, 0, 0, 9], [2, 9, 9, 0], [0, 0, 0, 0]])
    told, _ = said(kept, [one, other], tmp_path, monkeypatch)
    assert told == [1, 4, 4, 0]


def test_structures_that_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([[9.0, -9, 9, 9], [-9, -9, 2, -9], [-9, 9, -9, 1]])  # spleen, rib, femur
    kept = [Kept(described("a", "spleen", "rib", "femur", exclusive=False), ("rib", "femur"))]
    assert said(kept, [logits], tmp_path, monkeypatch)[0] == [0, 4, 3, 4]


def test_the_rest_is_the_students() -> None:
    logits = torch.tensor([[0.0, 1, 2, 5], [9, 0, 1, 0], [8, 9, 9, 1], [0, 0, 9.5, 2], [0, 0, 0, 4]]).view(5, 4, 1, 1)
    asked: dict[Hashable, Any] = {"pred": logits, "kept_by": json.dumps({"a": ["liver"], "b": ["rib"]})}
    assert LeaveToKeptd(NAMES)({"pred": logits})["pred"] is logits
    assert LeaveToKeptd(NAMES)(asked)["pred"].argmax(0).flatten().tolist() == [2, 2, 2, 0]
    assert LeaveToKeptd(NAMES).competing(asked).tolist() == [True, False, True, False, True]
    assert LeaveToKeptd(NAMES).competing({}).all()
    index = torch.ones(1, 4, 1, 1, dtype=torch.int16)
    assert LeaveToKeptd(NAMES)({**asked, "pred": index})["pred"] is index, "decided while the tiles were joined"
    with pytest.raises(ExpertError, match="exclude each other"):
        LeaveToKeptd(NAMES)({**asked, "pred": logits[1:]})


def test_the_map_is_united_and_told() -> None:
    unite = UniteKeptd()
    label = torch.tensor([0, 2, 1, 3], dtype=torch.uint8).view(1, 4, 1, 1)
    word = torch.tensor([0, 0, 4, 4], dtype=torch.int16).view(1, 4, 1, 1)
    found = unite({"pred": label, "kept": word, "kept_by": '{"a": ["femur"]}', "case": "x"})["pred"]
    assert found.flatten().tolist() == [0, 2, 4, 4] and found.dtype == torch.uint8
    assert unite({"pred": label, "case": "y"})["pred"] is label and unite.told == {"x": {"a": ["femur"]}}
    with pytest.raises(GeometryError, match="another grid"):
        unite({"pred": label, "kept": word[:, :3], "kept_by": '{"a": ["femur"]}'})


def test_a_file_beside_the_weights_runs_no_bundles_code() -> None:
    kept = [Kept(described("a", "liver", kind="bundle"), ("liver",))]
    with pytest.raises(ExpertError, match="asking it runs its code") as error:
        AskKeptd(kept, NAMES, CONTRACT)
    assert "--trust_kept True" in str(error.value)
    assert AskKeptd(kept, NAMES, CONTRACT, targets=["rib"]).kept == [], "who decides about nothing is not opened"
    assert AskKeptd([], NAMES, CONTRACT)({"image": "nowhere"}) == {"image": "nowhere"}
