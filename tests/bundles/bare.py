"""Runs a packed bundle as a stranger has it: another folder, no repository, only the packages that its metadata name.

Executed as a script, it is that environment: ``python -I bare.py FOLDER MODULE ARGUMENTS...``. ``FOLDER`` is a packed
bundle, or several joined by ``os.pathsep``; ``MODULE`` is run as ``python -m`` runs it, ``-c`` takes code instead.
"""

import importlib.metadata
import json
import os
import re
import runpy
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path


def run(folder, module, *arguments, cwd="/"):
    """The finished process; ``folder`` may be several."""
    folders = os.pathsep.join(map(str, folder)) if isinstance(folder, (list, tuple)) else str(folder)
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT")
    environment = {k: os.environ[k] for k in kept if k in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-I", __file__, folders, module, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def done(folder, module, *arguments, cwd="/"):
    result = run(folder, module, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stdout[-1500:] + result.stderr[-4000:]
    return result


def _named(folder):
    meta = json.loads((Path(folder) / "configs" / "metadata.json").read_text(encoding="utf-8"))
    return {"monai", "torch", "numpy", *meta["required_packages_version"]}


def _plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def permitted(names):
    """These packages and all that they require, without extras."""
    found, waiting = set(), [_plain(n) for n in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += [_plain(re.match(r"[\w.-]+", r).group()) for r in requirements if "extra ==" not in r]
    return found


class Bare:
    """The ordinary search for modules, which finds nothing of what a bare environment has not."""

    def __init__(self, names):
        allowed = permitted(names)
        installed = importlib.metadata.packages_distributions()
        self.absent = {m for m, owners in installed.items() if not {_plain(o) for o in owners} & allowed}
        self.absent |= {"common", "tools", "tests"}

    def find_distributions(self, *arguments, **options):
        return PathFinder.find_distributions(*arguments, **options)

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in self.absent else PathFinder.find_spec(name, path, target)


if __name__ == "__main__":
    _, where, what, *rest = sys.argv
    sys.dont_write_bytecode = True
    sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]
    bare = Bare({n for f in where.split(os.pathsep) for n in _named(f)})
    sys.meta_path[:] = [bare if f is PathFinder else f for f in sys.meta_path]
    if what == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<code>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [what, *rest]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
