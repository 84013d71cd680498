"""Under which names answers are kept: all that decides them, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor

from common.data.store.chain import chain_json, digest
from common.errors import DataError, ExpertError
from common.experts.answers.ask import AskExpertd, found_in
from common.experts.answers.kept import grid_of
from common.experts.answers.record import record, record_overlapping
from tests.common.experts.answers.easy import expert
from tests.common.experts.answers.nnunets import scan, spec_of
from tests.nnunet_folders import write_folder


def name(spec, **options) -> str:
    return digest(chain_json(AskExpertd(spec, **options)))


def test_what_decides_an_nnunets_answer_is_its_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (write_folder(tmp_path / "b", seed=1) / "fold_0").rename(folder / "fold_1")
    spec = spec_of(folder)
    ways = [{}, {"mirroring": False}, {"tile_step": 0.8}, {"folds": (1,)}, {"folds": (0, 1)}]
    names = [name(spec, **w) for w in ways] + [name(replace(spec, orientation="LPS"))]
    assert len(set(names)) == len(names)
    moved = folder.rename(tmp_path / "elsewhere")
    assert (
        name(replace(spec, name="other", path=str(moved), task="another"))
        == names[0]
        == name(replace(spec, path=str(moved)), folds=(0,), device="meta")
    )
    checkpoint = moved / "fold_0" / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=False)
    next(iter(content["network_weights"].values())).add_(1)
    torch.save(content, checkpoint)
    assert name(replace(spec, path=str(moved), sha256="")) not in names
    with pytest.raises(ExpertError, match="changed"):
        name(replace(spec, path=str(moved), sha256="0" * 64))


def test_an_nnunet_is_asked_when_it_is_needed_and_by_its_own_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(write_folder(tmp_path))
    ask = AskExpertd(spec, mirroring=False)
    image = scan()
    grid = {"shape": list(image.shape[1:]), "affine": image.affine.tolist()}
    found = ask({"image": image, "grid": grid})
    assert found["answer"].shape == (5, *image.shape[1:]) and int(found["voxels"].sum()) <= image[0].numel()
    assert ask._home is not None and ask.__getstate__()["_home"] is None
    ask.release()
    assert ask._home is None
    monkeypatch.setattr("common.experts.answers.ask.get_worker_info", object)
    on_gpu = AskExpertd(spec, device="cuda")  # which a process that reads samples cannot have
    assert torch.device(on_gpu._opened().device).type == "cpu"
    wrong = AskExpertd(replace(spec, labels=replace(spec.labels, names=("spleen", "liver"))))
    with pytest.raises(ExpertError):
        wrong({"image": image, "grid": grid})


def test_a_script_s_description_is_a_part_of_its_name(tmp_path: Path) -> None:
    spec = expert(tmp_path, "one", "liver")
    names = {name(s) for s in (spec, replace(spec, spacing=(1.0, 1.0, 1.0)), replace(spec, extra={"divisor": 2}))}
    assert len(names) == 3 and name(replace(spec, name="x"), mirroring=False, folds=(1,)) in names


def test_voxels_of_each_structure() -> None:
    logits = torch.randn(4, 5, 6, 7, generator=torch.Generator().manual_seed(0))
    classes = logits.argmax(0)
    assert found_in(record(logits), 3, True).tolist() == [int((classes == k).sum()) for k in (1, 2, 3)]
    overlapping = found_in(record_overlapping(logits), 4, False).tolist()
    assert overlapping == [int((logits[k].sigmoid() * 255).round().gt(127).sum()) for k in range(4)]
    with pytest.raises(ExpertError, match="does not know"):
        found_in(record(logits), 2, True)


def test_a_prepared_image_says_where_it_lies() -> None:
    image = MetaTensor(torch.zeros(1, 4, 5, 6), affine=torch.diag(torch.tensor([2.0, 3, 4, 1])))
    assert grid_of({"image": image}) == {"shape": [4, 5, 6], "affine": image.affine.tolist()}
    with pytest.raises(DataError, match="case c"):
        grid_of({"image": torch.zeros(1, 4, 5, 6), "case": "c"})
