"""An expert whose training files lay otherwise than it is described is refused before anybody listens to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.errors import ExpertError
from common.experts.answers.at_home import HomeNNUNet
from common.experts.spec import write_manifest
from tests.common.experts.answers.nnunets import decided, scan, spec_of
from tests.nnunet_folders import write_folder
from tools.amalgamate.gather import gather
from tools.amalgamate.given import Folder
from tools.amalgamate.heard import heard
from tools.amalgamate.work import Work


@pytest.fixture
def work(tmp_path: Path) -> Work:
    given = scan("LPS")
    spec = replace(
        spec_of(decided(write_folder(tmp_path, transpose=(2, 0, 1)), given, "RAS")), role="external", task=""
    )
    (tmp_path / "scans").mkdir()
    nib.save(nib.Nifti1Image(given[0].numpy(), np.asarray(given.affine)), tmp_path / "scans" / "x.nii.gz")
    gather([Folder("t1", tmp_path / "scans")], [], [spec], tmp_path / "out" / "collection")
    write_manifest(tmp_path / "out" / "experts.json", [spec])
    return Work(tmp_path / "out")


def test_passes_and_says_how_well(work: Work) -> None:
    found = heard(work)["experts"]["e"]
    assert found["foreground"] > 0.995 and set(found["structures"]) == {"liver", "spleen"}


def test_refuses_what_differs(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = HomeNNUNet.judge

    def elsewhere(self: HomeNNUNet, given: Any) -> Any:
        return judge(HomeNNUNet(replace(self.spec, orientation="PIR"), mirroring=False), given)

    monkeypatch.setattr(HomeNNUNet, "judge", elsewhere)
    with pytest.raises(ExpertError, match=r"not heard as it speaks at home[\s\S]*--orientation"):
        heard(work)
