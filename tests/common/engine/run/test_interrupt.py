"""A first signal waits for what is being written; the kills of whole runs are in tests/robustness."""

import os
import signal

import pytest

from common.engine.run.interrupt import Interrupts


@pytest.fixture
def installed():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    interrupts = Interrupts()
    interrupts.install()
    yield interrupts
    interrupts.uninstall()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_at_once(installed, number, status):
    with pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), number)
    assert ended.value.code == status


def test_a_signal_waits_for_the_outermost_writing(installed):
    written = []
    with pytest.raises(SystemExit) as ended, installed.protected():
        with installed.protected():
            os.kill(os.getpid(), signal.SIGTERM)
            written.append("inner")
        written.append("outer")
    assert ended.value.code == 143 and written == ["inner", "outer"]


def test_handlers_are_given_back(installed):
    assert signal.getsignal(signal.SIGTERM) == installed._on_signal
    installed.uninstall()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
