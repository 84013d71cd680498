import json

import torch
from ignite.engine import Engine
from torch import nn

from common.backbones.sam.network import sam_encoder
from common.card import ModelCard
from common.labels import LabelSpace
from common.layers.lora.experts import add_experts, expert_parameters
from common.layers.lora.files import load_adapter
from common.methods.samora.stage_one.expert_folder import KeepExpert


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.level = sam_encoder("tiny", image_size=64), "patch"
        add_experts(self.encoder, ("patch",))


def test_the_expert_and_its_card_are_written_every_epoch(tmp_path):
    network, engine = Network(), Engine(lambda e, b: None)
    KeepExpert(network=network, output_dir=tmp_path, card=ModelCard(LabelSpace(("x",)))).attach(engine)
    with torch.no_grad():
        for parameter in expert_parameters(network.encoder, "patch").values():
            parameter.normal_()
    engine.run([0], max_epochs=2)
    other = sam_encoder("tiny", image_size=64)
    load_adapter(other, "patch", tmp_path / "adapter")
    pairs = zip(
        expert_parameters(network.encoder, "patch").values(), expert_parameters(other, "patch").values(), strict=True
    )
    assert all(torch.equal(a, b) for a, b in pairs)
    card = ModelCard.from_json((tmp_path / "adapter" / "card.json").read_text())
    assert card.extra["epoch"] == 2
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["peft_type"] == "LORA"


def test_a_teacher_has_no_expert(tmp_path):
    engine = Engine(lambda e, b: None)
    KeepExpert(network=nn.Linear(1, 1), output_dir=tmp_path).attach(engine)
    engine.run([0], max_epochs=1)
    assert not (tmp_path / "adapter").exists()
