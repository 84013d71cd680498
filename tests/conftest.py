"""Fixtures that every test may use: tiny phantom data, written once per session.

Nothing heavy is imported before a test asks for it: the process that only hands tests out reads this file, too.
"""

import gc
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

# begun before all others
LONGEST = ("test_readme", "test_m4oe", "test_kill_and_resume", "test_swin_unetr", "test_bench")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no worker is left with one at the end."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


def pytest_collection_finish() -> None:
    """What the imports made stays until the end; no collection of garbage has to look at it again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests run in one worker, which makes what its fixtures train once."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def written_phantom(root: Path, part: str) -> Path:
    """Write one part of the tiny phantom."""
    from common.data.phantom.collection import write_phantom

    return write_phantom(root, size="tiny", parts=(part,))


@pytest.fixture(scope="session")
def phantom_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny 3-D collection (``phantom_ct``, ``phantom_mr``, ``phantom_lge``); treat it as read-only."""
    return written_phantom(tmp_path_factory.mktemp("phantom") / "phantom", "tasks")


@pytest.fixture(scope="session")
def phantom_general_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny mixed-modality dataset of a task-agnostic expert; treat it as read-only."""
    root = tmp_path_factory.mktemp("phantom_general") / "phantom"
    written_phantom(root, "general")
    return root.with_name("phantom_general")


@pytest.fixture(scope="session")
def phantom_2d_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny 2-D collection (``phantom_2d_ct``, ``phantom_2d_mr``, ``phantom_2d_skin``); treat it as read-only."""
    root = tmp_path_factory.mktemp("phantom_2d") / "phantom"
    written_phantom(root, "2d")
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


@pytest.fixture
def sam3d_files(tmp_path: Path) -> Any:
    """Writes tiny general models, experts and mixtures into ``tmp_path``."""
    from tests.sam3d_files import Sam3DFiles

    return Sam3DFiles(tmp_path)


@pytest.fixture
def dicom_series() -> Any:
    """The function that writes a CT series (:func:`tests.dicom_folders.write_dicom`)."""
    from tests.dicom_folders import write_dicom

    return write_dicom


@pytest.fixture
def enhanced_series(tmp_path: Path) -> Any:
    """``enhanced_series(folder)`` packs a folder of CT slices into one legacy converted enhanced file beside it."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    highdicom = pytest.importorskip("highdicom", exc_type=ImportError)

    def make(folder: Path) -> Path:
        slices = [pydicom.dcmread(p) for p in sorted(folder.iterdir())]
        packed = highdicom.legacy.LegacyConvertedEnhancedCTImage(
            slices, generate_uid(), 9, generate_uid(), 1, transfer_syntax_uid=ExplicitVRLittleEndian
        )
        target = folder.parent / f"{folder.name}_enhanced" / "all.dcm"
        target.parent.mkdir()
        packed.save_as(target)
        return target

    return make


@pytest.fixture
def nnunet_plans() -> Callable[..., dict[str, Any]]:
    """Builds the content of a tiny ``plans.json``."""
    from tests.nnunet_folders import tiny_plans

    return tiny_plans


@pytest.fixture
def nnunet_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes ``<name>/{trainer}__nnUNetPlans__{configuration}`` with random weights and returns that folder."""
    from tests.nnunet_folders import write_folder

    return partial(write_folder, tmp_path)
