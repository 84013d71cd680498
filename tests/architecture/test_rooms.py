"""Packages are rooms: plain names, one path to each thing, a test for each module, nothing that nobody reaches."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.architecture.tree import CODE, ROOT, configurations, defined, imports, named, shown, sources, tree
from tools.__main__ import COMMANDS

MODULES = {m: p for m, p in CODE.items() if p.name != "__init__.py"}
PACKAGES = {m: p for m, p in CODE.items() if p.name == "__init__.py"}
# read as files: MONAI Label runs a copy of the first one
READ_AS_FILES = {"tools.label.app": "tools/label/layout.py"}


def says_twice(path: Path) -> bool:
    """Whether a file's name begins with what its folder says already."""
    return path.stem.removeprefix("test_").startswith(f"{path.parent.name}_")


def test_no_name_says_what_its_folder_says() -> None:
    files = [p.relative_to(ROOT) for p in sources("common", "tools", "tests")]
    assert not [str(p) for p in files if says_twice(p)]


def test_the_test_of_names_can_fail() -> None:
    assert says_twice(Path("common/data/dicom/dicom_grid.py")) and says_twice(
        Path("tests/tools/chain/test_chain_run.py")
    )
    assert not says_twice(Path("common/engine/monitor/monitor.py")) and not says_twice(
        Path("tests/tools/chain/test_run.py")
    )


def test_faces_import_nothing() -> None:
    """A package that imported its modules would bring all of them into every packed bundle that needs one."""
    wrong = [shown(path) for package, path in PACKAGES.items() if list(imports(path, package))]
    assert not wrong, f"other packages import the module itself: {', '.join(wrong)}"


def unnamed(face: Path, package: str, modules: set[str]) -> list[str]:
    """What a face that is a map names and is not there, and what is there and it does not name."""
    text = ast.get_docstring(tree(face)) or ""
    on_map = set(re.findall(r":mod:`\.(\w+)`", text))
    if not text:
        return [f"{shown(face)} says nothing"]
    return [f"{shown(face)} and its folder differ in {package}.{m}" for m in sorted(on_map ^ modules)]


def test_faces_are_maps() -> None:
    wrong = []
    for package, path in PACKAGES.items():
        wrong += unnamed(path, package, {m.rpartition(".")[2] for m in MODULES if m.rpartition(".")[0] == package})
    assert not wrong, "\n".join(wrong)


def test_the_test_of_maps_can_fail(tmp_path: Path) -> None:
    face = tmp_path / "__init__.py"
    face.write_text('"""Rooms.\n\nRead :mod:`.first`, then :mod:`.second`.\n"""\n')
    assert unnamed(face, "common.x", {"first", "second"}) == []
    (wrong,) = unnamed(face, "common.x", {"first", "second", "third"})
    assert "common.x.third" in wrong
    (wrong,) = unnamed(face, "common.x", {"first"})
    assert "common.x.second" in wrong
    face = tmp_path / "silent.py"
    face.write_text('"""Rooms that it does not name."""\n')
    (wrong,) = unnamed(face, "common.x", {"first"})
    assert "common.x.first" in wrong


def test_a_thing_has_one_path() -> None:
    """What ``__all__`` lists is defined there, and a name is imported from the module that defines it."""
    offers = {m: defined(p) for m, p in CODE.items()}
    borrowed = [f"{shown(p)} offers {n!r}, which it does not define"
                for m, p in MODULES.items() for n in listed(p) if n not in offers[m]]  # fmt: skip
    files = [(p, m) for m, p in CODE.items()]
    files += [(p, ".".join(p.relative_to(ROOT).with_suffix("").parts)) for p in sources("tests")]
    borrowed += [
        f"{shown(path)}:{line} takes {name!r} from {shown(CODE[origin])}, which does not define it"
        for path, module in files
        for origin, name, line in imports(path, module)
        if name is not None and origin in CODE and name not in offers[origin]
    ]
    assert not borrowed, "\n".join(borrowed)


def listed(path: Path) -> list[str]:
    for node in tree(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


@cache
def named_by_tests() -> frozenset[str]:
    found: set[str] = set()
    for path in sources("tests"):
        if "architecture" not in path.parts:
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found |= {i.module for i in imports(path, module)} | named(path.read_text("utf-8"))
    return frozenset(found)


def test_every_module_has_a_test_or_is_named_by_one() -> None:
    own = {m: ROOT / "tests" / p.relative_to(ROOT).with_name(f"test_{p.name}") for m, p in MODULES.items()}
    wrong = [f"there is no {shown(own[m])}, and no test names {m}" for m in sorted(MODULES)
             if not own[m].is_file() and m not in named_by_tests()]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def reached(start: set[str], edges: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += edges.get(module, set())
    return found


def test_nothing_is_there_that_nobody_reaches() -> None:
    """From the commands and the configurations, by imports and by names in texts."""
    start = {f"tools.{c}.command" if f"tools.{c}" in PACKAGES else f"tools.{c}" for c in COMMANDS}
    start |= {"tools.__main__"} | named(configurations())
    edges = {m: {i.module for i in imports(p, m)} | texts(p) for m, p in CODE.items()}
    for module, reader in READ_AS_FILES.items():
        assert MODULES[module].name in (ROOT / reader).read_text("utf-8")
        start.add(module)
    dead = MODULES.keys() - reached(start, edges)
    assert not dead, f"no bundle and no command reaches {', '.join(shown(CODE[m]) for m in sorted(dead))}"


def texts(path: Path) -> set[str]:
    """Modules that strings of the code name; documentation does not count."""
    documents = {id(n.body[0].value) for n in ast.walk(tree(path))
                 if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef) and n.body
                 and isinstance(n.body[0], ast.Expr)}  # fmt: skip
    return {
        name
        for n in ast.walk(tree(path))
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in documents
        for name in named(n.value)
    }


def test_the_test_of_reach_can_fail() -> None:
    assert reached({"a"}, {"a": {"b"}, "b": {"a"}, "c": {"a"}}) == {"a", "b"}


def test_a_module_has_one_text_of_its_own() -> None:
    """A text below an assignment is a second docstring to the model zoo's hooks, which read packed code; comment it."""
    second = [f"{shown(p)}:{n.lineno}" for p in CODE.values() for n in tree(p).body[1:]
              if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]  # fmt: skip
    assert [line for line in second if line.startswith("common")] == []
