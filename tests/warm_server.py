"""A Python that has MONAI imported already and forks itself for every command that it is asked to run.

``import monai.bundle`` takes eight seconds, and the suite types some hundred commands that begin with it. A command
that this process runs is the same in all that a test can see: arguments, folder, environment, search path, streams,
signals, exit status, a hash seed and random numbers of its own. Modules are those that ``import monai.bundle`` loads
and nothing of this repository, which every command imports anew. What cannot be the same is refused, and
:mod:`warm_python` starts a real interpreter instead.

Run as ``python warm_server.py SOCKET``; ends when nobody is connected any more.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import types
import warnings
from pathlib import Path

KNOWN = {"PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
IDLE = 30.0  # seconds that a server waits for its first connection


class Request:
    """What an interpreter is started with; ``reason`` says why it has to be a real one."""

    def __init__(self, content: dict, streams: list[int]) -> None:
        self.words: list[str] = content["argv"]
        self.folder: str = content["cwd"]
        self.environment: dict[str, str] = content["env"]
        self.executable: str = content["executable"]
        self.streams = streams
        self.unbuffered = bool(self.environment.get("PYTHONUNBUFFERED"))
        self.filters: list[str] = []
        self.reason = self._read_options()

    def _read_options(self) -> str:
        words = list(self.words)
        while words and words[0] in ("-u", "-W"):
            if words.pop(0) == "-u":
                self.unbuffered = True
            else:
                self.filters.append(words.pop(0))
        if len(words) > 1 and words[0] in ("-m", "-c"):
            self.kind, self.what, self.arguments = words[0], words[1], words[2:]
        elif words and words[0].endswith(".py"):
            self.kind, self.what, self.arguments = "file", words[0], words[1:]
        else:
            return "an option of the interpreter"
        others = {k for k in self.environment if k.startswith("PYTHON")} - KNOWN
        if others:
            return "variables of the interpreter: " + ", ".join(sorted(others))
        if self.environment.get("CUDA_VISIBLE_DEVICES") != "" and Path("/dev/nvidiactl").exists():
            return "a GPU may be wanted"
        return ""

    def path(self, installed: list[str]) -> list[str]:
        """``sys.path`` as a new interpreter has it."""
        first = {"-m": self.folder, "-c": "", "file": str(Path(self.folder, self.what).resolve().parent)}[self.kind]
        given = self.environment.get("PYTHONPATH", "").split(os.pathsep) if self.environment.get("PYTHONPATH") else []
        return [first, *(str(Path(self.folder, p)) for p in given), *installed]


def become(request: Request, installed: list[str]) -> None:
    """Turn this fork into the interpreter that was asked for."""
    os.setpgid(0, 0)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request.folder)
    os.environ.clear()
    os.environ.update(request.environment)
    for number, stream in enumerate(request.streams):
        os.dup2(stream, number)
        os.close(stream)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
        if number == 1:
            stream.reconfigure(line_buffering=os.isatty(1), write_through=request.unbuffered)
        elif number == 2:
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.path[:] = request.path(installed)
    sys.executable = request.executable
    sys.dont_write_bytecode = bool(request.environment.get("PYTHONDONTWRITEBYTECODE"))
    sys.orig_argv = [request.executable, *request.words]
    for text in request.filters:
        warnings._setoption(text)  # type: ignore[attr-defined]
    importlib.invalidate_caches()
    fresh_randomness()
    threads = int(request.environment.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    sys.modules["torch"].set_num_threads(threads)


def fresh_randomness() -> None:
    """What a new interpreter draws from the system."""
    random.seed()
    sys.modules["numpy"].random.seed()
    sys.modules["torch"].default_generator.seed()


def execute(request: Request) -> None:
    """Run the command in a ``__main__`` of its own."""
    sys.modules["__main__"] = types.ModuleType("__main__")
    main = sys.modules["__main__"].__dict__
    main["__builtins__"] = __builtins__
    if request.kind == "-m":
        sys.argv = ["-m", *request.arguments]
        runpy._run_module_as_main(request.what)  # type: ignore[attr-defined]  # what the interpreter calls for -m
    elif request.kind == "-c":
        sys.argv = ["-c", *request.arguments]
        exec(compile(request.what, "<string>", "exec"), main)
    else:
        sys.argv = [request.what, *request.arguments]
        main["__file__"] = request.what
        exec(compile(Path(request.what).read_bytes(), request.what, "exec"), main)


def finish(request: Request) -> int:
    """Run the command and what an interpreter does at its end; the exit status."""
    status = 0
    try:
        execute(request)
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            status = stop.code or 0
        else:
            print(stop.code, file=sys.stderr)
            status = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
        if isinstance(error, KeyboardInterrupt):  # a real interpreter dies of it
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            leave()
            os.kill(os.getpid(), signal.SIGINT)
    leave()
    return status & 0xFF


def leave() -> None:
    """Wait for threads, call what was registered for the end, write what is buffered."""
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()


def receive(connection: socket.socket) -> Request:
    """One request: its length, its content, and the three standard streams beside it."""
    head, sent, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(3 * 4))
    streams = array.array("i")
    for _, _, data in sent:
        streams.frombytes(data)
    size, content = int.from_bytes(head, "big"), b""
    while len(content) < size:
        content += connection.recv(size - len(content))
    return Request(json.loads(content), list(streams))


class Server:
    """Forks for every request; a command whose client is gone is killed as the client was."""

    def __init__(self, address: Path, installed: list[str]) -> None:
        self.installed, self.listener = installed, socket.socket(socket.AF_UNIX)
        unready = address.with_suffix(".unready")
        unready.unlink(missing_ok=True)
        self.listener.bind(str(unready))
        self.listener.listen(64)
        unready.rename(address)
        self.waiting: dict[int, socket.socket] = {}  # connections that asked for nothing yet
        self.running: dict[int, tuple[int, socket.socket, int]] = {}  # by pidfd: process, its client
        self.clients: dict[int, int] = {}  # pidfd by the client's descriptor

    def serve(self) -> Request | None:
        """Until nobody is connected (None), or in a fork the request to run."""
        first = True
        while first or self.waiting or self.running:
            poll = select.poll()
            for number in (self.listener.fileno(), *self.waiting, *self.running, *self.clients):
                poll.register(number, select.POLLIN)
            ready = [number for number, _ in poll.poll(IDLE * 1000)]
            if not ready and first:
                return None
            first = False
            for number in sorted(ready, key=self._order):
                if number == self.listener.fileno():
                    connection, _ = self.listener.accept()
                    self.waiting[connection.fileno()] = connection
                elif number in self.running:
                    self._ended(number)
                elif number in self.clients:
                    self._client(number)
                elif number in self.waiting:
                    request = self._asked(number)
                    if request is not None:
                        return request
        return None

    def _order(self, number: int) -> int:
        """Ends first, so that no request is begun beside a process that was to be gone before."""
        return 0 if number in self.running else 1 if number in self.clients else 2

    def _asked(self, number: int) -> Request | None:
        connection = self.waiting.pop(number)
        try:
            request = receive(connection)
        except (OSError, ValueError):
            connection.close()
            return None
        if not request.streams or request.reason:
            connection.sendall(b"real\n")
            connection.close()
            for stream in request.streams:
                os.close(stream)
            return None
        pid = os.fork()
        if pid == 0:
            for other in (self.listener, connection, *self.waiting.values(), *(c for _, c, _ in self.running.values())):
                other.close()
            for pidfd in self.running:
                os.close(pidfd)
            return request
        for stream in request.streams:
            os.close(stream)
        pidfd = os.pidfd_open(pid)
        self.running[pidfd], self.clients[number] = (pid, connection, number), pidfd
        with contextlib.suppress(OSError):
            connection.sendall(b"%d\n" % pid)
        return None

    def _ended(self, pidfd: int) -> None:
        pid, connection, number = self.running.pop(pidfd)
        self.clients.pop(number, None)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(pidfd)
        with contextlib.suppress(OSError):
            connection.sendall(b"%d\n" % status)
        connection.close()

    def _client(self, number: int) -> None:
        pidfd = self.clients[number]
        if pidfd in self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.running[pidfd][0], signal.SIGKILL)
            self._ended(pidfd)


def main() -> None:
    address, installed = Path(sys.argv[1]), sys.path[1:]
    sys.path[:] = installed
    os.environ.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    importlib.import_module("monai.bundle")
    gc.collect()
    gc.freeze()  # the forks leave these pages alone
    request = Server(address, installed).serve()
    if request is None:
        address.unlink(missing_ok=True)
        if not any(p.is_socket() for p in address.parent.iterdir()):
            shutil.rmtree(address.parent, ignore_errors=True)
        return
    status = 1
    try:
        become(request, installed)
        status = finish(request)
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
