"""SIGTERM and Ctrl-C end a run at once, but never in the middle of a checkpoint."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["Interrupts", "interrupts"]

logger = logging.getLogger(__name__)


class Interrupts:
    """Turns SIGTERM and SIGINT into ``SystemExit(143)`` and ``SystemExit(130)``, held back inside :meth:`protected`.

    The second signal always ends the process at once: files are written atomically, so that even this leaves the
    previous checkpoint whole. Data loading workers, which inherit the handlers, leave the decision to the main process.
    """

    def __init__(self) -> None:
        self._owner = 0
        self._depth = 0
        self._pending = 0
        self._count = 0

    def install(self) -> None:
        """Take over both signals; does nothing outside the main thread (MONAI Label) or when done before."""
        if threading.current_thread() is not threading.main_thread() or self._owner == os.getpid():
            return
        self._owner, self._count, self._pending = os.getpid(), 0, 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def uninstall(self) -> None:
        """Give both signals back to Python's own handlers."""
        if self._owner == os.getpid():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._owner = 0

    @contextlib.contextmanager
    def protected(self) -> Iterator[None]:
        """Finish the enclosed writing before a first signal takes effect."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self._pending and self._depth == 0:
            raise SystemExit(128 + self._pending)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        self._count += 1
        if self._depth and self._count == 1:
            self._pending = number
            logger.warning("%s: the checkpoint is being written, then the run stops", signal.Signals(number).name)
            return
        if self._count > 1:
            os._exit(128 + number)
        logger.warning("%s: stopped; the same command continues from the last checkpoint", signal.Signals(number).name)
        raise SystemExit(128 + number)


interrupts = Interrupts()
