"""The interpreter of the tests' commands behaves as a real one in all that a command can see."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.warm_python import folder_of_servers, python, start

pytestmark = pytest.mark.skipif(folder_of_servers() is None, reason="there can be no servers here")
SEEN = """
import json, os, sys
print(json.dumps([__name__, sys.argv, sys.path, os.getcwd(), dict(os.environ), sys.stdin.read(), sys.flags.utf8_mode,
                  sys.stdout.encoding, sys.stdout.line_buffering, sys.stderr.errors, sys.dont_write_bytecode,
                  [m for m in sys.modules if m.split(".")[0] in ("common", "tools", "tests")]]))
"""


def run(interpreter: str, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([interpreter, *words], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]


def both(*words: str, **options: object) -> list[subprocess.CompletedProcess[str]]:
    return [run(interpreter, *words, **options) for interpreter in (sys.executable, python())]


@pytest.mark.parametrize("kind", ["-c", "-m", "file", "-u"])
def test_a_command_sees_what_a_real_interpreter_shows_it(kind: str, tmp_path: Path) -> None:
    (tmp_path / "seen.py").write_text(SEEN)
    words = {"-c": ("-c", SEEN), "-m": ("-m", "seen"), "file": ("seen.py",), "-u": ("-u", "seen.py")}[kind]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"here{os.pathsep}/there", "OWN": "ä ö", "LANG": "C.UTF-8"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "1"} if kind == "-m" else {}
    options = {"cwd": tmp_path, "env": {**environment, "CUDA_VISIBLE_DEVICES": ""}, "input": "a line\n"}
    real, warm = both(*words, "--an option", "x", **options)
    assert real.returncode == warm.returncode == 0, warm.stderr
    assert json.loads(warm.stdout) == json.loads(real.stdout)


@pytest.mark.parametrize(
    "code",
    ["raise SystemExit(7)", "raise SystemExit('why')", "raise SystemExit", "import os; os.abort()", "1 / 0",
     "import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "import os, signal; os.kill(os.getpid(), 9)",
     # a process that was started in the background may ignore it
     "import os, signal as s; s.signal(s.SIGINT, s.default_int_handler); os.kill(os.getpid(), s.SIGINT)",
     "import atexit, threading, time; atexit.register(print, 'end'); "
     "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start(); print('main')"],
)  # fmt: skip
def test_a_command_ends_as_in_a_real_interpreter(code: str) -> None:
    real, warm = both("-c", code)
    assert (warm.returncode, warm.stdout) == (real.returncode, real.stdout)
    assert warm.stderr.splitlines()[-1:] == real.stderr.splitlines()[-1:]


def test_no_two_commands_draw_the_same() -> None:
    code = "import random, numpy, torch; print(random.random(), numpy.random.rand(), torch.rand(1).item())"
    one, two = (run(python(), "-c", code).stdout.split() for _ in range(2))
    assert len(one) == 3 and not set(one) & set(two)


def test_what_a_command_starts_is_warm_and_what_cannot_be_is_real() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:], '-c', 'import sys; print({})'])"
    loaded = code.format('"torch" in sys.modules')
    assert run(python(), "-c", loaded).stdout.strip() == "True"
    assert run(python(), "-c", loaded, "-I").stdout.strip() == "False"
    seeded = {**os.environ, "PYTHONHASHSEED": "5"}
    real, warm = both("-c", "import sys; print(hash('a'), 'torch' in sys.modules)", env=seeded)
    assert real.stdout == warm.stdout and warm.stdout.endswith("False\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_command(number: int) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "try: print('ready', flush=True), time.sleep(60)\n"
        "except KeyboardInterrupt: sys.exit(6)\n"
    )
    with subprocess.Popen([python(), "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(20) == (5 if number == signal.SIGTERM else 6)


def test_a_command_that_is_killed_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = f"import os, time; open({str(file)!r} + '.new', 'w').write(str(os.getpid()));" \
           f"os.rename({str(file)!r} + '.new', {str(file)!r}); time.sleep(60)"  # fmt: skip
    process = start([python(), "-c", code])
    while not file.exists():
        assert process.poll() is None
    assert int(file.read_text()) == process.pid
    process.send_signal(signal.SIGKILL)
    assert process.wait() == process.poll() == -signal.SIGKILL
    assert not Path(f"/proc/{process.pid}").exists()
    file.unlink()
    with subprocess.Popen([python(), "-c", code]) as other:  # killed with the executable that stands for it
        while not file.exists():
            assert other.poll() is None
        other.kill()
    run(python(), "-c", "pass"), run(python(), "-c", "pass")
    assert not Path(f"/proc/{file.read_text()}").exists()
