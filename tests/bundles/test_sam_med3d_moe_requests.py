"""The promptable bundle behind an annotation server, which reads inference.json in its own way.

What the server does is written down here as MONAI Label 0.8.5 does it for a folder whose name holds ``deepgrow``: one
parsed configuration for all requests, ``network_def`` built once and loaded strictly from ``models/model.pt``, the
request's entries beside ``image`` in what the transforms get, the transforms one by one, transforms that save left out.
"""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import LoadImaged, SaveImaged

from common.backbones.sam3d.network import Sam3D, sam3d_network
from common.card import save_weights
from common.engine.run.settings import model_card
from common.errors import PromptError
from common.labels import LabelSpace
from common.methods.sam_med3d_moe.start import DecoderExpert, General, mixture

ROOT = Path(__file__).resolve().parents[2]
OBLIQUE = np.array([[-2.4, 0.3, 0, 12], [0.28, 2.5, 0, -30], [0, 0, 3.0, 7], [0, 0, 0, 1]])
SHAPE = (24, 20, 16)


class Served:
    """A bundle folder as the server holds it."""

    def __init__(self, folder: Path) -> None:
        self.config = ConfigParser()
        self.config.read_config(str(folder / "configs" / "inference.json"))
        self.config.config.update({"bundle_root": str(folder)})
        self.network = self.config.get_parsed_content("network_def", instantiate=True)
        state = torch.load(folder / "models" / "model.pt", weights_only=True)
        self.network.load_state_dict(state.get("model", state), strict=True)
        self.network.eval()

    def ask(self, image: Path, **request: object) -> torch.Tensor:
        """The object that a request gets, ``[1, X, Y, Z]``."""
        self.config.config.update({"device": "cpu"})
        data: dict[str, object] = {"image": str(image), "image_path": str(image), "device": "cpu", **request}
        for transform in self.config.get_parsed_content("preprocessing", instantiate=True).transforms:
            if isinstance(transform, LoadImaged):
                transform._loader.image_only = False
            data = transform(data)
        inferer = self.config.get_parsed_content("inferer", instantiate=True)
        with torch.no_grad():
            data["pred"] = inferer(data["image"][None], self.network)[0]
        for transform in self.config.get_parsed_content("postprocessing", instantiate=True).transforms:
            if not isinstance(transform, SaveImaged):
                data = transform(data)
        return data["pred"]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    root = tmp_path_factory.mktemp("server")
    folder = root / "objects_deepgrow"
    shutil.copytree(ROOT / "bundles" / "sam_med3d_moe", folder)
    shape = {"variant": "tiny", "image_size": 32, "rel_pos": "intended", "boxes": True}
    expert = DecoderExpert("tumour", ("tumour",), sam3d_network("tiny", seed=1).mask_decoder, "")
    network = mixture(General(sam3d_network("tiny", seed=0, boxes=True), shape), {"tumour": expert}, hidden=16)
    settings = {"network": network.settings, "expert_structures": [["tumour"]], "gate_at": "every", "spacing": 3.0,
                "clip": {"CT": [-1000, 1000]}, "modalities": ["CT"]}  # fmt: skip
    card = model_card("sam_med3d_moe", LabelSpace(("liver", "tumour")), ("image",), settings)
    save_weights(folder / "models" / "model.pt", network.state_dict(), card)
    scan = root / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random(SHAPE).astype(np.float32), OBLIQUE), scan)
    return Served(folder), scan


@pytest.fixture
def encodings(monkeypatch):
    """Grows by one whenever the encoder runs."""
    found: list[int] = []
    encode = Sam3D.encode
    monkeypatch.setattr(Sam3D, "encode", lambda self, image: found.append(1) or encode(self, image))
    return found


def test_clicks_of_a_session_encode_once_and_a_mask_comes_back(served, encodings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    server, scan = served
    points = [[12, 9, 7], [10, 9, 7], [14, 9, 8]]
    answers = [server.ask(scan, label="cyst", foreground=points[: n + 1], background=[]) for n in range(3)]
    answers.append(server.ask(scan, label="cyst", foreground=points, background=[[2, 2, 2]]))
    assert len(encodings) == 1
    assert all(a.shape == (1, *SHAPE) and set(a.unique().tolist()) <= {0, 1} for a in answers)
    assert answers[0].any() and not torch.equal(answers[0], answers[-1])
    np.testing.assert_allclose(answers[0].affine, OBLIQUE, atol=1e-5)
    undone = server.ask(scan, label="cyst", foreground=points[:1], background=[])
    assert torch.equal(undone, answers[0]) and len(encodings) == 1
    assert not list(tmp_path.iterdir())  # the server writes results itself


def test_another_scan_another_object_and_new_weights_are_told_apart(served, encodings, tmp_path):
    server, scan = served
    first = server.ask(scan, label="liver", foreground=[[12, 9, 7]])
    image = nib.load(scan)
    other = tmp_path / "other.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[::-1].copy(), image.affine), other)
    before = len(encodings)
    assert not torch.equal(server.ask(other, label="liver", foreground=[[12, 9, 7]]), first)
    assert len(encodings) == before + 1
    assert torch.equal(server.ask(other, label="tumour", foreground=[[12, 9, 7]]),
                       server.ask(other, label="liver", foreground=[[12, 9, 7]]))  # fmt: skip
    server.network.load_state_dict(server.network.state_dict())
    server.ask(other, label="liver", foreground=[[12, 9, 7]])
    assert len(encodings) == before + 2


def test_a_region_is_a_box_in_any_order_and_cut_at_the_faces(served):
    server, scan = served
    box = server.ask(scan, label="liver", roi=[4, 15, 3, 12, 2, 11])
    assert torch.equal(box, server.ask(scan, label="liver", roi=[15, 4, 3, 12, 11, 2]))
    whole = server.ask(scan, label="liver", roi=[-5, 99, -5, 99, -5, 99])
    assert torch.equal(whole, server.ask(scan, label="liver", roi=[0, 23, 0, 19, 0, 15])) and box.shape == whole.shape


@pytest.mark.parametrize("request_", [{}, {"foreground": [], "background": []}, {"background": [[2, 2, 2]]}])
def test_nothing_to_answer_yet_is_an_empty_mask(served, request_):
    server, scan = served
    assert not server.ask(scan, label="liver", **request_).any()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"foreground": [[12, 9]]}, "points are x, y, z"),
        ({"foreground": [[24, 9, 7]]}, "outside the volume"),
        ({"roi": [1, 2, 3, 4]}, "two numbers per axis"),
        ({"roi": [4, 4, 3, 12, 2, 11]}, "no extent"),
    ],
)
def test_requests_that_cannot_be_meant(served, request_, words):
    server, scan = served
    with pytest.raises(PromptError, match=words):
        server.ask(scan, label="liver", **request_)
