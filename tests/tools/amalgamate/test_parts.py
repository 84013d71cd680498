"""The public case: five nnU-Nets in TotalSegmentator's layout, a part of 117 structures each, and one CT collection."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor

from common.data.transforms.loading import LoadCased
from common.weights import read_card
from tests.architecture.tree import ROOT
from tests.common.experts.answers.nnunets import decided
from tools.amalgamate.command import amalgamate
from tools.bench.parts import PROFILE, Size, write_ct, write_parts
from tools.experts.profile import read_profile
from tools.predict.command import segment


@pytest.mark.slow
def test_one_command_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    scans = [write_ct(tmp_path / "scans" / f"ct{i}.nii.gz", (40, 36, 32), seed=i) for i in range(5)]
    first: MetaTensor = LoadCased(keys="image")({"image": str(scans[0]), "case": "x"})["image"]
    experts = [str(decided(f, first, "RAS")) for f in write_parts(tmp_path / "results", Size(4, 16, 3, 1))]
    options = {"preset": "smoke", "held_back": 0.4, "profile": PROFILE, "train": "--max_epochs 1",
               "check": False, "pack": False}  # fmt: skip
    out = tmp_path / "out"
    told = amalgamate(*experts, scans={"ct": str(tmp_path / "scans")}, out=str(out), **options)  # type: ignore[arg-type]
    assert str(out / "report" / "index.html") in told
    model = out / "student" / "model.pt"
    card = read_card(model)
    assert card is not None and len(card.labels) == 117
    taught = {n for names in card.extra["contract"]["taught"].values() for n in names}
    for names in read_profile(PROFILE).parts.values():
        assert taught.intersection(names), "weights by chance see some structures of each part"
    scores = json.loads((out / "scores" / "scores.json").read_text())
    assert len({r["structure"] for r in scores["rows"]}) == 117 and len(scores["cost"]) == 6
    found = segment("ka2er", scans[0], tmp_path / "one pass", weights=model)["ct0"]
    voxels = np.asarray(nib.load(found).dataobj)  # type: ignore[attr-defined]
    assert voxels.shape == (40, 36, 32) and len(np.unique(voxels)) > 3
