"""How long a training still takes, and what is told of it without a terminal."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from common.engine.monitor.progress import Progress, remaining_seconds


def engine(**state: Any) -> Any:
    plain = {"iteration": 0, "epoch": 1, "max_epochs": 4, "epoch_length": 5, "output": {"loss": 1.0}}
    return SimpleNamespace(state=SimpleNamespace(**{**plain, **state}))


def test_what_is_left_goes_on_as_what_is_done() -> None:
    assert remaining_seconds(30.0, 10, 5) == 15 and remaining_seconds(30.0, 0, 5) is None
    assert remaining_seconds(30.0, 1, 0) == 0


def test_only_the_steps_of_this_process_are_counted() -> None:
    now = iter([100.0, 130.0, 131.0, 200.0])
    one = Progress(terminal=False, clock=lambda: next(now))
    one._epoch_started(engine(iteration=5))
    assert one.eta(engine(iteration=10)) == 30 / 5 * 10
    assert one.eta(engine(iteration=10, planned_steps=12)) == pytest.approx(31 / 5 * 2)
    assert one.eta(engine(iteration=30)) == 0, "more steps than were planned"
    one._epoch_started(engine(iteration=10))
    assert one._first == 5, "an epoch that begins is no beginning"
    for unknown in ({"epoch_length": None}, {"max_epochs": None}):
        assert one.eta(engine(**unknown)) is None


def test_an_epoch_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    now = iter([0.5, 60.5])
    one = Progress(terminal=False, clock=lambda: next(now))
    one._epoch_started(engine())
    for number, output in enumerate(({"loss": 1.0}, [{"loss": 3.0}], {}, None, []), 1):
        one._iteration(engine(iteration=number, output=output))
    with caplog.at_level(logging.INFO):
        one._epoch_completed(engine(iteration=5, best_metric_epoch=1, best_metric=0.51239))
    assert caplog.messages == ["epoch 1/4: loss 2.0000, best 0.5124, 03:00 left"]
    one._epoch_started(engine(iteration=5))
    assert one._text(engine(best_metric_epoch=0, best_metric=0.5)) == "" == one._text(engine())


def test_who_is_quiet_listens_to_nothing() -> None:
    heard: list[Any] = []
    trainer: Any = SimpleNamespace(add_event_handler=lambda *given: heard.append(given))
    Progress(quiet=True).attach(trainer)
    assert not heard
    Progress(terminal=False).attach(trainer)
    assert len(heard) == 4
