import csv
import json
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events

from common.methods.samora.stage_one.views import ExpertPictures, ExpertScores


class Dataset:
    index = ((0, 0), (0, 1), (0, 2), (1, 0), (2, 0))

    def __getitem__(self, position):
        return {
            "image": torch.full((2, 1, 8, 8), 0.1 * position),
            "modality": "CT" if position < 4 else "MR",
            "case": "c",
        }


def test_a_picture_of_each_modality(tmp_path):
    seen = []

    def show(image):
        seen.append(image)
        return {"slice": image, "features": image.expand(-1, 3, -1, -1)}

    engine = Engine(lambda e, b: None)
    engine.state.device = torch.device("cpu")
    ExpertPictures(viewer=SimpleNamespace(show=show), dataset=Dataset(), output_dir=tmp_path).attach(engine)
    engine.run([0], max_epochs=1)
    assert (tmp_path / "pictures" / "expert.png").stat().st_size > 1000
    assert "expert.png" in json.loads((tmp_path / "pictures" / "captions.json").read_text())
    assert [tuple(i.shape) for i in seen] == [(1, 1, 8, 8)] * 2
    assert [float(i.mean()) for i in seen] == pytest.approx([0.1, 0.4])  # middle slice of the first CT, the only MR


def test_rows_and_means(tmp_path):
    def process(engine, batch):
        return [{"image": torch.full((1, 2, 2, 2), float(batch))}]

    engine = Engine(process)
    engine.state.device = torch.device("cpu")
    viewer = SimpleNamespace(scores=lambda volume: {"mse": float(volume.mean())})
    ExpertScores(viewer=viewer, output_dir=tmp_path).attach(engine)

    def describe(engine):
        engine.state.batch = [{"task": "t", "case": f"c{engine.state.batch}", "modality": "CT"}]

    handlers = engine._event_handlers[Events.ITERATION_COMPLETED]
    engine.add_event_handler(Events.ITERATION_COMPLETED, describe)
    handlers.insert(0, handlers.pop())
    engine.run([1, 3], max_epochs=1)
    rows = list(csv.DictReader((tmp_path / "evaluation" / "expert.csv").open()))
    assert [(r["case"], float(r["mse"])) for r in rows] == [("c1", 1.0), ("c3", 3.0)]
    assert json.loads((tmp_path / "evaluation" / "expert.json").read_text()) == {"CT": {"cases": 2, "mse": 2.0}}
