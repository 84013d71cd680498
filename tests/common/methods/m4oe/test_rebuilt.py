"""Pictures and scores of rebuilt slices."""

import json

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator

from common.methods.m4oe.phase_one import m4oe_autoencoder
from common.methods.m4oe.rebuilt import RebuiltPictures, RebuiltScores

SIZES = {"embed": 12, "num_heads": (1, 2, 3, 6), "window": 2}


class Slices(list):
    @property
    def index(self):
        return [(0, 0), (0, 1), (1, 0)]


def test_one_row_of_pictures_per_modality(tmp_path):
    torch.manual_seed(0)
    network = m4oe_autoencoder(modalities=("CT", "MR"), in_channels=1, mask_side=2, **SIZES).train()
    slices = Slices({"image": torch.rand(1, 64, 64), "modality_id": m, "case": f"c{m}"} for m in (1, 1, 0))
    handler = RebuiltPictures(network=network, dataset=slices, output_dir=tmp_path, modalities=["CT", "MR"])
    engine = Engine(lambda e, b: None)
    engine.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "device", torch.device("cpu")))
    handler.attach(engine)
    engine.run([0])
    picture = matplotlib.image.imread(tmp_path / "pictures" / "rebuilt.png")
    assert picture.shape[0] > 500 and picture[..., :3].std() > 0.1
    assert "rebuilt.png" in json.loads((tmp_path / "pictures" / "captions.json").read_text())
    assert network.training
    seen, rebuilt = network.eval().show(slices[0]["image"][None], torch.tensor([1]))
    hidden = seen.isnan()
    assert hidden.float().mean() == pytest.approx(0.75)
    assert torch.equal(seen[~hidden], slices[0]["image"][None][~hidden]) and torch.equal(
        rebuilt[~hidden], seen[~hidden]
    )


class Halves(torch.nn.Module):
    def forward(self, image):
        out = image.clone()
        out[..., :2, :] = 0.5 * image[..., :2, :]
        return out


def test_scores_are_those_of_the_hidden_voxels(tmp_path):
    torch.manual_seed(0)
    cases = [
        {"image": torch.rand(1, 4, 4, 3), "case": f"c{i}", "task": "t", "modality": m} for i, m in enumerate("ABA")
    ]
    loader = torch.utils.data.DataLoader(cases, batch_size=1)
    evaluator = SupervisedEvaluator(torch.device("cpu"), loader, Halves())
    RebuiltScores(output_dir=tmp_path).attach(evaluator)
    evaluator.run()
    table = pd.read_csv(tmp_path / "evaluation" / "rebuilt.csv")
    for case, row in zip(cases, table.itertuples(), strict=True):
        x = case["image"][0, :, :2].numpy().astype(float)
        assert row.mse == pytest.approx(np.mean((0.5 * x) ** 2), rel=1e-5)
        assert row.explained == pytest.approx(1 - np.sum((0.5 * x) ** 2) / np.sum((x - x.mean()) ** 2), rel=1e-5)
    means = json.loads((tmp_path / "evaluation" / "rebuilt.json").read_text())
    assert means["A"]["cases"] == 2 and means["A"]["mse"] == pytest.approx(table.mse[[0, 2]].mean())
