"""The shape of the code: imports run downwards, no cycles, small files, plain names."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A module may import from its own layer and from the layers named here, never upwards.
BELOW = {
    "errors": set(),
    "ground": {"errors"},
    "middle": {"errors", "ground"},
    "experts": {"errors", "ground", "middle"},
    "engine": {"errors", "ground", "middle", "experts"},
    "methods": {"errors", "ground", "middle", "experts", "engine"},
    "tools": {"errors", "ground", "middle", "experts", "engine", "methods"},
}
PACKAGES = {"data": "middle", "layers": "middle", "losses": "middle", "backbones": "experts"}
PACKAGES |= {"engine": "engine", "methods": "methods"}
TOP = {"errors": "errors", "geometry": "ground", "labels": "ground", "prompts": "ground", "weights": "ground"}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "misc", "scripts", "common_utils"}


def sources(*folders: str) -> list[Path]:
    return sorted(p for f in folders for p in (ROOT / f).rglob("*.py") if "__pycache__" not in p.parts)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


CODE = {module_of(p): p for p in sources("common", "tools")}


def imported(path: Path, module: str, *, everywhere: bool) -> Iterator[str]:
    """Modules of this repository that ``path`` imports; ``everywhere`` includes imports inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else iter(top_level(tree.body))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            names = [f"{base}.{a.name}" if f"{base}.{a.name}" in CODE else base for a in node.names]
        else:
            continue
        yield from (n for n in names if n.split(".")[0] in ("common", "tools"))


def top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.If | ast.Try):
            yield from top_level([*node.body, *node.orelse])
        else:
            yield node


def layer(module: str) -> str | None:
    if module.startswith("tools"):
        return "tools"
    parts = module.split(".")
    if len(parts) == 1:
        return None
    if parts[1] in TOP:
        return TOP[parts[1]]
    if parts[1] in PACKAGES:
        return PACKAGES[parts[1]]
    return "experts" if parts[1].startswith("expert") else "ground"


@pytest.mark.parametrize("module", sorted(CODE))
def test_imports_run_downwards(module: str) -> None:
    own = layer(module)
    wrong = [
        name
        for name in imported(CODE[module], module, everywhere=True)
        if own is not None and layer(name) not in (None, own) and layer(name) not in BELOW[own]
    ]
    assert not wrong, f"{module} ({own}) imports upwards: {sorted(set(wrong))}"


def test_no_import_cycle() -> None:
    graph = {m: set(imported(p, m, everywhere=False)) - {m} for m, p in CODE.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, "cycle: " + " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        for name in sorted(graph.get(module, ())):
            visit(name, (*path, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_the_cycle_test_can_fail(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("from .b import x\nfrom . import c\nimport common.errors\nfrom common import labels\n")
    found = set(imported(file, "common.data.a", everywhere=False))
    assert found == {"common.data.b", "common.data", "common.errors", "common.labels"}


@pytest.mark.parametrize("path", sources("common", "tools"), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_stay_small_and_well_named(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= 350, f"{lines} lines; split it by idea"
    assert not {path.stem, path.parent.name} & FORBIDDEN_NAMES
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), "a module says in one sentence what it is"


@pytest.mark.parametrize("path", sources("common"), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_common_does_not_print(path: Path) -> None:
    calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    assert not [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


@pytest.mark.parametrize("path", sources("common"), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_objects_can_be_sent_to_workers(path: Path) -> None:
    """A lambda inside a class ends up on its objects, which then cannot be pickled (spawn); sort keys are fine."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    keys = {id(k.value) for n in ast.walk(tree) if isinstance(n, ast.Call) for k in n.keywords if k.arg == "key"}
    classes = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    assert not [n.lineno for c in classes for n in ast.walk(c) if isinstance(n, ast.Lambda) and id(n) not in keys]


def test_weights_are_never_unpickled_freely() -> None:
    pattern = re.compile(r"weights_only\s*=\s*False")
    assert not [str(p.relative_to(ROOT)) for p in sources("common", "tools") if pattern.search(p.read_text("utf-8"))]


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_machine_paths() -> None:
    pattern = re.compile(r"(?<![\w.$}/])/(?:home|work|root|Users|mnt|scratch)/[A-Za-z]")
    text = {".py", ".json", ".md", ".cfg", ".toml", ".txt", ".yml", ".yaml", ".conf", ".sh", ""}
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        if path.suffix in text and path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert not found


def test_nothing_large_is_tracked() -> None:
    large = [str(p.relative_to(ROOT)) for p in tracked() if p.stat().st_size > 1_000_000]
    assert not large


def test_bundles_hold_no_python() -> None:
    assert not [str(p) for p in (ROOT / "bundles").rglob("*.py")]


def test_top_level_is_fixed() -> None:
    allowed = {
        "bundles",
        "common",
        "tools",
        "tests",
        "README.md",
        "requirements.txt",
        "requirements-label.txt",
        "setup.cfg",
        "pyproject.toml",
    }
    allowed |= {"LICENSE", "Makefile", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
    allowed |= {".gitignore", ".pre-commit-config.yaml", ".ruff.toml", ".ci", ".github"}
    assert {p.relative_to(ROOT).parts[0] for p in tracked()} <= allowed
