"""Inference learns from the weights file how the model was trained."""

from pathlib import Path

import pytest
import torch

from common.card import save_weights
from common.engine.run.settings import model_card, model_settings
from common.errors import WeightError
from common.labels import LabelSpace

DEFAULTS = {"structures": ["liver"], "channels": ["image"], "exclusive": True, "spacing": [1.5, 1.5, 1.5]}


def test_defaults_hold_while_there_are_no_weights(tmp_path: Path) -> None:
    settings = model_settings(tmp_path / "model.pt", DEFAULTS)
    assert settings["labels"] == LabelSpace(("liver",)) and settings["spacing"] == [1.5, 1.5, 1.5]
    assert "structures" not in settings


def test_the_card_overrides_the_defaults(tmp_path: Path) -> None:
    labels = LabelSpace(("spleen", "liver"))
    card = model_card("ka2er", labels, ("CT",), {"spacing": (2.0, 2.0, 3.0), "network": {"feature_size": 12}})
    save_weights(tmp_path / "model.pt", {"a": torch.zeros(2)}, card)
    settings = model_settings(tmp_path / "model.pt", {**DEFAULTS, "network": {"feature_size": 48}})
    assert settings["labels"] == labels and settings["channels"] == ["CT"]
    assert settings["spacing"] == [2.0, 2.0, 3.0] and settings["network"] == {"feature_size": 12}


def test_weights_without_settings_are_refused_by_name(tmp_path: Path) -> None:
    save_weights(tmp_path / "model.pt", {"a": torch.zeros(2)})
    with pytest.raises(WeightError, match=r"model\.pt"):
        model_settings(tmp_path / "model.pt", DEFAULTS)
    save_weights(tmp_path / "model.pt", {"a": torch.zeros(2)}, model_card("x", LabelSpace(("liver",)), (), {"y": 1}))
    with pytest.raises(WeightError, match="spacing"):
        model_settings(tmp_path / "model.pt", DEFAULTS)
