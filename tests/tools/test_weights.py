"""The command that looks into weight files."""

from __future__ import annotations

import pytest
import torch

from common.card import ModelCard, save_weights
from common.errors import WeightError
from common.labels import LabelSpace
from tools.weights import Weights


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    a = {"same": torch.ones(2), "value": torch.zeros(2), "shape": torch.zeros(2, 3), "old": torch.zeros(())}
    b = {"same": torch.ones(2), "value": torch.tensor([0.0, 0.5]), "shape": torch.zeros(3, 2), "new": torch.zeros(1)}
    return (
        save_weights(tmp_path / "a.pt", a, ModelCard(LabelSpace(("liver",)), ("CT",), "toy", "1")),
        save_weights(tmp_path / "b.safetensors", b),
    )


def test_inspect(files, capsys) -> None:
    Weights().inspect(str(files[0]))
    text = capsys.readouterr().out
    assert "2x3" in text and "float32" in text and "4 tensors, 11 values" in text and '"liver"' in text
    Weights().inspect(str(files[1]), limit=2)
    text = capsys.readouterr().out
    assert "and 2 more" in text and "no card inside" in text


def test_compare(files, capsys) -> None:
    Weights().compare(*map(str, files))
    text = capsys.readouterr().out
    assert "values, at most 0.5" in text and "only in the first" in text and "only in the second" in text
    assert "1 tensors are equal, 4 differ" in text
    Weights().compare(str(files[0]), str(files[0]))
    assert "4 tensors are equal, 0 differ" in capsys.readouterr().out


def test_missing_file(tmp_path) -> None:
    with pytest.raises(WeightError, match="no such weights file"):
        Weights().inspect(str(tmp_path / "x.pt"))


def test_a_card_of_an_earlier_version_gets_names_that_are_accepted(tmp_path, capsys):
    """Its names were accepted when it was written; the refusal says in one line how to go on."""
    import json
    from collections import OrderedDict

    import torch

    from common.errors import ConfigError, WeightError
    from common.weights import read_card
    from tools.weights import Weights

    old, new = tmp_path / "old.pt", tmp_path / "new.pt"
    card = {"labels": {"names": ["core/edema", "liver"], "values": [1, 2], "exclusive": True}, "channels": ["T1/T2"],
            "bundle": "ka2er", "version": "0.1.0", "config_hash": "",
            "extra": {"settings": {"modalities": ["T1/T2"]}}}  # fmt: skip
    tensors = OrderedDict(weight=torch.arange(3.0))
    tensors._card = json.dumps(card)
    torch.save(tensors, old)
    with pytest.raises(WeightError, match="tools weights rename") as caught:
        read_card(old)
    assert "core/edema" in str(caught.value) and str(old) in str(caught.value)
    names = {"core/edema": "core and edema", "T1/T2": "T1 and T2"}
    with pytest.raises(WeightError, match="names nothing so"):
        Weights().rename(str(old), str(new), {**names, "spleen": "milt"})
    Weights().rename(str(old), str(new), names)
    found = read_card(new)
    assert found.labels.names == ("core and edema", "liver") and found.channels == ("T1 and T2",)
    assert found.extra["settings"]["modalities"] == ["T1 and T2"]
    assert torch.equal(torch.load(new, weights_only=True)["weight"], torch.arange(3.0))
    assert "core and edema" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="exists"):
        Weights().rename(str(old), str(new), names)
