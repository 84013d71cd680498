import pytest
import torch
from ignite.engine import Engine

from common.engine.run.checkpoint import RunCheckpoint
from common.errors import CheckpointError
from common.methods.samora.unchanged import Unchanged


def test_a_run_continues_beside_the_same_parts_only(tmp_path):
    def run(**what):
        engine = Engine(lambda e, b: None)
        objects = {"network": torch.nn.Linear(1, 1), "frozen": Unchanged(what)}
        RunCheckpoint(folder=tmp_path, save_dict=objects).attach(engine)
        engine.run([0], max_epochs=engine.state.epoch + 1 if engine.state.epoch else 1)

    run(base="abc", teacher=None)
    run(base="abc", teacher=None)
    for other in ({"base": "abd", "teacher": None}, {"base": "abc", "teacher": "x"}, {"base": "abc", "more": "y"}):
        with pytest.raises(CheckpointError, match="began with another"):
            run(**other)
