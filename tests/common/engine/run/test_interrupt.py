"""A first signal waits for what is being written; the kills of whole runs are in tests/robustness."""

import contextlib
import os
import signal
import threading

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


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_does_not_wait(installed, number, status, monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with pytest.raises(SystemExit), installed.protected():
        installed._on_signal(number, None)
        assert not ended, "the first one waits"
        with contextlib.suppress(SystemExit):
            installed._on_signal(number, None)
    assert ended == [status]


def test_a_worker_leaves_ctrl_c_to_the_main_process_and_ends_by_a_kill(installed, monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(installed, "_owner", os.getpid() + 1)
    installed._on_signal(signal.SIGINT, None)
    assert ended == []
    installed._on_signal(signal.SIGTERM, None)
    assert ended == [143]


def test_only_the_main_thread_takes_over_and_only_once():
    before = signal.getsignal(signal.SIGTERM)
    other = Interrupts()
    thread = threading.Thread(target=other.install)
    thread.start()
    thread.join()
    other.uninstall()
    assert signal.getsignal(signal.SIGTERM) == before, "neither taken nor given back by who is no owner"


def test_what_was_protected_without_a_signal_ends_as_it_is(installed):
    with installed.protected():
        pass
    assert installed._depth == 0 and installed._pending == 0
