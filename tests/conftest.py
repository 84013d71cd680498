"""Fixtures that every test may use: tiny phantom data, written once per session."""

import json
from pathlib import Path

import pytest

from common.data.phantom import write_phantom


@pytest.fixture(scope="session")
def phantom_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny 3-D collection (``phantom_ct``, ``phantom_mr``, ``phantom_lge``); treat it as read-only."""
    return write_phantom(tmp_path_factory.mktemp("phantom") / "phantom", size="tiny", parts=("tasks",))


@pytest.fixture(scope="session")
def phantom_general_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny mixed-modality dataset of a task-agnostic expert; treat it as read-only."""
    root = tmp_path_factory.mktemp("phantom_general") / "phantom"
    write_phantom(root, size="tiny", parts=("general",))
    return root.with_name("phantom_general")


@pytest.fixture(scope="session")
def phantom_2d_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny 2-D collection (``phantom_2d_ct``, ``phantom_2d_mr``, ``phantom_2d_skin``); treat it as read-only."""
    root = tmp_path_factory.mktemp("phantom_2d") / "phantom"
    write_phantom(root, size="tiny", parts=("2d",))
    return root.with_name("phantom_2d")


@pytest.fixture(scope="session")
def tiny_case(phantom_dir: Path) -> dict[str, str]:
    """The first training case of the tiny CT task: ``image``, ``label`` (absolute paths), ``case``, ``task``."""
    folder = phantom_dir / "phantom_ct"
    entry = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["training"][0]
    return {
        "image": str(folder / entry["image"]),
        "label": str(folder / entry["label"]),
        "case": entry["id"],
        "task": folder.name,
    }
