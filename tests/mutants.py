"""``make mutants N=50 SEED=0``: which small faults in ``common`` and ``tools`` do the tests notice?

Faults are drawn by chance, one at a time, in a copy of the repository; the tests that mirror the module, and those that
import it, run in a fork of this process, which has MONAI imported already. What was found stays in ``build/``: typed
again, the command goes on. ``AT=common/card.py:31`` tries every fault of a line (or of a file; several with commas).

A fault is killed when a test fails that passes without it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from tests.architecture.tree import CODE, imports

ROOT = Path(__file__).resolve().parents[1]
COPIED = ["common", "tools", "tests", "bundles", "LICENSE", "Makefile", "setup.cfg", "pyproject.toml", ".ruff.toml",
          *(p.name for p in ROOT.glob("*.md")), *(p.name for p in ROOT.glob("requirements*.txt"))]  # fmt: skip
FILES = 8  # that are tried for one fault
SECONDS = 900  # that all of them may take
WARM = ("monai.bundle", "ignite.engine", "matplotlib.figure", "matplotlib.backends.backend_agg", "nibabel", "pandas",
        "scipy.stats", "skimage.measure", "jinja2", "pydicom", "blosc2", "SimpleITK", "timm",
        "segment_anything")  # fmt: skip
SWAPS = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"), ast.Eq: ("==", "!="),
         ast.NotEq: ("!=", "=="), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"), ast.Is: ("is", "is not"),
         ast.IsNot: ("is not", "is"), ast.And: ("and", "or"), ast.Or: ("or", "and"), ast.Add: ("+", "-"),
         ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "/"),
         ast.Mod: ("%", "*")}  # fmt: skip


class Mutant(NamedTuple):
    """``file[start:end]`` (characters) becomes ``new``."""

    file: str
    line: int
    start: int
    end: int
    old: str
    new: str

    def key(self, text: str) -> str:
        return hashlib.sha256(f"{self}{text}".encode()).hexdigest()[:16]


class Source:
    """A module's text by the positions of its syntax tree, whose columns count bytes."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text, self.starts = file, text, [0]
        for line in text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line.encode()))

    def at(self, line: int, column: int) -> int:
        return len(self.text.encode()[: self.starts[line - 1] + column].decode())

    def whole(self, node: Any, new: str) -> Mutant:
        """Of a node: ``{}`` in ``new`` stands for its text."""
        start, end = self.at(node.lineno, node.col_offset), self.at(node.end_lineno, node.end_col_offset)
        old = self.text[start:end]
        return Mutant(self.file, node.lineno, start, end, old, new.replace("{}", old))

    def between(self, left: Any, right: Any, operator: ast.AST) -> Iterator[Mutant]:
        """Of the operator between two nodes."""
        old, new = SWAPS.get(type(operator), ("", ""))
        begin, end = self.at(left.end_lineno, left.end_col_offset), self.at(right.lineno, right.col_offset)
        words = re.escape(old).replace(r"\ ", r"\s+")
        found = re.search(rf"(?<![\w<>=!*/]){words}(?![\w<>=*/])", self.text[begin:end]) if old else None
        if found and "#" not in self.text[begin:end]:
            start, stop = begin + found.start(), begin + found.end()
            yield Mutant(self.file, left.end_lineno, start, stop, self.text[start:stop], new)


def mutants_of(file: str, text: str) -> Iterator[Mutant]:
    """All faults of one module; annotations, documents and ``__all__`` have none."""
    source = Source(file, text)
    for node in code(ast.parse(text)):
        if isinstance(node, ast.Compare):
            for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                yield from source.between(left, right, operator)
        elif isinstance(node, ast.BoolOp):
            for left, right in zip(node.values, node.values[1:], strict=False):
                yield from source.between(left, right, node.op)
        elif isinstance(node, ast.BinOp):
            yield from source.between(node.left, node.right, node.op)
        elif isinstance(node, ast.If | ast.IfExp):
            yield source.whole(node.test, "not ({})")
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            yield source.whole(node, repr(not node.value if isinstance(node.value, bool) else node.value + 1))


def code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that are executed for what they give."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            names = [t.id for t in getattr(child, "targets", []) if isinstance(t, ast.Name)]
            if isinstance(child, ast.AST) and "__all__" not in names and not isinstance(child, ast.JoinedStr):
                yield child
                yield from code(child)


def drawn(number: int, seed: int, at: str = "") -> list[Mutant]:
    """The faults of a seed, or all of a place."""
    found = []
    for path in sorted(p for folder in ("common", "tools") for p in (ROOT / folder).rglob("*.py")):
        found += sorted(set(mutants_of(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))))
    if at:
        places = set(at.split(","))
        return [m for m in found if places & {m.file, f"{m.file}:{m.line}"}]
    return random.Random(seed).sample(found, min(number, len(found)))


@cache
def tests() -> dict[str, str]:
    """The files of tests with their texts, as they are at the first call: the copy has no later ones."""
    found = sorted((ROOT / "tests").rglob("test_*.py"))
    return {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in found}


@cache
def used() -> dict[str, list[str]]:
    """The modules that import each module."""
    users: dict[str, dict[str, None]] = {}
    for module, path in CODE.items():
        for found in imports(path, module):
            users.setdefault(found.module, {})[module] = None
    return {module: list(those) for module, those in users.items()}


def mirror(file: str) -> str:
    """The test file of a module, which may not be there."""
    return "tests/" + Path(file).with_name(f"test_{Path(file).name}").as_posix()


