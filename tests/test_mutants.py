"""The faults that `make mutants` makes, and the tests that it tries them on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import ROOT, Mutant, chosen, mutants_of

TEXT = '''"""1 < 2."""
__all__ = ["a"]


def a(x: int = 3, *, é: bool = True) -> bool:
    """Not 4."""
    if é and x not in (x,) or x - 1 < 7:  # 5
        return not x
    return f"{x + 1}" == "6"
'''


def mutated(mutant: Mutant) -> str:
    return (TEXT[: mutant.start] + mutant.new + TEXT[mutant.end :]).splitlines()[mutant.line - 1].strip()


def test_each_fault_is_one_change_of_code() -> None:
    assert sorted(mutated(m) for m in mutants_of("a.py", TEXT)) == sorted([
        "def a(x: int = 4, *, é: bool = True) -> bool:",
        "def a(x: int = 3, *, é: bool = False) -> bool:",
        "if not (é and x not in (x,) or x - 1 < 7):  # 5",
        "if é or x not in (x,) or x - 1 < 7:  # 5",
        "if é and x not in (x,) and x - 1 < 7:  # 5",
        "if é and x in (x,) or x - 1 < 7:  # 5",
        "if é and x not in (x,) or x + 1 < 7:  # 5",
        "if é and x not in (x,) or x - 2 < 7:  # 5",
        "if é and x not in (x,) or x - 1 <= 7:  # 5",
        "if é and x not in (x,) or x - 1 < 8:  # 5",
        'return f"{x + 1}" != "6"',
    ])  # fmt: skip


@pytest.mark.slow
@pytest.mark.selected
def test_the_mirror_comes_first_and_what_imports_a_module_after() -> None:
    found = chosen("common/geometry.py")
    assert found[0] == "tests/common/test_geometry.py" and len(found) > 1
    assert all((ROOT / name).is_file() for name in found)


TRY = """
import json, sys
from pathlib import Path
from tests.mutants import forked
folder = Path(sys.argv[1])
print(json.dumps([forked(folder, [name], folder / "log") for name in ("test_a.py", "test_b.py")]))
"""


@pytest.mark.slow
@pytest.mark.selected
def test_a_fork_tells_a_failing_test_from_a_passing_one(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_a():\n    assert True\n")
    (tmp_path / "test_b.py").write_text("def test_b():\n    assert False\n")
    command = [sys.executable, "-c", TRY, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [0, 1]
    assert "FAILED test_b.py::test_b" in (tmp_path / "log").read_text()
