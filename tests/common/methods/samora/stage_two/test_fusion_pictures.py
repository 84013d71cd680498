"""Pictures and table of what experts change, from hand-made views."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from common.errors import ConfigError
from common.literals import file_name
from common.methods.samora.stage_two.fusion_pictures import FusionPictures, draw_views, view_rows

SIZE = 16


def views(*, asked=True):
    full, other = torch.zeros(SIZE, SIZE, dtype=torch.long), torch.zeros(SIZE, SIZE, dtype=torch.long)
    other[:4] = 2
    maps = {"image asks fused": torch.rand(SIZE, SIZE)}
    return SimpleNamespace(
        answers={"all experts": full, "without image": other, "no expert": full},
        asked={"all experts": maps, "without image": maps} if asked else {"all experts": {}},
        changed={"without image": torch.full((SIZE, SIZE), 0.5), "no expert": torch.zeros(SIZE, SIZE)},
    )


class Network:
    def __init__(self):
        self.seen = []

    def views(self, image):
        self.seen.append(image)
        return views()


def engine(task, case, pred, image):
    state = SimpleNamespace(
        batch={"image": image, "task": [task], "case": [case]}, output={"pred": pred}, iteration=1,
        device=torch.device("cpu"),
    )  # fmt: skip
    return SimpleNamespace(state=state)


def test_the_slice_with_most_structures_of_the_first_cases_is_drawn(tmp_path):
    network = Network()
    handler = FusionPictures(network=network, output_dir=tmp_path, cases=1)
    image, pred = torch.rand(1, 1, SIZE, SIZE, 3), torch.zeros(1, 2, SIZE, SIZE, 3)
    pred[:, 1, :5, :5, 2] = 1
    for task, case in (("ct", "a b/c"), ("ct", "second"), ("mr", "x")):
        handler(engine(task, case, pred, image))
    assert len(network.seen) == 2 and torch.equal(network.seen[0], image[..., 2])
    names = json.loads((tmp_path / "pictures" / "captions.json").read_text())
    assert set(names) == {f"fusion_{file_name('ct', 'a b/c')}.png", "fusion_mr_x.png"}
    assert all((tmp_path / "pictures" / n).stat().st_size > 1000 for n in names)
    table = pd.read_csv(tmp_path / "evaluation" / "fusion.csv")
    assert table.slice.tolist() == [2] * 4 and table.without.tolist() == ["image", "all"] * 2
    assert table.pixels_of_another_class.tolist() == [0.25, 0, 0.25, 0]
    assert table.embedding_distance.tolist() == [0.5, 0, 0.5, 0]


def test_an_empty_answer_shows_the_middle(tmp_path):
    network = Network()
    handler = FusionPictures(network=network, output_dir=tmp_path)
    image = torch.rand(1, 1, SIZE, SIZE, 5)
    handler(engine(None, None, torch.zeros(1, 2, SIZE, SIZE, 5), image))
    assert torch.equal(network.seen[0], image[..., 2]) and (tmp_path / "pictures" / "fusion_case_case1.png").is_file()


def test_the_caption_speaks_of_experts_where_there_are_some(tmp_path):
    alone = SimpleNamespace(answers={"no experts": torch.zeros(SIZE, SIZE, dtype=torch.long)}, asked={}, changed={})
    for task, seen, told in (("with", views(), "what each expert changes"), ("without", alone, "case x: the answer")):
        network = SimpleNamespace(views=lambda image, seen=seen: seen)
        handler = FusionPictures(network=network, output_dir=tmp_path)
        handler(engine(task, "x", torch.zeros(1, 2, SIZE, SIZE, 5), torch.rand(1, 1, SIZE, SIZE, 5)))
        captions = json.loads((tmp_path / "pictures" / "captions.json").read_text())
        assert captions[f"fusion_{task}_x.png"].endswith(told)


def test_no_pictures_and_no_attention(tmp_path):
    calls = []
    FusionPictures(network=Network(), output_dir=tmp_path, cases=0).attach(
        SimpleNamespace(add_event_handler=lambda *a: calls.append(a))
    )
    assert calls == []
    with pytest.raises(ConfigError, match="cases"):
        FusionPictures(network=Network(), output_dir=tmp_path, cases=-1)
    draw_views(tmp_path / "x.png", torch.rand(SIZE, SIZE).numpy(), views(asked=False), title="t")
    assert (tmp_path / "x.png").is_file()
    assert [r["without"] for r in view_rows(views())] == ["image", "all"]
