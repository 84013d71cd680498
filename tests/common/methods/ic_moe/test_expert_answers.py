"""Every expert's score beside the answer's."""

import csv
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from common.labels import LabelSpace
from common.methods.ic_moe.expert_answers import ExpertAnswers, PixelScores, pixel_measures


def test_measures_pixel_by_pixel():
    rng = np.random.default_rng(0)
    p, t = rng.random((2, 6, 7)) > 0.5
    tp = sum(a and b for a, b in zip(p.ravel(), t.ravel(), strict=True))
    fp = sum(a and not b for a, b in zip(p.ravel(), t.ravel(), strict=True))
    fn = sum(b and not a for a, b in zip(p.ravel(), t.ravel(), strict=True))
    tn = 42 - tp - fp - fn
    expected = {"dice": 2 * tp / (2 * tp + fp + fn), "iou": tp / (tp + fp + fn), "accuracy": (tp + tn) / 42,
                "recall": tp / (tp + fn), "precision": tp / (tp + fp)}  # fmt: skip
    assert pixel_measures(p, t) == pytest.approx(expected)


def test_measures_of_nothing():
    nothing, some = np.zeros((3, 3), bool), np.eye(3, dtype=bool)
    both = pixel_measures(nothing, nothing)
    assert both["accuracy"] == 1 and all(math.isnan(both[m]) for m in ("dice", "iou", "recall", "precision"))
    found = pixel_measures(some, nothing)
    assert found["dice"] == found["precision"] == 0 and math.isnan(found["recall"])


class Network(nn.Module):
    def forward(self, image):
        return SimpleNamespace(experts=torch.stack([image, -image]))

    def answers(self, out):
        return {"first": out.experts[0], "second": out.experts[1]}


def test_answers_of_the_last_pass_join_the_output():
    network, engine = Network(), Engine(lambda *_: None)
    handler = ExpertAnswers(network=network)
    handler._start()
    engine.state.output = {"pred": torch.zeros(1)}
    image = torch.randn(1, 2, 3, 3)
    network(image)
    handler(engine)
    assert torch.equal(engine.state.output["second"], -image)
    engine.state.output = {}
    handler(engine)
    assert not engine.state.output  # nothing old
    handler._end()
    network(image)
    assert not handler._last


def test_tables_of_all_answers(tmp_path):
    labels = LabelSpace(("a", "b"))
    label = torch.zeros(1, 4, 4)
    label[0, :2], label[0, 3] = 1, 2
    wrong = label.clone()
    wrong[0, 0] = 0
    engine = Engine(lambda *_: None)
    handler = PixelScores(output_dir=tmp_path, labels=labels, answers=["pred", "basic", "absent"])
    engine.add_event_handler(Events.ITERATION_COMPLETED, handler.collect)
    handler.rows.append({"old": 1})
    handler.rows.clear()
    batch = [{"case": "x", "task": "t", "label": label, "annotated": torch.tensor([True, True, False])}]
    engine.state = SimpleNamespace(batch=batch, output=[{"pred": label, "basic": wrong}])
    handler.collect(engine)
    handler.finish(engine)
    with (tmp_path / "evaluation" / "pixels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["answer"], r["structure"]) for r in rows] == [("pred", "a"), ("basic", "a")]  # b is not annotated
    means = json.loads((tmp_path / "evaluation" / "pixels.json").read_text())
    assert list(means) == ["pred", "basic"]
    assert means["pred"]["dice"] == 1 and means["basic"]["recall"] == pytest.approx(0.5)
