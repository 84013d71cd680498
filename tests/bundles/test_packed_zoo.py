"""The zoo's own checks, as its CI runs them, on all nine packed bundles: format, hooks, files, schema, shapes, export.

Of its CI three things are not run here. ``pytype``: its makers gave it up, and it takes many minutes for one bundle;
`mypy --strict` reads the same code (`make type`). TensorRT: only for bundles that the zoo lists. Unit tests: a new
bundle brings its own; `test_packed.py` trains and predicts with each. The waivers of what is run are `NOT_SCRIPTED`,
and one `noqa` in `common/errors.py` whose reason stands there.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import tiny, zoo
from tools.bundle.checks import SCHEMA, check_bundle
from tools.bundle.pack import pack_bundle

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(p.parent.name for p in (ROOT / "bundles").glob("*/configs"))
pytestmark = [pytest.mark.slow, pytest.mark.selected, pytest.mark.timeout(1200)]

NOT_SCRIPTED = {
    "ic_moe": "traced for pictures of one size by `python -m tools export`",
    "m4oe": "its experts are chosen by the case; `python -m tools export` writes one modality and data set",
    "m4oe_expert": "rebuilds what it hides at random and segments nothing",
    "sam_med3d_moe": "answers prompts",
    "sam_med3d_moe_expert": "answers prompts",
    "samora": "PEFT's layers; `python -m tools export` traces the slice network",
    "samora_expert": "stage 2 takes adapters from it; it segments nothing",
}
"""As the zoo's `exclude_verify_torchscript_list`; each bundle's document says so below `## TorchScript`."""

# what the zoo's pyproject.toml, setup.cfg and runtests.sh say
BLACK = '[tool.black]\nline-length = 120\ntarget-version = ["py37", "py38", "py39"]\n'
SETUP = """[flake8]
select = B,C,E,F,N,P,T4,W,B9
max_line_length = 120
ignore = E203,E501,E741,W503,W504,C408,N812,B023,B905,B028,B907,C419
per_file_ignores = __init__.py: F401, __main__.py: F401

[isort]
known_first_party = models
profile = black
line_length = 120
"""
STYLE = {"isort": ("--check",), "black": ("--skip-magic-trailing-comma", "--check"), "flake8": ("--count",)}
WRONG = {"isort": "import sys\nimport os\n", "black": "x = { 'a':1 }\n", "flake8": "import os\n"}

HOOKS: dict[str, tuple[tuple[str, ...], str, bytes]] = {
    "end_of_file_fixer": ((), "*", b"text"),
    "trailing_whitespace_fixer": ((), "*", b"text \n"),
    "mixed_line_ending": ((), "*", b"a\r\nb\n"),
    "detect_private_key": ((), "*", b"BEGIN RSA PRIVATE KEY\n"),
    "check_docstring_first": ((), "*.py", b'x = 1\n"""Text."""\n'),
    "pretty_format_json": (("--no-sort-keys", "--indent=4"), "*.json", b'{"a": 1}\n'),
}
"""Of its .pre-commit-config.yaml: options, which files, and one that the hook has to refuse."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zoo's folder `models` with the nine packed bundles, each with weights."""
    root = tmp_path_factory.mktemp("zoo")
    for bundle in BUNDLES:
        weights = tiny.write(bundle, root / "weights" / f"{bundle}.pt")
        folder = pack_bundle(bundle, root / "packed", weights=weights).folder
        shutil.move(folder, root / "models" / bundle)
    return settings(root) / "models"


def settings(root: Path) -> Path:
    (root / "models").mkdir(exist_ok=True)
    (root / "pyproject.toml").write_text(BLACK)
    (root / "setup.cfg").write_text(SETUP)
    return root


def style(tool: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A tool on all code below a folder; files of the same content once."""
    distinct = {p.read_bytes(): str(p) for p in sorted(folder.rglob("*.py"))}
    command = [sys.executable, "-m", tool, *STYLE[tool], *distinct.values()]
    return subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("tool", STYLE)
def test_format(tool: str, models: Path) -> None:
    result = style(tool, models)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]


@pytest.mark.parametrize("tool", STYLE)
def test_format_can_fail(tool: str, tmp_path: Path) -> None:
    (settings(tmp_path) / "models" / "wrong.py").write_text(WRONG[tool])
    result = style(tool, tmp_path / "models")
    assert result.returncode == 1 and "wrong.py" in result.stdout + result.stderr


def hook(name: str) -> Callable[[list[str]], int]:
    found: Callable[[list[str]], int] = importlib.import_module(f"pre_commit_hooks.{name}").main
    return found


@pytest.mark.parametrize("name", HOOKS)
def test_hooks(name: str, models: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options, pattern, wrong = HOOKS[name]
    files = [str(p) for p in models.rglob(pattern) if p.is_file() and p.suffix not in (".pt", ".ts", ".sha256")]
    assert len(files) >= len(BUNDLES)
    assert hook(name)([*options, *files]) == 0, capfd.readouterr().out[-2000:]
    (tmp_path / "wrong").write_bytes(wrong)
    assert hook(name)([*options, str(tmp_path / "wrong")]) == 1


@pytest.fixture
def bundle(request: pytest.FixtureRequest, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A packed bundle, importable as in the zoo's CI."""
    folder = models / str(request.param)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(models.parent)
    yield folder
    for name in [n for n in sys.modules if n.split(".")[0] == f"{folder.name}_bundle"]:
        del sys.modules[name]


every_bundle = pytest.mark.parametrize("bundle", BUNDLES, indirect=True)


@every_bundle
def test_files_version_schema_and_shapes(bundle: Path) -> None:
    """`verify_bundle.py`; a list of released versions makes the second able to fail."""
    assert check_bundle(bundle) == []
    schema = bundle / "eval" / "schema.json"
    schema.parent.mkdir(exist_ok=True)
    shutil.copy(SCHEMA, schema)
    zoo.verify_bundle_directory(bundle)
    zoo.verify_version_changes(bundle)
    zoo.verify_metadata_format(bundle, str(schema))
    zoo.verify_data_shape(bundle)


@every_bundle
def test_export(bundle: Path) -> None:
    """`monai.bundle ckpt_export`, by scripting as the zoo calls it; a waiver that is needed no more has to go."""
    import torch

    if bundle.name in NOT_SCRIPTED:
        with pytest.raises((RuntimeError, ValueError, torch.jit.frontend.FrontendError)):
            zoo.verify_torchscript(bundle)
        return
    zoo.verify_torchscript(bundle)
    network = zoo.loads(bundle).eval()
    scripted: Any = torch.jit.load(bundle / "models" / "verify_model.ts")
    example = torch.rand(1, 1, *input_shape(bundle))
    with torch.no_grad():
        torch.testing.assert_close(scripted(example), network(example), rtol=1e-4, atol=1e-4)


def input_shape(bundle: Path) -> list[int]:
    from tools.bundle_files import read_json

    shape: list[int] = read_json(bundle / "configs" / "metadata.json")["network_data_format"]["inputs"]["image"][
        "spatial_shape"
    ]
    return shape
