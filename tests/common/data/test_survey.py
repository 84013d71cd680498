"""What a card says of the training data: a naive count says the same, it is kept, and no generator is touched."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from common.card import ModelCard
from common.contract import OVERRIDE, Contract
from common.data import survey as module
from common.data.datasets.convert import split_dataset
from common.data.datasets.datalist import read_collection
from common.data.survey import survey
from common.data.survey_union import merged
from common.engine.run.settings import model_card
from common.errors import DataError
from common.labels import LabelSpace


def test_it_equals_a_naive_count(phantom_dir: Path) -> None:
    found = survey(phantom_dir)
    data = read_collection(phantom_dir).dataset("phantom_ct")
    cases = data.cases("training")
    assert list(found["modalities"]) == ["CT", "LGE MR", "T2 MR"] and len(cases) < 10
    ct = found["modalities"]["CT"]
    scans = [nib.load(c.images[0]) for c in cases]
    voxels = [np.asarray(s.dataobj, np.float32) for s in scans]
    pooled = np.concatenate([v[v != 0] for v in voxels])
    stats = ct["intensities"][0]
    assert (ct["kind"], ct["channels"], ct["cases"], ct["scans"]) == ("CT", ["CT"], len(cases), len(cases))
    assert stats["mean"] == pytest.approx(pooled.mean(), rel=0.05) and stats["max"] == max(v.max() for v in voxels)
    assert stats["percentile_50"] == pytest.approx(np.median(pooled), abs=30) and stats["min"] == min(
        map(np.min, voxels)
    )
    lows = [np.percentile(v, 0.5) for v in voxels]
    assert stats["lows"] == pytest.approx([min(lows), max(lows)], rel=1e-4)
    spacing = np.array([nib.affines.voxel_sizes(s.affine) for s in scans])
    assert ct["spacing"]["median"] == pytest.approx(np.median(spacing, 0).tolist(), rel=1e-4)
    assert ct["spacing"]["lowest"] == pytest.approx(spacing.min(0).tolist(), rel=1e-4)
    assert ct["orientation"] == {"LPS": len(cases)}
    assert found["taught"] == {
        d.modality_of(d.cases()[0]): list(d.labels.names) for d in read_collection(phantom_dir).datasets
    }
    told = next(d for d in found["data"] if d["name"] == "phantom_ct")
    assert told["licence"] == "CC0-1.0" and "synthetic" in told["description"] and told["modalities"] == ["CT"]
    assert {s: c["number"] for s, c in told["cases"].items()} == {s: len(data.cases(s)) for s in data.splits}
    first = hashlib.sha256(hashlib.sha256(cases[0].images[0].read_bytes()).digest()).hexdigest()[:16]
    assert first in told["cases"]["training"]["hashes"]
    json.dumps(found, allow_nan=False)


def test_it_is_kept_and_touches_no_generator(
    phantom_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(phantom_dir / "phantom_mr", data)
    run.mkdir()
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    found = survey(data, folder=run)
    assert {m["dim"] for m in found["modalities"].values()} == {3}
    assert torch.equal(state, torch.get_rng_state()) and (numbers == np.random.get_state()[1]).all()
    monkeypatch.setattr(module, "read_volume", lambda *_, **__: pytest.fail("read again"))
    assert survey(data, folder=run) == found
    monkeypatch.undo()
    (run / "contract.json").write_text("{")
    assert survey(data, folder=run) == found
    split_dataset(data, val=0.5)
    again = survey(data, folder=run)
    assert again["data"][0]["licence"] == "CC0-1.0" and again["data"][0]["cases"] != found["data"][0]["cases"]
    assert not list((tmp_path / "none").parent.glob("none")) and survey(data, folder=tmp_path / "none") == again


def test_what_is_learned_from_only(phantom_dir: Path, tmp_path: Path) -> None:
    one = survey(phantom_dir, modality="CT", structures=["liver"])
    assert list(one["modalities"]) == ["CT"] and one["taught"] == {"CT": ["liver"]}
    assert "taught" not in survey(phantom_dir / "phantom_ct", taught=False)
    by_experts = survey(
        phantom_dir / "phantom_ct", taught={"CT": ("liver", "spleen")}, splits=["training", "unlabelled"]
    )
    assert by_experts["taught"] == {"CT": ["liver", "spleen"]} and by_experts["modalities"]["CT"]["cases"] == 5
    folder = tmp_path / "plain"
    folder.mkdir()
    nib.save(
        nib.Nifti1Image(np.arange(4096, dtype=np.float32).reshape(16, 16, 16), np.diag([1, 2, 3, 1.0])),
        folder / "a.nii.gz",
    )
    (folder / "b.nii.gz").write_bytes(b"no scan")
    plain = survey(folder, modality="T1", taught=False)
    assert plain["modalities"]["T1"]["scans"] == 1 and plain["modalities"]["T1"]["spacing"]["median"] == [1, 2, 3]
    assert plain["data"] == [{"name": "plain", "modalities": ["T1"], "cases": plain["data"][0]["cases"]}]
    both = merged(one, plain)
    assert list(both["modalities"]) == ["CT", "T1"] and both["taught"] == one["taught"] and len(both["data"]) == 4


def test_the_card_carries_it(phantom_dir: Path) -> None:
    card = model_card("b", LabelSpace(("liver",)), ["CT"], {}, dataset_dir=phantom_dir / "phantom_ct")
    found = Contract.of_card(ModelCard.from_json(card.to_json()))
    assert found.complete and found.fit(("NCCT",)).modalities == ("CT",)
    same = model_card("b", LabelSpace(("liver",)), ["CT"], {}, contract=card.extra["contract"])
    assert same == card and "contract" not in model_card("b", LabelSpace(("liver",)), ["CT"], {}).extra


CONTRADICTING = {
    "other orders": (["T1", "FLAIR"], ["FLAIR", "T1"], {}),
    "a CT that is an MR": (["CT"], ["CT"], {"two": {"modality": "T2 MR"}}),
}


@pytest.mark.parametrize("kind", CONTRADICTING)
def test_a_plain_training_refuses_names_that_contradict_each_other(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    *channels, tasks = CONTRADICTING[kind]
    for name, own in zip(("one", "two"), channels, strict=True):
        (tmp_path / name).mkdir()
        files = [f"c_{i:04d}.nii.gz" for i in range(len(own))]
        for i, file in enumerate(files):
            nib.save(nib.Nifti1Image(np.full((4, 4, 4), i, np.float32), np.eye(4)), tmp_path / name / file)
        nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / name / "l.nii.gz")
        content = {"name": name, "modality": own, "labels": {"background": 0, "liver": 1},
                   "training": [{"image": files if len(own) > 1 else files[0], "label": "l.nii.gz"}]}  # fmt: skip
        (tmp_path / name / "dataset.json").write_text(json.dumps(content))
    (tmp_path / "collection.json").write_text(json.dumps({"datasets": ["one", "two"], "tasks": tasks}))

    def card(**options: Any) -> ModelCard:
        return model_card("b", LabelSpace(("liver",)), ["x"], {}, dataset_dir=tmp_path, **options)

    for rank in (0, 1):  # all processes of a training stop alike
        monkeypatch.setattr("ignite.distributed.get_rank", lambda own=rank: own)
        with pytest.raises(DataError) as caught:
            card()
        assert OVERRIDE in str(caught.value.hint)
    monkeypatch.undo()
    (said,) = card(ignore_card=True).extra["contract"]["ignored"]
    assert "two" in said and "channel" in said
    assert "ignored" in merged({"ignored": [said]}, {}) and "ignored" not in merged({}, {})
    given = model_card("b", LabelSpace(("liver",)), ["x"], {}, contract={"modalities": {}}, ignore_card=True)
    assert given.extra["contract"]["ignored"] == [] == merged({"ignored": []}, {})["ignored"]


def test_what_no_label_map_of_a_modality_has_was_not_taught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    labels = {"background": 0, "spleen": 1, "bladder": 14}
    cases = [("a", "CT", (1,)), ("b", "CT", (14,)), ("c", "MRI", (1,)), ("d", "MRI", (0,))]
    for name, _, values in cases:
        nib.save(nib.Nifti1Image(np.full((4, 4, 4), len(name), np.float32), np.eye(4)), tmp_path / f"{name}.nii.gz")
        label = np.resize(np.array([0, *values], np.uint8), (4, 4, 4))
        nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / f"{name}_l.nii.gz")
    entries = [{"image": f"{n}.nii.gz", "label": f"{n}_l.nii.gz", "id": n, "modality": m} for n, m, _ in cases]
    content = {"name": "amos", "modality": ["image"], "labels": labels, "training": entries,
               "validation": [{**entries[0], "id": "v", "subject": "v"}]}  # fmt: skip
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    run = tmp_path / "run"
    run.mkdir()
    found = survey(tmp_path, folder=run)["taught"]
    assert (
        found == {"CT": ["spleen", "bladder"], "MRI": ["spleen"]} and "no label map of MRI has bladder" in caplog.text
    )
    monkeypatch.setattr(module, "_LABELS", 1)  # more than are looked at: nobody knows
    assert survey(tmp_path)["taught"]["MRI"] == ["spleen", "bladder"] and "none of 1 label maps" in caplog.text
    monkeypatch.undo()
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), 14, np.uint8), np.eye(4)), tmp_path / "d_l.nii.gz")
    assert survey(tmp_path, folder=run)["taught"]["MRI"] == ["spleen", "bladder"]  # not what was kept
    (tmp_path / "d_l.nii.gz").write_bytes(b"no scan")
    assert survey(tmp_path)["taught"]["MRI"] == ["spleen", "bladder"]


def test_what_was_taught_on_which_channels_of_one_modality(tmp_path: Path) -> None:
    for name, channel, structure in (
        ("chaos", "T1", "liver"),
        ("more", "T1w", "spleen"),
        ("promise", "T2", "prostate"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        nib.save(nib.Nifti1Image(np.full((4, 4, 4), len(name), np.float32), np.eye(4)), folder / "a.nii.gz")
        nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), folder / "l.nii.gz")
        case = {"image": "a.nii.gz", "label": "l.nii.gz", "id": name}
        content = {"name": name, "modality": [channel], "labels": {"background": 0, structure: 1}, "training": [case],
                   "validation": [{**case, "id": "v", "subject": "v"}]}  # fmt: skip
        (folder / "dataset.json").write_text(json.dumps(content))
    tasks = {name: {"modality": "MR"} for name in ("chaos", "more", "promise")}
    (tmp_path / "collection.json").write_text(json.dumps({"datasets": list(tasks), "tasks": tasks}))
    found = survey(tmp_path)
    assert found["modalities"]["MR"]["taught"] == [{"channels": ["T1"], "structures": ["liver", "spleen"]},
                                                   {"channels": ["T2"], "structures": ["prostate"]}]  # fmt: skip
    card = ModelCard(LabelSpace(("liver", "spleen", "prostate")), ("T1 | T2",), extra={"contract": found})
    notes = Contract.of_card(ModelCard.from_json(card.to_json())).fit(("T1",), "MR").notes
    assert any("nobody taught prostate on T1" in note for note in notes)
    assert "taught" not in survey(tmp_path / "chaos")["modalities"]["T1"]


def test_scans_that_are_not_what_they_are_called_are_warned_of(
    tmp_path: Path, dicom_series: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A card of such a training holds numbers that are no HU, and every later MR passes it as a CT."""
    rng = np.random.default_rng(0)
    hu = np.where(rng.random((12, 12, 8)) < 0.5, -1000, rng.normal(40, 30, (12, 12, 8))).round().astype(np.int16)
    for name in "abc":
        nib.save(nib.Nifti1Image(hu.astype(np.float32), np.eye(4)), tmp_path / f"{name}.nii.gz")
    content: dict[str, Any] = {"name": "d", "modality": ["CT"], "labels": {"background": 0, "liver": 1},
                               "unlabelled": [f"{n}.nii.gz" for n in "abc"]}  # fmt: skip
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    survey(tmp_path, taught=False, splits=["unlabelled"])
    assert not [r for r in caplog.records if "looked at" in r.getMessage()]
    nib.save(nib.Nifti1Image(np.abs(hu).astype(np.float32), np.eye(4)), tmp_path / "c.nii.gz")
    dicom_series(tmp_path / "m", hu, change=lambda _, d: setattr(d, "Modality", "MR"))
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "unlabelled": [*content["unlabelled"], "m"]}))
    survey(tmp_path, taught=False, splits=["unlabelled"])
    assert "CT: 1 of 4 scans that were looked at (d: m): DICOM says MR" in caplog.text
    assert "CT: 1 of 4 scans that were looked at (d: c.nii.gz): a CT in HU has air near -1000" in caplog.text
