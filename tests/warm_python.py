"""``python()`` is an interpreter that has MONAI imported already: an executable to type commands with, as any other.

The executable hands its arguments, folder, environment and streams to a :mod:`warm_server`, passes signals on and ends
with the command's status. ``sys.executable`` of the command is that executable, so that what the command starts is
quick, too. Two servers share the work, so that two runs of one test may differ in the order of their sets, as two real
interpreters do. :func:`start` is for a process that a test wants to kill: its ``pid`` is the command's own.

Where there can be no server (another system than Linux, ``AMALGAM_WARM=0``) ``python()`` is ``sys.executable``.
"""

# ruff: noqa: PTH100, PTH101, PTH103, PTH105, PTH109, PTH116, PTH118, PTH120, PTH123
# the executable has to start quickly: no pathlib, and subprocess and tempfile only where tests use this module
from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SERVERS = ("a", "b")
HERE = os.path.dirname(os.path.abspath(__file__))

EXECUTABLE = """#!{python} -IS
import sys
sys.path.insert(0, {here!r})
from warm_python import main
main({folder!r}, {python!r}, sys.argv[1:])
"""


class Command:
    """A command that a server runs.

    Args:
        address: the server's socket.
        words: the command, its interpreter left out.
        streams: descriptors of its standard streams.
        cwd, env: its folder and environment, by default those of this process.
        executable: what it has as ``sys.executable``.
    """

    def __init__(self, address, words, streams, *, cwd=None, env=None, executable):
        content = {"argv": words, "cwd": os.fspath(cwd or os.getcwd()), "env": dict(os.environ if env is None else env)}
        data = json.dumps({**content, "executable": executable}).encode()
        self.returncode = None
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(address)
        socket.send_fds(self.connection, [len(data).to_bytes(8, "big")], streams)
        self.connection.sendall(data)
        self._text = b""
        self.pid = self._line()  # None: wants a real interpreter

    def _line(self):
        while b"\n" not in self._text:
            part = self.connection.recv(64)
            if not part:
                raise RuntimeError("the server of the tests' commands is gone")
            self._text += part
        line, self._text = self._text.split(b"\n", 1)
        return None if line == b"real" else int(line)

    def wait(self):
        """Its exit status; negative: killed by that signal."""
        if self.returncode is None:
            self.returncode = self._line()
            self.connection.close()
        return self.returncode

    def poll(self):
        """The exit status, None while it runs."""
        if self.returncode is None:
            self.connection.setblocking(False)
            try:
                self.returncode = self._line()
                self.connection.close()
            except BlockingIOError:
                return None
            finally:
                if self.returncode is None:
                    self.connection.setblocking(True)
        return self.returncode

    def send_signal(self, number):
        """Send a signal to the command itself."""
        if self.poll() is None:
            os.kill(self.pid, number)


def folder_of_servers():
    """The folder that the workers of one test session share; None where there are no servers."""
    executable = " " not in sys.executable and len(sys.executable) < 120  # as a script's first line
    if os.environ.get("AMALGAM_WARM") == "0" or not hasattr(os, "pidfd_open") or not executable:
        return None
    import tempfile

    session = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"{os.getpid()}"
    folder = os.path.join(tempfile.gettempdir(), f"amalgam-{os.getuid()}-{session}")
    return folder if len(folder) < 90 else None  # a socket's address has 107 bytes


_connected = {}


def python():
    """Path of the executable; the first call starts the servers and waits for them."""
    folder = folder_of_servers()
    if folder is None:
        return sys.executable
    path = os.path.join(folder, "python")
    if len(_connected) < len(SERVERS):
        _connect(folder, path)
    return path


def _connect(folder, path):
    import fcntl

    os.makedirs(folder, mode=0o700, exist_ok=True)
    if os.stat(folder).st_uid != os.getuid():
        raise RuntimeError(f"{folder} is somebody else's; set AMALGAM_WARM=0 or TMPDIR")
    with open(os.path.join(folder, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(f"{path}.new", "w") as file:
            file.write(EXECUTABLE.format(python=sys.executable, here=HERE, folder=folder))
        os.chmod(f"{path}.new", 0o700)
        os.replace(f"{path}.new", path)
        started = [_start_server(folder, name) for name in SERVERS if not _join(folder, name)]
        deadline = time.monotonic() + 300
        while not all(name in _connected or _join(folder, name) for name in SERVERS):
            if time.monotonic() > deadline or any(s.poll() is not None for s in started):
                raise RuntimeError(f"no server for the tests' commands; read {folder}/*.log, or set AMALGAM_WARM=0")
            time.sleep(0.05)


def _start_server(folder, name):
    import subprocess

    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    words = [sys.executable, os.path.join(HERE, "warm_server.py"), os.path.join(folder, name)]
    with open(os.path.join(folder, f"{name}.log"), "w") as log:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                                env={**environment, "OMP_NUM_THREADS": "1"}, start_new_session=True)  # fmt: skip


def _join(folder, name):
    """Keep a connection to a server, which stays as long as somebody is connected."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(os.path.join(folder, name))
    except OSError:
        connection.close()
        return False
    _connected[name] = connection
    return True


def start(words, *, cwd=None, env=None):
    """A command without streams that has its own ``pid``; ``words[0]`` has to be ``python()``."""
    import subprocess

    folder = folder_of_servers()
    if folder is not None:
        with open(os.devnull, "r+b") as nothing:
            command = _command(folder, words[1:], [nothing.fileno()] * 3, words[0], cwd=cwd, env=env)
        if command is not None:
            return command
        words = [sys.executable, *words[1:]]
    return subprocess.Popen(words, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _command(folder, words, streams, executable, **place):
    """The running command by one of the servers; None for one that needs a real interpreter."""
    first = os.getpid() % len(SERVERS)
    for name in (SERVERS[first], *SERVERS[:first], *SERVERS[first + 1 :]):
        try:
            command = Command(os.path.join(folder, name), words, streams, executable=executable, **place)
        except (FileNotFoundError, ConnectionRefusedError):
            continue
        return command if command.pid is not None else None
    return None


def main(folder, interpreter, words):
    """What the executable does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # until there is somebody to pass them on to
    command = _command(folder, words, [0, 1, 2], os.path.join(folder, "python"))
    if command is not None:
        for number in PASSED_ON:
            signal.signal(number, lambda got, frame: _pass_on(command.pid, got))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    if command is None:
        os.execv(interpreter, [interpreter, *words])
    status = command.wait()
    if status >= 0:
        sys.exit(status)
    if -status not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)


def _pass_on(pid, number):
    with contextlib.suppress(ProcessLookupError):  # it has ended, and its status is on the way
        os.kill(pid, number)
