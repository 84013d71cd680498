"""The map of the house in CONTRIBUTING.md: every file that it names is there, every room is drawn."""

from __future__ import annotations

import re

import pytest

from tests.architecture.test_imports import rooms
from tests.architecture.tree import CODE, ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
WALKS = TEXT[TEXT.index("### One training step") : TEXT.index("## House rules")]


def absent(text: str) -> list[str]:
    """Files that a text names and that are not there; a bare name belongs to a folder that was named before."""
    folders: set[str] = set()
    wrong = []
    for name in re.findall(r"`([\w./-]+\.(?:py|json)|[\w./-]+/)`", text):
        if "/" in name:
            path = ROOT / name
            folders.add(str(path if name.endswith("/") else path.parent))
            wrong += [] if path.exists() else [name]
        elif not any((ROOT / folder / name).is_file() for folder in folders):
            wrong.append(name)
    return wrong


def test_every_file_of_the_walks_is_there() -> None:
    assert len(re.findall(r"\.py`", WALKS)) > 25
    assert not absent(WALKS)


def test_the_test_of_walks_can_fail() -> None:
    assert absent("`common/engine/nothing.py`") == ["common/engine/nothing.py"]
    assert absent("`common/methods/ka2er/network.py`, then `head.py` and `tail.py`") == ["tail.py"]


def undrawn(packages: set[str], drawing: str) -> set[str]:
    """Packages whose name is no word of a drawing."""
    return packages - set(re.findall(r"\w+", drawing))


PARENTS = [
    "common.data",
    "common.engine",
    "common.methods",
    "common.layers",
    "common.experts",
    "common.backbones",
    "tools",
]


@pytest.mark.parametrize("parent", PARENTS)
def test_every_room_is_drawn(parent: str) -> None:
    drawing = TEXT[TEXT.index("  bundles/*.json") : TEXT.index("Imports run downwards only")]
    packages = {r for r in rooms(parent) if CODE.get(f"{parent}.{r}", ROOT).name == "__init__.py"}
    assert packages and not undrawn(packages, drawing)


def test_the_test_of_rooms_can_fail() -> None:
    assert undrawn({"run", "data"}, "│ trunk data │") == {"run"}
    assert undrawn({"sam2", "sam"}, "│ sam2 sam3d │") == {"sam"}
