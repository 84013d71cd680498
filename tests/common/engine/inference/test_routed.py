"""A route that travels with the image."""

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from common.data.transforms.route import RouteCased
from common.engine.inference.routed import RoutedInferer
from common.errors import DataError


class Told(nn.Module):
    def forward(self, image, modality, head):
        return torch.stack([modality, head])


def test_the_route_of_a_case_reaches_the_network():
    image = MetaTensor(torch.zeros(1, 2, 2, 2))
    data = RouteCased(["CT", "MR"], ["a", "b", "c"])({"image": image, "modality": "MR", "task": "c", "case": "x"})
    assert RoutedInferer()(data["image"][None], Told()).tolist() == [[1], [2]]
    given = {"modality": torch.tensor([0]), "head": torch.tensor([1])}
    assert RoutedInferer()(data["image"][None], Told(), **given).tolist() == [[0], [1]]


def test_an_image_without_route_is_refused():
    with pytest.raises(DataError, match="modality"):
        RoutedInferer()(torch.zeros(1, 1, 2, 2, 2), Told())
