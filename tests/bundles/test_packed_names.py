"""The code that travels with each bundle has no name that is not there, and reads what the repository reads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.data.dicom.series import read_series
from tests.bundles import bare
from tools.bundle.pack import _copy
from tools.bundle.vendor import leftovers, vendor

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(p.parent.name for p in (ROOT / "bundles").glob("*/configs"))
UNDEFINED = "F821,F822,F823,F811,F401,E9"


@pytest.fixture(scope="session")
def vendored(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``vendored(bundle)``: the bundle with its code, made once; as packed, less documents, checks and zip."""
    folder, made = tmp_path_factory.mktemp("vendored"), set[str]()

    def make(bundle: str) -> Path:
        if bundle not in made:
            _copy(ROOT / "bundles" / bundle, folder / bundle)
            vendor(folder / bundle, bundle)
            made.add(bundle)
        return folder / bundle

    return make


def test_no_name_is_undefined_in_any_bundle(vendored: Callable[[str], Path]) -> None:
    pytest.importorskip("ruff")
    folders = [vendored(bundle) for bundle in BUNDLES]
    assert len(folders) == 9 and [leftovers(f) for f in folders] == [[]] * 9
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", UNDEFINED]
    done = subprocess.run([*command, *map(str, folders)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


READ = """
import json, sys
from pathlib import Path
import numpy as np

folder, file, target = sys.argv[1:]
sys.path.insert(0, folder)
from ka2er_bundle.common.data.dicom.series import read_series

image = read_series(file)
np.save(target, image.numpy())
print(json.dumps({"affine": image.affine.tolist(), "ours": [m for m in ("common", "tools") if m in sys.modules]}))
"""


def test_a_packed_bundle_reads_an_enhanced_image(
    vendored: Callable[[str], Path], dicom_series: Any, enhanced_series: Any, tmp_path: Path
) -> None:
    """In a process that cannot import the repository."""
    dicom_series(tmp_path / "s", np.random.default_rng(1).integers(-500, 500, (12, 10, 6)))
    file = enhanced_series(tmp_path / "s")
    folder, expected = vendored("ka2er"), read_series(file)
    done = bare.done(folder, "-c", READ, folder, file, tmp_path / "image.npy")
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["ours"] == [] and np.allclose(told["affine"], expected.affine.numpy())
    assert np.array_equal(np.load(tmp_path / "image.npy"), expected.numpy())
