"""One attention picture per task, with a caption, and none for a student that asks nobody."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from ignite.engine import Engine, Events
from PIL import Image

from common.methods.ka2er.attention_maps import AttentionMaps, draw_attention


class _Network:
    training = True

    def __init__(self) -> None:
        self.seen: list[int] = []

    def train(self, mode: bool = True) -> None:
        self.training = mode

    def attention_pictures(self, image, raw, stats, task_id):  # type: ignore[no-untyped-def]
        assert not self.training and image.shape == raw.shape
        self.seen.append(int(task_id))
        return {"task": torch.ones_like(image), "external": torch.rand_like(image)}


class _Dataset:
    data = ({"task": "ct"}, {"task": "ct"}, {"task": "mr"})

    def __getitem__(self, index: int) -> list[dict[str, object]]:
        volume = torch.rand(1, 8, 6, 4)
        number = int(self.data[index]["task"] == "mr")
        return [{"image": volume, "raw": volume, "stats": torch.zeros(1, 10), "task_id": number, "case": f"c{index}"}]


def _run(handler: AttentionMaps) -> None:
    engine = Engine(lambda _e, _b: None)
    engine.state = SimpleNamespace(device="cpu")  # type: ignore[assignment]
    handler(engine)


def test_each_task_gets_one_picture_and_the_mode_comes_back(tmp_path: Path) -> None:
    network = _Network()
    _run(AttentionMaps(network=network, dataset=_Dataset(), output_dir=tmp_path))
    captions = json.loads((tmp_path / "pictures" / "captions.json").read_text())
    assert sorted(captions) == ["attention_ct.png", "attention_mr.png"] and "c2" in captions["attention_mr.png"]
    assert network.seen == [0, 1] and network.training
    with Image.open(tmp_path / "pictures" / "attention_ct.png") as picture:
        assert min(picture.size) > 300 and np.asarray(picture.convert("L")).std() > 10


def test_disabled_registers_nothing(tmp_path: Path) -> None:
    engine = Engine(lambda _e, _b: None)
    AttentionMaps(network=_Network(), dataset=_Dataset(), output_dir=tmp_path, enabled=False).attach(engine)
    assert not engine._event_handlers[Events.COMPLETED]
    AttentionMaps(network=_Network(), dataset=_Dataset(), output_dir=tmp_path).attach(engine)
    assert len(engine._event_handlers[Events.COMPLETED]) == 1


def test_a_stronger_map_is_a_brighter_picture(tmp_path: Path) -> None:
    image = np.zeros((12, 12, 12))
    image[0] = 1
    for name, value in (("weak", 0.0), ("strong", 2.0)):
        draw_attention(tmp_path / f"{name}.png", image, {"task": np.full(image.shape, value)})
    means = [np.asarray(Image.open(tmp_path / f"{n}.png").convert("L")).mean() for n in ("weak", "strong")]
    assert means[1] > means[0]
