"""What a run went on with although a card says otherwise is in its own card, and in no other's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine

from common.card import ModelCard
from common.data.datasets.datalist import Collection
from common.data.datasets.dataset import Dataset
from common.data.datasets.dataset_json import SPLITS, Case
from common.data.starts import check_start
from common.engine.run.best import KeepBest
from common.experts.fit import check_expert, tell_doubts
from common.experts.spec import ExpertSpec
from common.labels import LabelSpace
from common.overridden import overridden, override, with_overridden
from common.weights import read_card

LABELS = LabelSpace(("liver",))
MODEL = ModelCard(LABELS, ("CT",), extra={"contract": {"modalities": {}, "ignored": ["names"]}})


@pytest.fixture(autouse=True)
def nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.overridden._told", {})


def collection(*channels: str) -> Collection:
    cases: dict[str, Any] = {**dict.fromkeys(SPLITS, ()), "training": (Case("c", (Path("c.nii"),), Path("l"), "c"),)}
    return Collection("all", Path(), (Dataset("task", Path(), channels, LABELS, cases, 3, ""),))


def taught_on(*channels: str, structures: tuple[str, ...] = ("liver",)) -> ModelCard:
    name = " + ".join(channels)
    entry = {"modalities": {name: {"channels": list(channels), "dim": 3}}, "taught": {name: list(structures)}}
    return ModelCard(LABELS, channels, extra={"contract": entry})


def test_a_card_keeps_what_was_gone_on_with_where_that_was_asked(tmp_path: Path) -> None:
    override("one")
    override("two")
    override("one")
    assert overridden() == ["one", "two"]
    assert with_overridden(MODEL).extra["contract"]["ignored"] == ["names", "one", "two"]
    for other in (taught_on("CT"), ModelCard(LABELS), replace(MODEL, extra={"contract": {"ignored": "x"}})):
        assert with_overridden(other) == other
    engine = Engine(lambda *_: None)
    engine.state.epoch = 1
    best = KeepBest(path=tmp_path / "model.pt", network=torch.nn.Linear(1, 1), card=MODEL)
    override("while it was built")
    best._keep_last(engine)
    written = read_card(tmp_path / "model.pt")
    assert written is not None
    assert written.extra["contract"]["ignored"] == ["names", "one", "two", "while it was built"]


@pytest.mark.parametrize(("own", "data", "words"), [
    (taught_on("CT"), ("T2 MR",), "channel T2 MR in the place of channel CT"),
    (taught_on("T1", "FLAIR"), ("FLAIR", "T1"), "FLAIR, T1 in the place of T1, FLAIR"),
    (taught_on("CT", structures=("spleen",)), ("CT",), "not taught"), (taught_on("CT"), ("CT",), ""),
    (taught_on("CT"), ("CTA",), ""),
])  # fmt: skip
def test_weights_that_do_not_fit_are_kept_as_ignored(own: ModelCard, data: tuple[str, ...], words: str) -> None:
    check_start(own, "w.pt", collection(*data), structures=["liver"], ignore_card=True)
    said = overridden()
    assert len(said) == bool(words) and all(words in line and "w.pt" in line for line in said)


@pytest.mark.parametrize(("given", "modality", "words"), [
    ("T2 MR", "", "T2 MR in the place of CT"), ("CT", "MR", "MR in the place of CT"), ("CT", "CT", ""),
])  # fmt: skip
def test_experts_that_do_not_fit_are_kept_as_ignored(given: str, modality: str, words: str) -> None:
    spec = ExpertSpec("e", "nnunet", "nowhere", LABELS, ("CT",), task="task")
    check_expert(spec, (given,), LABELS, modalities=[modality] if modality else (), ignore_card=True)
    said = overridden()
    assert len(said) == bool(words) and all(words in line and "'e'" in line for line in said)
    tell_doubts(replace(spec, name="f", role="external", task=""), (given,), modality, "other")
    assert len(overridden()) - len(said) == bool(words)


def test_other_names_of_nobody_s_are_kept_as_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = taught_on("CT").extra["contract"] | {"data": [{"name": "KiTS"}]}
    card = ModelCard(LABELS, ("CT",), extra={"contract": known})
    monkeypatch.setattr("common.experts.fit.read_card", lambda _: card)
    (tmp_path / "model.pt").touch()
    labels = LabelSpace(("label_1",))
    spec = ExpertSpec("e", "nnunet", str(tmp_path / "nnunet" / "D"), labels, ("CT",), task="task")
    check_expert(spec, ("CT",), labels, ignore_card=True)
    (said,) = overridden()
    assert "label_1 of KiTS taken for those of task" in said
