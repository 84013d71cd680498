"""Checking a bundle imports nothing of the bundle, of its neighbours or of the current folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tools.bundle.checks import check_configurations
from tools.bundle.lookup import NotFoundError, libraries_only, library_signature
from tools.bundle.static import signature_of


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder that Python imports from, with a bundle and modules that leave a file when they run."""
    code = "import pathlib\npathlib.Path(__file__).with_name('ran').touch()\nclass Net:\n    def __init__(self): ...\n"
    modules = ("zoo/scripts/__init__.py", "zoo/scripts/net.py", "zoo/own.py", "mine.py", "einops.py", "wave.py")
    for name in (*modules, "timm/layers.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    (tmp_path / "zoo" / "__init__.py").write_text(code)
    (tmp_path / "zoo" / "configs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    for name in ("einops", "timm", "wave"):
        for known in [m for m in sys.modules if m.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, known)
    return tmp_path


@pytest.mark.parametrize(
    "target",
    ["zoo.scripts.net.Net", "zoo.own.Net", "zoo.Net", "scripts.net.Net", "own.Net", "mine.Net", "this.s", "wave.Net",
     "antigravity.x", "idlelib.idle.main", "einops.rearrange", "timm.layers.Mlp", "Net", "mine", "idlelib.__main__.x",
     "monai.bundle.__main__.x", "a-b.c"],
)  # fmt: skip
def test_nothing_of_the_bundle_or_the_current_folder_runs(here, target, capfd, monkeypatch):
    monkeypatch.setattr("webbrowser.open", lambda *_: pytest.fail("a browser was started"))
    config = {"bundle_root": ".", "network_def": {"_target_": target}}
    (here / "zoo" / "configs" / "inference.json").write_text(json.dumps(config))
    before = {m for m in sys.modules if m.split(".")[0] in ("this", "antigravity", "idlelib")}
    found = [f.problem for f in check_configurations(here / "zoo") if f.check == "targets"]
    assert list(here.rglob("ran")) == [] and capfd.readouterr().out == ""
    assert {m for m in sys.modules if m.split(".")[0] in ("this", "antigravity", "idlelib")} == before
    assert (found == []) == (target in ("scripts.net.Net", "own.Net", "idlelib.idle.main")) or "rearrange" in target


@pytest.mark.parametrize(
    ("name", "parameter"),
    [("torch.nn.Conv3d", "in_channels"), ("monai.networks.nets.UNet", "spatial_dims"), ("pathlib.Path", "args"),
     ("json.dumps", "obj"), ("wave.open", "f"), ("builtins.print", "args"), ("pytest.raises", "expected_exception"),
     ("logging.config.fileConfig", "fname"), ("common.labels.LabelSpace", "names"), ("_ctypes.sizeof", "args")],
)  # fmt: skip
def test_what_is_installed_is_found(here, name, parameter):
    assert parameter in library_signature(name, signature_of).parameters
    assert not list(here.rglob("ran"))


@pytest.mark.parametrize("name", ["torch.nn.Nothing", "nothing_of_this_name.X", "json.nothing", "common.nothing.X",
                                  "torch.nn", "builtins.nothing"])  # fmt: skip
def test_what_is_not_there_is_told(name):
    with pytest.raises(NotFoundError):
        library_signature(name, signature_of)


def test_imports_find_packages_alone(here):
    with libraries_only():
        assert "" not in sys.path and str(here) not in sys.path and sys.path
    assert sys.path[:2] == ["", str(here)]
