"""The experts' stored answers beside the cases: who is asked, what a crop brings, and that a student learns from it."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.transforms import Compose, EnsureTyped, Orientationd
from torch import nn

from common.data.datasets.part_labelled import part_labelled
from common.data.io import read_volume
from common.data.samples.draws import Draw, DrawnSamples
from common.data.store.place import Store, listed
from common.data.transforms.crops import RandomCropsd
from common.data.transforms.loading import LoadCased
from common.data.transforms.padding import PadMinimumd
from common.data.transforms.positions import ForegroundPositionsd
from common.data.transforms.transforms import DescribeCased, MapLabelsd, SafeSpacingd
from common.errors import ConfigError, DataError, ExpertError
from common.experts.answers.ask import AskExpertd
from common.experts.answers.cases import AnsweredCases
from common.experts.answers.record import decide
from common.experts.answers.teaching import AnswersLoss
from common.experts.answers.windows import HomeWindows
from common.geometry import Grid
from common.labels import LabelSpace
from tests.common.experts.answers.easy import VALUES, dataset, expert

LABELS = LabelSpace(tuple(VALUES))
SIZE = (12, 12, 12)
KEYS = ("image", "label")


def chain(folder: Path) -> Compose:
    """A student's: RAS, other voxels than the scans', padded."""
    missing = {"allow_missing_keys": True}
    return Compose([
        LoadCased(KEYS, **missing), DescribeCased(folder), MapLabelsd("label", folder, **missing),
        Orientationd(KEYS, axcodes="RAS", labels=None, **missing),
        SafeSpacingd(KEYS, pixdim=(2.0, 2.5, 2.0), mode=("bilinear", "nearest"), **missing),
        PadMinimumd(KEYS, spatial_size=(32, 12, 12), **missing), EnsureTyped(KEYS, **missing),
        ForegroundPositionsd(**missing),
    ])  # fmt: skip


def crops(prob: float = 0.0) -> Compose:
    keys = ["image", "label", "answers"]
    return Compose([RandomCropsd(keys, SIZE, labels=("label", "answers"), prob=prob, pos=1.0, neg=0.0)])


def answered(folder: Path, experts, store: Path, *, labels_used="none", **given) -> AnsweredCases:
    data = part_labelled(folder, labels_used=labels_used)
    return AnsweredCases(data, chain(folder), store=Store(store_dir=store, workers=0, quiet=True), experts=experts,
                         labels=LABELS, dataset_dir=folder, reading=SIZE, **given)  # fmt: skip


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    root = tmp_path_factory.mktemp("halves")
    experts = [expert(root, "one", "liver"), expert(root, "two", "spleen", "aorta")]
    return dataset(root), experts, root / "store"


def test_a_crop_brings_the_record_of_the_whole_volume_at_its_place(halves) -> None:
    folder, experts, store = halves
    found = answered(folder, experts, store, transform=crops())
    samples = DrawnSamples(found, seed=1)
    for position in range(len(found)):
        scan = read_volume(str(found.data[position]["image"]))
        case = found.case(position)
        grid = Grid(case["image"].shape[1:], case["image"].meta["affine"].numpy())
        records = torch.cat([HomeWindows(e).answer(scan).on(grid) for e in experts])
        assert torch.equal(case["answers"].whole(), records) and case["answers"].whole().dtype == torch.uint8
        (sample,) = samples[Draw(position, position)]
        image = torch.as_tensor(case["image"].whole())
        where = [
            low for low in torch.cartesian_prod(*[torch.arange(n - s + 1) for n, s in zip(grid.shape, SIZE)]).tolist()
            if torch.equal(image[_box(low)], sample["image"])
        ]  # fmt: skip
        assert len(where) == 1 and torch.equal(records[_box(where[0])], sample["answers"])
        assert torch.equal(case["label"].whole()[_box(where[0])], sample["label"])


def test_the_students_tiles_are_those_of_experts_that_answered(halves) -> None:
    folder, experts, store = halves
    found = answered(folder, experts, store)
    assert found.tiles == (0.5, ("one", "two"))
    home = {"program": "one", "version": "1", "orientation": "RAS", "tile_step": 0.8}
    found.experts = tuple(replace(e, kind="nnunet", profile=home) for e in experts)
    assert found.tiles == (0.2, ("one", "two"))
    found.experts = (replace(experts[0]), found.experts[1])
    found.places = [{}, found.places[1]]
    assert found.tiles == (0.2, ("two",)), "who was asked about nothing has no say"
    found.tile_step = 0.6
    assert found.tiles == (0.4, ("two",)), "an nnU-Net that was asked otherwise"


def _box(low: list[int]) -> tuple[slice, ...]:
    return (slice(None), *(slice(a, a + s) for a, s in zip(low, SIZE)))


def test_scans_without_labels_have_one_map_of_all_answers_and_places_on_structures(halves) -> None:
    folder, experts, store = halves
    found = answered(folder, experts, store, transform=crops())
    assert len(found) == 3 and [e.name for e in found.experts] == ["one", "two"]
    case = found.case(0)
    image, label = case["image"].whole()[0], case["label"].whole()[0]
    assert not bool(case["labelled"]) and case["answered"].tolist() == [True, True]
    assert case["annotated"].tolist() == [True] * 4 and set(case["positions"]) == {0, 1, 2}
    for index, value in ((1, 100), (2, 200)):
        mine, clear = label == index, (image - value).abs() < 25
        assert 2 * (mine & clear).sum() / (mine.sum() + clear.sum()) > 0.85
    samples = DrawnSamples(found, seed=0)
    assert all(samples[Draw(n, 0)][0]["label"].any() for n in range(8))
    assert found.taught == {"CT": ["liver", "spleen"]}  # nobody ever finds an aorta


def test_labels_that_are_used_are_read_and_others_are_not(halves, monkeypatch) -> None:
    folder, experts, store = halves
    found = answered(folder, experts[:1], store, labels_used="all")
    assert [bool(found.case(i)["labelled"]) for i in range(3)] == [True, False, False]
    assert found.case(1)["annotated"].tolist() == [True, True, False, False]  # what the one expert knows
    assert found.case(0)["annotated"].tolist() == [True] * 4 and found.taught == {"CT": ["liver", "spleen"]}
    for file in (folder / "images").glob("*_label.nii.gz"):
        shutil.move(file, file.with_suffix(".away"))
    try:
        assert len(answered(folder, experts, store.with_name("unread"))) == 3
    finally:
        for file in (folder / "images").glob("*.away"):
            shutil.move(file, file.with_suffix(".gz"))


def test_an_expert_is_asked_once_whatever_it_and_the_cases_are_called(halves, tmp_path, monkeypatch) -> None:
    folder, experts, store = halves
    found = answered(folder, experts, store)

    def refuse(self):
        raise ExpertError("asked again")

    monkeypatch.setattr(AskExpertd, "_opened", refuse)
    moved = shutil.copy(experts[0].path, tmp_path / "moved.ts")
    answered(folder, [replace(experts[0], name="another name", path=moved), experts[1]], store)
    copied = shutil.copytree(folder, tmp_path / "another task")
    (copied / "dataset.json").write_text((folder / "dataset.json").read_text().replace('"easy', '"other'))
    answered(copied, experts, store)
    with pytest.raises(ExpertError, match="asked again"):
        answered(folder, [expert(tmp_path, "one", "liver", value=90.0), experts[1]], store)
    assert all(a.preprocessing.transforms[1]._home is None for a in found.answers), "no expert stays in memory"
    told = {k.chain[0] for k in listed(store)}
    assert {"answers of one (liver)", "answers of two (spleen, aorta)"} <= told


def test_a_damaged_answer_is_asked_again_and_nothing_else_is_made_anew(halves, tmp_path) -> None:
    folder, experts, store = halves
    found = answered(folder, experts, store, transform=crops())
    wanted = found.case(1)["answers"].whole()
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*.b2nd")}
    damaged = found.answers[0].case(found.places[0][1])["answer"].path
    content = bytearray(damaged.read_bytes())
    content[100:-100] = bytes(len(content) - 200)
    damaged.write_bytes(content)
    assert DrawnSamples(found)[Draw(5, 1)][0]["answers"].shape == (10, *SIZE)
    assert torch.equal(found.case(1)["answers"].whole(), wanted)
    assert {p for p, t in before.items() if p.stat().st_mtime_ns != t} == {damaged}


def test_experts_are_asked_about_scans_that_they_read(tmp_path, caplog) -> None:
    ct, mr = dataset(tmp_path / "data", "ct"), dataset(tmp_path / "data", "mr", channel="T2 MR", training=0)
    experts = [
        expert(tmp_path, "of ct", "liver", role="task", task="ct"),
        expert(tmp_path, "other", "spleen", channels=("CT arterial",)),
        expert(tmp_path, "lung", "aorta", channels=("PET",)),
    ]
    with caplog.at_level(logging.WARNING):
        found = answered(ct.parent, experts, tmp_path / "store")
    assert [len(p) for p in found.places] == [3, 3, 0] and {c["task"] for c in found.data} == {"ct"}
    assert "left out" in caplog.text and "mr_0" in caplog.text and "reads PET: it is not asked" in caplog.text
    assert "aorta" in caplog.text and "not taught" in caplog.text
    assert caplog.text.count("expert 'other', asked about ct: CT is taken for CT arterial") == 1
    assert found.case(0)["answered"].tolist() == [True, True, False]
    assert found.case(0)["answers"].shape[0] == 15 and not found.case(0)["answers"].whole()[10:].any()
    with pytest.raises(DataError, match="nobody teaches"):
        answered(mr, experts[1:], tmp_path / "store")


def test_what_two_experts_claim_is_counted(halves, tmp_path) -> None:
    folder, experts, store = halves
    rival = expert(tmp_path, "rival", "aorta", value=VALUES["liver"])
    found = answered(folder, [experts[0], rival], store)
    assert list(found.disputed) == [("liver", "aorta")] and found.disputed["liver", "aorta"] > 300


def test_whole_cases_for_validation(halves) -> None:
    folder, experts, store = halves
    case = answered(folder, experts, store, whole_cases=True, without=("positions",))[1]
    assert isinstance(case["answers"], torch.Tensor) and "positions" not in case
    assert torch.equal(case["label"][0] == 2, decide(case["answers"][5:]) == 1)


def test_what_cannot_be_taught_is_refused(halves, tmp_path) -> None:
    folder, experts, store = halves
    with pytest.raises(ConfigError, match="different names"):
        answered(folder, [experts[0], experts[0]], store)
    with pytest.raises(ConfigError, match="different names"):
        answered(folder, experts, store, use=["task"])
    with pytest.raises(ConfigError, match="no expert knows"):
        answered(folder, [expert(tmp_path, "strange", "heart", value=1.0)], store)
    with pytest.raises(ExpertError, match="channels"):
        answered(folder, [expert(tmp_path, "own", "liver", role="task", task="easy", channels=("T1",))], store)
    with pytest.raises(ConfigError, match="exclude each other"):
        AnsweredCases([], chain(folder), store=Store(store_dir=store), experts=experts, dataset_dir=folder,
                      labels=LabelSpace(("liver",), exclusive=False))  # fmt: skip
    with pytest.raises(ExpertError, match="changed"):
        answered(folder, [experts[1], replace(experts[0], sha256="0" * 64)], store)


def test_a_student_finds_the_structures_of_both_experts_without_a_label(halves) -> None:
    """Real updates on what the store brings: an expert's background does not erase the other's organ."""
    folder, experts, store = halves
    found = answered(folder, experts, store, transform=crops(prob=0.2))
    samples, loss = DrawnSamples(found, seed=0), AnswersLoss(structures=LABELS.names, experts=found.experts)
    torch.manual_seed(0)
    student = nn.Sequential(nn.Conv3d(1, 16, 1), nn.Tanh(), nn.Conv3d(16, 16, 1), nn.Tanh(), nn.Conv3d(16, 4, 1))
    optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
    for update in range(120):
        batch = [samples[Draw(2 * update + i, (2 * update + i) % len(found))][0] for i in range(2)]
        targets = {k: torch.stack([torch.as_tensor(c[k]) for c in batch])
                   for k in ("label", "answers", "answered", "labelled", "annotated", "taught")}  # fmt: skip
        image = torch.stack([torch.as_tensor(c["image"]) for c in batch]) / 100
        optimizer.zero_grad()
        loss(student(image), targets)["loss"].backward()
        optimizer.step()
    case = found.case(0)
    with torch.no_grad():
        answer = student(case["image"].whole().as_tensor()[None] / 100).argmax(1)[0]
    for index, name in enumerate(("liver", "spleen"), 1):
        mine, truth = answer == index, case["label"].whole()[0] == index
        assert 2 * (mine & truth).sum() / (mine.sum() + truth.sum()) > 0.9, name
