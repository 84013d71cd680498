"""The code that a bundle needs is found by reading it."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import ConfigError
from tools.bundle.closure import closure, named_modules

FILES = {
    "__init__.py": "",
    "errors.py": "import json\n",
    "data/__init__.py": '"""Data."""\n',
    "data/io.py": "import numpy\nfrom ..errors import json\n\ndef read():\n    import nibabel\n    import numpy\n",
    "data/page.py": "from pathlib import Path\nfrom . import io\nHERE = Path(__file__).parent\nread = f'page.{1}'\n",
    "data/page.css": "a {}",
    "data/other.css": "b {}",
    "data/unused.py": "import torch\n",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / "common" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "common" / name).write_text(text)
    return tmp_path / "common"


def test_imports_packages_and_files_beside(source: Path) -> None:
    found = closure(["$common.data.page.read()"], source)
    assert list(found.modules) == ["common", "common.data", "common.data.io", "common.data.page", "common.errors"]
    assert found.data == ("data/page.css",)
    assert found.required == {"numpy"} and found.optional == {"nibabel"}


def test_a_file_named_in_full(source: Path) -> None:
    (source / "data" / "io.py").write_text("x = 'other.css'\n")
    assert closure(["common.data.io.x"], source).data == ("data/other.css",)


def test_names_in_texts(source: Path) -> None:
    texts = ["common.data.io.read", "$__import__('common.errors').errors", "my.common.data.unused", "a/common.data"]
    assert named_modules(texts, source) == {"common.data.io", "common.errors"}


def test_what_does_not_exist(source: Path) -> None:
    with pytest.raises(ConfigError, match="not"):
        named_modules(["common.nothing.X"], source)


def test_a_bare_import_cannot_be_renamed(source: Path) -> None:
    (source / "errors.py").write_text("import common.data\n")
    with pytest.raises(ConfigError, match="from common"):
        closure(["common.errors.X"], source)


def test_files_that_cannot_be_told(source: Path) -> None:
    (source / "data" / "page.css").unlink()
    with pytest.raises(ConfigError, match="beside itself"):
        closure(["common.data.page.read"], source)


def test_the_page_of_sessions_brings_its_template() -> None:
    found = closure(["common.engine.interactive.page.render_session"])
    assert {f"engine/interactive/page.{kind}" for kind in ("css", "html.j2", "js")} <= set(found.data)
    assert "jinja2" in found.required
