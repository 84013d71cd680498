import pytest
import torch

from common.errors import ConfigError
from common.losses.reconstruction import masked_mse, patches_of


def naive(prediction, image, hidden, size, normalise):
    values = []
    for b, i, j in hidden.nonzero().tolist():
        patch = image[b, :, i * size : (i + 1) * size, j * size : (j + 1) * size]
        pixels = [float(patch[c, y, x]) for y in range(size) for x in range(size) for c in range(image.shape[1])]
        if normalise:
            mean = sum(pixels) / len(pixels)
            variance = sum((p - mean) ** 2 for p in pixels) / (len(pixels) - 1)
            pixels = [(p - mean) / (variance + 1e-6) ** 0.5 for p in pixels]
        guess = prediction[b, i, j].tolist()
        values.append(sum((g - p) ** 2 for g, p in zip(guess, pixels, strict=True)) / len(pixels))
    return sum(values) / len(values)


@pytest.mark.parametrize("normalise", [True, False])
def test_equals_the_loop(normalise):
    image, prediction = torch.randn(2, 3, 8, 12), torch.randn(2, 2, 3, 48)
    hidden = torch.rand(2, 2, 3) > 0.4
    hidden[0, 0, 0] = True
    got = masked_mse(prediction, image, hidden, normalise=normalise)
    assert float(got) == pytest.approx(naive(prediction, image, hidden, 4, normalise), rel=1e-5)


def test_seen_patches_do_not_count():
    image, prediction = torch.randn(1, 1, 8, 8), torch.randn(1, 2, 2, 16, requires_grad=True)
    hidden = torch.tensor([[[True, False], [False, False]]])
    masked_mse(prediction, image, hidden).backward()
    assert prediction.grad[0, 0, 0].any() and not prediction.grad[0, 0, 1].any() and not prediction.grad[0, 1].any()
    assert float(masked_mse(patches_of(image, 4), image, hidden)) == 0


def test_refusals():
    image, prediction = torch.randn(1, 1, 8, 8), torch.randn(1, 2, 2, 16)
    for hidden in (torch.zeros(1, 2, 2, dtype=torch.bool), torch.ones(1, 2, 3, dtype=torch.bool)):
        with pytest.raises(ConfigError):
            masked_mse(prediction, image, hidden)
    with pytest.raises(ConfigError):
        patches_of(torch.randn(1, 1, 6, 8), 4)
