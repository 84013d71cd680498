"""Packed bundles in the real server, where nothing of the repository can be imported: all five in one process."""

import numpy as np
import pytest

from tests.label.client import SLICER
from tests.label.conftest import BUNDLES, GIVEN, METHODS, free_port
from tests.label.test_training import DEFAULT, NAMES, digest
from tests.label.toys import bright
from tools.bundle.pack import pack_bundle
from tools.bundle.zip import unpack
from tools.label.config import kinds_of, read_model
from tools.label.layout import copy_app, lay_out
from tools.label.server import Server

pytestmark = [pytest.mark.label, pytest.mark.timeout(1200)]
PROMPTS = {"label": "liver", "foreground": [[12, 9, 7]]}


@pytest.fixture(scope="module")
def packed(served, python, tmp_path_factory):
    """A second server on the same studies and weights; its client, and the app's folder."""
    root = tmp_path_factory.mktemp("a stranger's")
    app, nothing = root / "app", root / "nothing"
    nothing.mkdir()
    copy_app(python.parent.parent, app)
    folders = []
    for name in METHODS:
        zipped = pack_bundle(BUNDLES / name, root / "packed", weights=served.weights[name]).zip
        bundle = unpack(zipped, root / "unpacked")
        folders.append(lay_out(read_model(bundle), app / "model", kinds_of(bundle)[0], given=GIVEN.get(name, {})))
    environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(nothing)}
    server = Server(python=python, app=app, models=[f.name for f in folders], studies=str(served.studies), code=nothing,
                    port=free_port(), log=root / "log", environment=environment)  # fmt: skip
    info = server.start(300)
    assert set(info["models"]) == {f.name for f in folders}
    yield type(served.client)(server.url), app, server.log
    server.stop()


@pytest.mark.parametrize("model", ["ka2er_segmentation", "m4oe_segmentation", "samora_segmentation",
                                   "sam_med3d_moe_deepgrow"])  # fmt: skip
def test_scans_are_answered_as_from_the_repository(packed, served, model):
    ask = PROMPTS if model.startswith("sam_") else {}
    client, _, _ = packed
    found = client.infer(model, "oblique", **ask, **SLICER).values
    wanted = served.client.infer(model, "oblique", **ask, **SLICER).values
    assert np.array_equal(found, wanted) and len(np.unique(found)) > 1


def test_pictures_are_answered_as_from_the_repository(packed, served):
    file = str(served.pictures / "picture0.png")
    found, wanted = (c.infer("ic_moe_segmentation", file, **SLICER).values for c in (packed[0], served.client))
    assert np.array_equal(found, wanted) and len(np.unique(found)) > 1


@pytest.mark.parametrize("model", ["ka2er_segmentation", "m4oe_segmentation", "samora_segmentation",
                                   "sam_med3d_moe_deepgrow"])  # fmt: skip
def test_they_are_refined_without_the_repository(packed, served, model, tmp_path):
    client, app, log = packed
    client.submit("ras", bright(served.studies / "ras.nii.gz", tmp_path / "ras.nii.gz"), label_info=NAMES)
    weights = app / "model" / model / "models" / "model.pt"
    before = digest(weights)
    assert client.train(model, **DEFAULT) == "DONE", log.read_text(errors="replace")[-4000:]
    assert digest(weights) != before, log.read_text(errors="replace")[-4000:]
    client.forget("ras")
