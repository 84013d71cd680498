"""The whole command once: two experts of different structures, scans without labels, one student, one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.data import MetaTensor

from common.data.transforms.loading import LoadCased
from common.experts.answers.beside import read_kept
from tests.architecture.tree import ROOT
from tests.common.experts.answers.nnunets import decided
from tests.nnunet_folders import write_folder
from tools.amalgamate.command import amalgamate


@pytest.mark.slow
@pytest.mark.selected
def test_from_experts_and_scans_to_the_page(
    phantom_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    scans = phantom_dir / "phantom_ct" / "imagesTr"
    first: MetaTensor = LoadCased(keys="image")({"image": str(sorted(scans.iterdir())[0]), "case": "x"})["image"]
    experts = []
    for seed, names in enumerate((("liver", "spleen"), ("aorta",))):
        labels = {"background": 0, **{name: i for i, name in enumerate(names, 1)}}
        plans = {"spacing": (6.0, 6.0, 6.0), "norm": "CTNormalization", "channel_names": ("CT",)}
        folder = write_folder(tmp_path / "results", f"Dataset00{seed}_x", labels=labels, seed=seed, **plans)  # type: ignore[arg-type]
        experts.append(str(decided(folder, first, "RAS")))
    options = {"scans": {"ct": str(scans)}, "out": str(tmp_path / "out $x"), "preset": "smoke", "orientation": "RAS",
               "check": True, "held_back": 0.4, "train": "--max_epochs 2 --answer_mirroring False"}  # fmt: skip
    planned = amalgamate(*experts, **options, dry_run=True)  # type: ignore[arg-type]
    assert "to do  The student" in planned and "done  What it will take" in planned
    assert not (tmp_path / "out $x" / "student").exists()
    told = amalgamate(*experts, **options)  # type: ignore[arg-type]
    out = tmp_path / "out $x"
    assert "to keep: " in told and str(out / "report" / "index.html") in told
    assert "3 of 3" in capsys.readouterr().out
    scores = json.loads((out / "scores" / "scores.json").read_text())
    assert {r["structure"] for r in scores["rows"]} == {"liver", "spleen", "aorta"}
    assert set(scores["cost"]) == {"", "Dataset000_x", "Dataset001_x"}
    assert (out / "student" / "model.pt").is_file() and list((out / "student" / "nnunet").glob("*/*/plans.json"))
    assert (out / "bundle" / "ka2er" / "models" / "model.pt").is_file()
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    assert "Which passes can go" in page and "2 experts, one student" in page
    before = (out / "student" / "model.pt").stat().st_mtime_ns
    amalgamate(*experts, **options)  # type: ignore[arg-type]
    assert (out / "student" / "model.pt").stat().st_mtime_ns == before
    assert capsys.readouterr().err.count("done before") == 7
    stays(out, experts, options)


def stays(out: Path, experts: list[str], options: dict[str, Any]) -> None:
    """The same command with `--keep`: two steps are done, the others are as they were."""
    steps = {s["id"]: s for s in json.loads((out / "chain.json").read_text())["steps"]}
    told = amalgamate(*experts, **options, keep="Dataset001_x")
    assert "beside the student stays Dataset001_x, which decides about aorta" in told
    again = {s["id"]: s for s in json.loads((out / "chain.json").read_text())["steps"]}
    assert {k: v for k, v in again.items() if k not in ("beside", "bundle")} == {
        k: v for k, v in steps.items() if k != "bundle"}  # fmt: skip
    packed = read_kept(out / "bundle" / "ka2er" / "models" / "model.pt")
    assert [(k.spec.name, k.decides) for k in packed] == [("Dataset001_x", ("aorta",))]
    assert packed == read_kept(out / "student" / "model.pt")
    assert "decides about <b>aorta</b>" in (out / "report" / "index.html").read_text(encoding="utf-8")