@cache
def chosen(file: str) -> list[str]:
    """The test that mirrors a module, then those that name it, those of what imports it, those beside it.

    Of several the nearest comes first: who tests the same package looks closer than a test of a whole bundle does.
    """
    module = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    users = used().get(module, [])
    order = [mirror(file), *_naming(module, file)]
    order += sorted((mirror(CODE[u].relative_to(ROOT).as_posix()) for u in users), key=_near(file))
    order += [t for user in users for t in _naming(user, file)]
    order += [t for t in tests() if Path(t).parent == Path(mirror(file)).parent]
    return [t for t in dict.fromkeys(order) if t in tests()][:FILES]


def _naming(module: str, file: str) -> list[str]:
    return sorted((t for t, text in tests().items() if re.search(rf"\b{re.escape(module)}\b", text)), key=_near(file))


def _near(file: str) -> Callable[[str], tuple[int, str]]:
    own = Path(mirror(file)).parent

    def far(test: str) -> tuple[int, str]:
        """Steps from folder to folder."""
        other = Path(test).parent
        shared = len(Path(os.path.commonpath([own, other])).parts)
        return len(own.parts) + len(other.parts) - 2 * shared, test

    return far


def forked(folder: Path, words: list[str], log: Path) -> int:
    """Exit status of pytest in a fork; 124: it did not end."""
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(folder)
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.path[:] = [str(folder), *(p for p in sys.path if Path(p).resolve() not in (ROOT, ROOT / "tests"))]
        for name in [n for n in sys.modules if n.split(".")[0] == "tests"]:
            del sys.modules[name]
        import pytest

        os._exit(int(pytest.main([*words, "-p", "no:cacheprovider", "-q", "--no-header", "--durations=0"])))
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 124


def judged(mutant: Mutant, folder: Path, count: int) -> tuple[str, str]:
    """``killed``, ``survived`` or ``unsound`` (the test fails anyway), and by which test."""
    path, log = folder / mutant.file, folder.with_name("log")
    text = path.read_text(encoding="utf-8")
    write(path, text[: mutant.start] + mutant.new + text[mutant.end :], 2 * count)
    try:
        first, *others = chosen(mutant.file) or ["tests"]
        for part in ([first], others):  # the mirror by itself: it kills most
            status = forked(folder, ["-x", *part], log) if part else 0
            named = re.findall(r"^(?:FAILED|ERROR) (\S+)", log.read_text(errors="replace"), re.M)
            failed = named[:1] or part[:1]
            if status not in (0, 5) and len(part) > 1:  # by itself, too
                status = forked(folder, ["-x", failed[0].split("::")[0]], log)
            if status in (0, 5):
                continue
            write(path, text, 2 * count + 1)
            again = forked(folder, ["-x", *failed], log)
            if again == 4:  # a name with a space in it is not found again
                again = forked(folder, ["-x", failed[0].split("::")[0]], log)
            return ("killed" if again == 0 else "unsound"), failed[0] + ("" if named else f" (status {status})")
        return "survived", ", ".join(chosen(mutant.file)) or "no test"
    finally:
        write(path, text, 2 * count + 1)


def write(path: Path, text: str, tick: int) -> None:
    """Write a module with a time of its own, so that no compiled file of an earlier text is taken for it."""
    path.write_text(text, encoding="utf-8")
    os.utime(path, (tick + 1_000_000_000, tick + 1_000_000_000))


def copied(folder: Path) -> None:
    """What the tests need of the repository, without weights and compiled files."""
    folder.mkdir()
    for source in (ROOT / name for name in COPIED):
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.pt", "*.pth")
            shutil.copytree(source, folder / source.name, ignore=ignored)
        else:
            shutil.copy(source, folder / source.name)


def main(number: int = 50, seed: int = 0, at: str = "") -> int:
    """Try the faults of a seed, print a table, and give 1 when fewer than 90 % were noticed."""
    sys.dont_write_bytecode = True
    session = {"PYTEST_XDIST_TESTRUNUID": f"mutants{os.getpid()}"}  # all forks use the same warm servers
    os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **session}
    for name in WARM:
        import_module(name)

    record = ROOT / "build" / f"mutants-{seed}.jsonl"
    record.parent.mkdir(exist_ok=True)
    known = {e["key"]: e for e in map(json.loads, record.read_text().splitlines())} if record.is_file() else {}
    counts = {"killed": 0, "survived": 0, "unsound": 0}
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        folder = Path(place) / "repository"
        copied(folder)
        tests()
        for count, mutant in enumerate(drawn(number, seed, at)):
            key = mutant.key((ROOT / mutant.file).read_text(encoding="utf-8"))
            if key not in known:
                verdict, by = judged(mutant, folder, count)
                known[key] = {"key": key, "verdict": verdict, "by": by}
                with record.open("a") as file:
                    file.write(json.dumps({**known[key], **mutant._asdict()}) + "\n")
            verdict, by = known[key]["verdict"], known[key]["by"]
            counts[verdict] += 1
            print(f"{verdict:9} {mutant.file}:{mutant.line}  {mutant.old!r} -> {mutant.new!r}  {by}", flush=True)
    total = counts["killed"] + counts["survived"]
    print(f"seed {seed}: {counts['killed']} of {total} killed, {counts['unsound']} unsound")
    return int(counts["killed"] < 0.9 * total)


if __name__ == "__main__":
    sys.exit(main(*(int(w) for w in sys.argv[1:3]), *sys.argv[3:]))
