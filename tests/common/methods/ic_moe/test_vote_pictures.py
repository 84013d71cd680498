"""The pictures of a vote are drawn, captioned and listed.

Also the test of ``common.engine.monitor.first_cases``.
"""

import json
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from PIL import Image

from common.errors import ConfigError
from common.literals import file_name
from common.methods.ic_moe.vote_pictures import VotePictures, draw_vote

NAMES = ("basic", "semantic", "adaptive")


def views(vote=True):
    mask = torch.zeros(8, 8, dtype=torch.long)
    mask[2:5, 3:6] = 1
    every = dict.fromkeys((*NAMES, "mean"), mask) if vote else {}
    return SimpleNamespace(
        answers={**every, "answer": mask}, votes=3 * mask if vote else None, chosen=("semantic",) if vote else (),
        scores={"basic": 0.5, "semantic": 0.9, "mean": 0.7} if vote else {},
        features={n: torch.rand(3, 8, 8) for n in (NAMES if vote else NAMES[:1])},
        cams={n: torch.rand(8, 8) for n in (NAMES if vote else NAMES[:1])},
    )  # fmt: skip


class Network:
    def __init__(self):
        self.seen = []

    def views(self, image, box=None):
        self.seen.append((image, box))
        return views()


@pytest.mark.parametrize("vote", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_drawn(tmp_path, vote, channels):
    label = torch.zeros(8, 8)
    label[2:6, 2:6] = 1
    draw_vote(tmp_path / "a.png", torch.rand(channels, 8, 8), views(vote), label=label, title="a")
    assert Image.open(tmp_path / "a.png").size[0] > 400


def test_the_first_cases_of_each_task(tmp_path):
    network = Network()
    handler = VotePictures(network=network, output_dir=tmp_path, cases=1)
    for task, case in (("t", "a"), ("t", "b"), ("u", "c d")):
        batch = {"image": torch.rand(1, 3, 8, 8), "label": torch.ones(1, 1, 20, 16), "task": [task], "case": [case],
                 "box": torch.zeros(1, 2, 2)}  # fmt: skip
        handler(SimpleNamespace(state=SimpleNamespace(batch=batch, iteration=1, device=torch.device("cpu"))))
    assert len(network.seen) == 2 and network.seen[0][1].shape == (1, 2, 2)
    captions = json.loads((tmp_path / "pictures" / "captions.json").read_text())
    assert (
        set(captions) == {"vote_t_a.png", f"vote_{file_name('u', 'c d')}.png"}
        and "semantic" in captions["vote_t_a.png"]
    )
    rows = pd.read_csv(tmp_path / "evaluation" / "votes.csv")
    assert rows.chosen.tolist() == ["semantic"] * 2 and rows["mean"].tolist() == [0.7, 0.7]
    with pytest.raises(ConfigError, match="cases"):
        VotePictures(network=network, output_dir=tmp_path, cases=-1)
