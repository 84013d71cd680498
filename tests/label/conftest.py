"""One real server with tiny models of all bundles; skipped where there is no environment for it (``make label``)."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import ConfigError
from tests.label.client import Client
from tests.label.toys import pictures, studies, toy_weights
from tools.label.config import kinds_of, read_model
from tools.label.layout import code_folder, copy_app, lay_out
from tools.label.server import Server, find_python

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
GIVEN = {"m4oe": {"modality": "CT", "head": "abdomen"}}
METHODS = ("ka2er", "m4oe", "samora", "sam_med3d_moe", "ic_moe")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Served:
    """A running server: ``client``, ``weights`` by bundle, ``studies`` and the ``app``'s folder."""

    def __init__(self, root: Path, python: Path) -> None:
        self.app, self.studies = root / "app", studies(root / "the studies")
        self.pictures = pictures(self.studies / "pictures")
        self.weights = {name: toy_weights(name, root / "weights") for name in METHODS}
        copy_app(python.parent.parent, self.app)
        self.folders = [
            lay_out(read_model(BUNDLES / name, file), self.app / "model", kind, given=GIVEN.get(name, {}))
            for name, file in self.weights.items()
            for kind in kinds_of(BUNDLES / name)
        ]
        # this checkout, wherever PYTHONPATH pointed before
        self.server = Server(python=python, app=self.app, models=[f.name for f in self.folders],
                             studies=str(self.studies), code=code_folder(), port=free_port(), log=root / "log",
                             environment={"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})  # fmt: skip
        self.info = self.server.start(300)
        self.client = Client(self.server.url)

    @property
    def log(self) -> str:
        return self.server.log.read_text(errors="replace")


@pytest.fixture(scope="session")
def python():
    try:
        return find_python()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def served(tmp_path_factory, python):
    found = Served(tmp_path_factory.mktemp("label server"), python)
    yield found
    found.server.stop()


@pytest.fixture(scope="session")
def in_environment(python):
    """Runs a snippet with the server's interpreter."""

    def run(code: str, *words: str) -> str:
        done = subprocess.run([str(python), "-c", code, *words], capture_output=True, text=True, check=False,
                              env={"PYTHONPATH": str(code_folder()), "PATH": sys.prefix})  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run
