"""Nothing that a process prints or logs is a terminal's command, whoever prints it."""

import contextlib
import io
import logging
import sys

from tqdm import tqdm

from common.engine.run import start
from common.visible_output import VisibleStream, make_visible, visible_records

HOSTILE = "a\x1b[2J\x1b]0;x\x07b\u202ec\rd\x9b31m"
BAD = set("\x1b\x07\x9b\u202e")


@contextlib.contextmanager
def place():
    """Streams of our own, and the loggers' factory back in its place afterwards."""
    out, err = io.StringIO(), io.StringIO()
    before = logging.getLogRecordFactory()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield out, err
        finally:
            logging.setLogRecordFactory(before)


def test_what_is_printed_logged_and_warned_of_is_visible():
    with place() as streams:
        out, err = streams
        log = logging.getLogger("tests.visible")
        handler = logging.StreamHandler(err)  # made before, as MONAI's are
        log.addHandler(handler)
        try:
            make_visible()
            make_visible()
            print(HOSTILE)
            sys.stdout.writelines([HOSTILE, "\n"])
            print(HOSTILE, file=sys.stderr)
            log.error("%s", HOSTILE)
            log.error(HOSTILE)
            try:
                raise ValueError(HOSTILE)
            except ValueError:
                log.exception("it ended")
                sys.__excepthook__(*sys.exc_info())
        finally:
            log.removeHandler(handler)
        text = out.getvalue() + err.getvalue()
        assert not BAD & set(text) and "\r" not in text
        assert text.count("\\x1b[2J") == 7 and out.getvalue().count("\\x1b[2J") == 2
        assert isinstance(sys.stdout.stream, io.StringIO)  # once, however often it is asked for


def test_a_progress_bar_still_moves():
    with place() as streams:
        make_visible()
        with tqdm(total=2, file=sys.stderr, desc=HOSTILE.replace("\r", ""), mininterval=0) as bar:
            with tqdm(total=2, file=sys.stderr, position=1, mininterval=0) as second:
                second.update(1)
            bar.update(2)
        text = streams[1].getvalue()
        assert "\r" in text and "\x1b[A" in text and "\\x1b[2J" in text
        assert not BAD & set(text.replace("\x1b[A", ""))


def test_moves_are_for_errors_alone_and_at_the_beginning():
    for moves, shown in ((True, "\rx\\ry"), (False, "\\rx\\ry")):
        stream = io.StringIO()
        assert VisibleStream(stream, moves=moves).write("\rx\ry") == 4 and stream.getvalue() == shown


def test_a_record_that_cannot_be_made_is_left_to_its_handler():
    factory = visible_records(logging.LogRecord)
    assert visible_records(factory) is factory
    assert factory("n", 20, "p", 1, "%d", ("x",), None).msg == "%d"


def test_a_training_starts_with_it(monkeypatch):
    with place() as streams:
        monkeypatch.setattr(start, "read_command", lambda: object())
        monkeypatch.setattr(start, "check_overrides", lambda command: None)
        monkeypatch.setattr(start.interrupts, "install", lambda: None)
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        start.start_run(seed=None)
        print(HOSTILE)
        assert "\\x1b[2J" in streams[0].getvalue() and not BAD & set(streams[0].getvalue())
