"""What a frozen network says of an image is kept by the image's bytes, within the memory that it is given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.layers.frozen_features import _PATIENCE, FrozenFeatures, forget_on_loading


def doubled(image: Tensor) -> tuple[Tensor, ...]:
    assert len(image) == 1, "each on its own"
    return image * 2, image.sum(1)


def test_the_same_image_is_computed_once() -> None:
    cache, images = FrozenFeatures(gigabytes=1), torch.arange(12.0).reshape(3, 4)
    first = cache(images, doubled)
    assert torch.equal(first[0], images * 2) and torch.equal(first[1], images.sum(1))
    assert (cache.hits, cache.misses, len(cache), cache.used) == (0, 3, 3, 3 * 5 * 4)
    assert torch.equal(cache(images[[2, 0]], doubled)[0], images[[2, 0]] * 2) and (cache.hits, cache.misses) == (2, 3)
    cache.clear()
    assert len(cache) == cache.used == 0 and cache.hits == 2


def test_what_does_not_fit_is_computed_each_time() -> None:
    cache = FrozenFeatures(gigabytes=40e-9)  # two images of five numbers
    images = torch.arange(12.0).reshape(3, 4)
    for _ in range(2):
        assert torch.equal(cache(images, doubled)[0], images * 2)
    assert (len(cache), cache.used, cache.hits, cache.misses) == (2, 40, 2, 4)
    for wrong in (0, -1):
        with pytest.raises(ConfigError, match="need memory"):
            FrozenFeatures(gigabytes=wrong)


def test_images_that_never_come_again_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    cache = FrozenFeatures(gigabytes=1)
    cache(torch.arange(4.0 * _PATIENCE).reshape(-1, 4), doubled)
    assert not caplog.messages
    for start in (-1.0, -2.0):
        cache(torch.full((1, 4), start), doubled)
    (message,) = caplog.messages
    assert message.startswith(f"{_PATIENCE + 1} images and none of them twice") and cache.hits == 0


def test_other_weights_are_another_network() -> None:
    network, told = nn.Linear(1, 1), list[object]()
    forget_on_loading(network, lambda *given: told.append(given[0]))
    network.load_state_dict(network.state_dict())
    assert told == [network]
