"""Which models are served."""

import pytest
import torch

from common.card import ModelCard, save_weights
from common.errors import WeightError
from common.labels import LabelSpace
from tools.label.config import read_model


@pytest.mark.parametrize("names", [("Liver", "liver"), ("liver", "liver."), ("\ufb01bula", "fibula"), ("a", "b", "A")])
def test_structures_that_a_viewer_takes_for_one_are_refused(tmp_path, names):
    for labels in (names, ("liver", "spleen")):
        card = ModelCard(LabelSpace(labels), ("CT",), "ka2er", "1", extra={"settings": {}})
        file = save_weights(tmp_path / "model.pt", {"w": torch.ones(1)}, card)
        if labels == names:
            with pytest.raises(WeightError, match="apart"):
                read_model(tmp_path, file)
        else:
            assert read_model(tmp_path, file).card.labels.names == labels
