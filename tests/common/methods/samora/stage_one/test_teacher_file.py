import hashlib

import pytest
import torch

from common.card import save_weights
from common.engine.run.settings import model_card
from common.errors import ConfigError, DataError, WeightError
from common.labels import LabelSpace
from common.methods.samora.stage_one.teacher_file import teacher_of
from common.weights import read_state_dict
from tests.common.methods.conftest import of_modality

SIZES, SIZE = {"width": 0.125}, 64


@pytest.fixture
def files(tmp_path):
    torch.save({"net.0.0.weight": torch.ones(1)}, tmp_path / "public.pth")
    for level in ("teacher_image", "teacher_patch", "pixel"):
        settings = {"level": level, "teacher": {"sizes": SIZES, "size": SIZE, "hash": None, "file": None}}
        card = model_card("samora_expert", LabelSpace(("x",)), ["image"], settings)
        save_weights(tmp_path / f"{level}.pt", {"w": torch.ones(1)}, card)
    return tmp_path


def test_a_trained_teacher_says_its_sizes(files):
    path = files / "teacher_image.pt"
    found = teacher_of("image", "ts_cpt", path, {"width": 2.0}, 224)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found == {"sizes": SIZES, "size": SIZE, "hash": digest, "file": "teacher_image.pt"}
    assert teacher_of("teacher_image", "scratch", path)["sizes"] == SIZES  # trained on once more


def test_public_weights_have_the_given_sizes(files):
    found = teacher_of("image", "ts", files / "public.pth", {"width": 2.0}, 224)
    assert found["sizes"] == {"width": 2.0} and found["size"] == 224 and len(found["hash"]) == 64


def test_no_teacher(files):
    assert teacher_of("image", "scratch") == teacher_of("pixel", "scratch") == {}
    assert teacher_of("teacher_patch", "scratch", None, SIZES, 32) == {
        "sizes": SIZES,
        "size": 32,
        "hash": None,
        "file": None,
    }


def test_what_is_refused(files):
    for level in ("image", "patch"):
        for ssl in ("ts", "ts_cpt"):
            with pytest.raises(ConfigError, match=rf"without weights(.|\n)*teacher_{level}.json(.|\n)*--ssl scratch"):
                teacher_of(level, ssl)
    with pytest.raises(ConfigError, match="--ssl ts_cpt"):
        teacher_of("image", "ts", files / "teacher_image.pt")
    with pytest.raises(ConfigError, match=r"--ssl ts\b"):
        teacher_of("image", "ts_cpt", files / "public.pth")
    for wrong in ("teacher_patch.pt", "pixel.pt"):
        with pytest.raises(WeightError, match="another part"):
            teacher_of("image", "ts_cpt", files / wrong)
    with pytest.raises(WeightError, match="no such"):
        teacher_of("image", "ts", files / "nowhere.pth")


def test_a_teacher_of_something_else_is_refused(files):
    path = files / "teacher_image.pt"
    state, card = read_state_dict(path)
    save_weights(path, state, card.with_extra(contract={"modalities": {"CT": {"channels": ["image"]}}}))
    for data, modality in ((of_modality("T2 MR"), None), (files, "T1")):
        with pytest.raises(DataError, match="not what the model was trained on"):
            teacher_of("image", "ts_cpt", path, dataset_dir=data, modality=modality)
        assert teacher_of("image", "ts_cpt", path, dataset_dir=data, modality=modality, ignore_card=True)
    assert teacher_of("image", "ts_cpt", path, dataset_dir=of_modality("CT"))
