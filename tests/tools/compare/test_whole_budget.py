"""Every training of every member of a comparison takes its budget to the last step, whatever its preset's length is."""

from __future__ import annotations

from pathlib import Path

import pytest
from ignite.engine import Engine

from common.engine.run.length import RunLength
from tests.monai_words import told_by
from tests.tools.chain.test_overlays import CHAINS, RUNS, trainings
from tools.chain.step import step_files
from tools.compare.budget import Budget, measured
from tools.compare.members import known_members
from tools.workflow import read_config


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[3])


@pytest.mark.parametrize(("bundle", "preset"), RUNS)
def test_every_members_trainings_take_their_whole_budget(bundle, preset, phantom_dir, phantom_2d_dir):
    """A preset of fewer steps goes on and one of more is shortened, by the merged configuration of each training."""
    folder, seen = phantom_2d_dir if CHAINS[bundle]["dim"] == 2 else phantom_dir, set()
    for step, *_ in trainings(bundle, preset, folder):
        seen.add(step.id.split(":")[0])
        for steps in (7, 30):
            words = measured(step, Budget(steps=steps)).argv
            config, told = read_config([str(f) for f in step_files(words)]).get(), told_by(words)
            assert told["--max_steps"] == str(steps) and not {"--max_epochs", "--max_minutes"} & told.keys(), step.id
            assert config.get("patience") is None or told["--patience"] == "None", step.id
            train, count = config["train"], []
            assert train["length"] == {"_target_": "common.engine.run.length.RunLength", "epochs": "@max_epochs",
                                       "steps": "@max_steps", "minutes": "@max_minutes"}  # fmt: skip
            assert train["costs_handler"]["length"] == "@train::length" and "@train::length" in train["handlers"]
            kept = {"length": "@train::length", "costs": "@train::costs_handler"}
            assert kept.items() <= train["state_handler"]["save_dict"].items(), "both go on after a kill"
            trainer = Engine(lambda *_, count=count: count.append(0))
            RunLength(epochs=config["max_epochs"], steps=steps).attach(trainer)
            trainer.run([0] * 4, max_epochs=config["max_epochs"])
            assert len(count) == steps == trainer.state.planned_steps, step.id
    trained = {r["id"] for r in CHAINS[bundle]["stage2"] if r.get("trained", True)}
    assert {m.run for m in known_members().values() if m.bundle == bundle} & trained <= seen
