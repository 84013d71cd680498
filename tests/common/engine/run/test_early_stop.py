"""Early stopping, and that it survives a restart."""

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from monai.handlers import ValidationHandler

from common.engine.run.early_stop import StopEarly
from common.errors import ConfigError


def run(scores, patience, *, state=None, start=0, epochs=20):
    """A trainer of which each epoch is validated with the next of ``scores``; returns its last epoch and the state."""
    stop = StopEarly(patience=patience)
    trainer = Engine(lambda e, b: None)
    evaluator = SupervisedEvaluator(torch.device("cpu"), [{"image": torch.zeros(1, 1)}], torch.nn.Identity())

    def score(engine):
        engine.state.metrics["dice"], engine.state.key_metric_name = scores[trainer.state.epoch - 1], "dice"

    evaluator.add_event_handler(Events.EPOCH_COMPLETED, score)
    stop.attach(evaluator)
    if start:

        def restore(engine):
            engine.state.epoch = engine.state.iteration = start
            stop.load_state_dict(state)

        trainer.add_event_handler(Events.STARTED, restore)
    stop.attach(trainer)
    ValidationHandler(interval=1, validator=evaluator).attach(trainer)
    trainer.run([0], max_epochs=epochs)
    return trainer.state.epoch, stop.state_dict()


SCORES = [0.1, 0.3, 0.2, 0.3, 0.4, 0.4, 0.1, 0.0, 0.5] + [0.0] * 20


def naive(scores, patience):
    best, waited = scores[0], 0
    for epoch, score in enumerate(scores[1:], 2):
        best, waited = (score, 0) if score > best else (best, waited + 1)
        if waited == patience:
            return epoch
    return None


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_stops_after_that_many_validations_without_a_new_best(patience):
    assert run(SCORES, patience)[0] == naive(SCORES, patience)


def test_none_never_stops():
    assert run(SCORES, None)[0] == 20


@pytest.mark.parametrize("cut", [1, 3, 5, 6, 7])
def test_an_interrupted_run_counts_on(cut):
    _, state = run(SCORES, 3, epochs=cut)
    assert run(SCORES, 3, state=state, start=cut)[0] == naive(SCORES, 3)


def test_a_stopped_run_stays_stopped():
    epoch, state = run(SCORES, 2)
    assert run(SCORES, 2, state=state, start=epoch)[0] == epoch


def test_refusals():
    with pytest.raises(ConfigError):
        StopEarly(patience=0)
    evaluator = SupervisedEvaluator(torch.device("cpu"), [{"image": torch.zeros(1, 1)}], torch.nn.Identity())
    StopEarly(patience=1).attach(evaluator)
    with pytest.raises(ConfigError, match="does not know the training"):
        evaluator.run()
