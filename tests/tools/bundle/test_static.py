"""Signatures read from code are those of the code, and reading runs nothing."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest

from tools.bundle.lookup import NotFoundError
from tools.bundle.static import signature_of
from tools.bundle_files import walk

ROOT = Path(__file__).resolve().parents[3]
CODE = """
from __future__ import annotations
import json.decoder
from dataclasses import dataclass
from typing import ClassVar, NamedTuple
from torch import nn as layers
from .other import moved as renamed
from . import other

raise SystemExit("this module was run")

def plain(a, b=1, *rest, c, d=2, **more): ...
alias = plain
linear = layers.Linear
if True:
    def hidden(x): ...

class Net(layers.Module):
    def __init__(self, *, size: int, deep: bool = True) -> None: ...
    @classmethod
    def small(cls, size): ...
    @staticmethod
    def free(size): ...

class Child(Net): ...
class Empty: ...
class Bare(layers.Linear): ...
class Broken(ValueError): ...
class Lost(nowhere.Base): ...

@dataclass(frozen=True)
class Plan:
    name: str
    size: int = 3
    KIND: ClassVar[int] = 1

class Pair(NamedTuple):
    a: int
    b: int = 0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "toy" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "toy" / "__init__.py").write_text("raise SystemExit('run')\nfrom .inner.code import Net\n")
    (package / "__init__.py").write_text("")
    (package / "code.py").write_text(CODE)
    (package / "other.py").write_text("def moved(x, /): ...\nfrom .code import alias as again\n")
    (package / "wrong.py").write_text("def (")
    (package / "ring.py").write_text("a = b\nb = a\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("plain", "a b= *rest c d= **more"),
        ("alias", "a b= *rest c d= **more"),
        ("renamed", "x"),
        ("other.again", "a b= *rest c d= **more"),
        ("hidden", "x"),
        ("Net", "size deep="),
        ("Net.small", "size"),
        ("Net.free", "size"),
        ("Child", "size deep="),
        ("Empty", ""),
        ("Plan", "name size="),
        ("Pair", "a b="),
        ("Broken", "*args **kwargs"),
        ("Bare", "in_features out_features bias= device= dtype="),
        ("linear", "in_features out_features bias= device= dtype="),
    ],
)
def test_signatures(folder: Path, name: str, shape: str) -> None:
    assert described(signature_of(f"toy.inner.code.{name}", folder)) == shape.split()


@pytest.mark.parametrize("name", ["toy.inner.code.nothing", "toy.nothing.X", "other.X", "toy.inner.code.Net.none",
                                  "toy.inner.wrong.f", "toy.inner.ring.a", "toy.inner.code.Lost"])  # fmt: skip
def test_what_is_not_there(folder: Path, name: str) -> None:
    with pytest.raises(NotFoundError):
        signature_of(name, folder)


def test_a_package_passes_names_on(folder: Path) -> None:
    assert described(signature_of("toy.Net", folder)) == ["size", "deep="]


def targets() -> list[str]:
    files = (ROOT / "bundles").glob("*/configs/*.json")
    nodes = (node for file in files for _, node in walk(json.loads(file.read_text(encoding="utf-8"))))
    found = {n["_target_"] for n in nodes if isinstance(n, dict) and isinstance(n.get("_target_"), str)}
    return sorted(t for t in found if t.startswith("common."))


@pytest.mark.parametrize("name", targets())
def test_every_target_of_the_collection_as_inspect_sees_it(name: str) -> None:
    real: Any = locate(name)
    assert described(signature_of(name, ROOT)) == described(inspect.signature(real))


def described(signature: inspect.Signature) -> list[str]:
    mark = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [f"{mark.get(p.kind, '')}{p.name}{'' if p.default is p.empty else '='}"
            for p in signature.parameters.values()]  # fmt: skip
