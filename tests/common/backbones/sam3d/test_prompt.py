"""SAM-Med3D's prompts: codes one number at a time, the swapped axes, labels, boxes and what is refused."""

import copy
import math

import pytest
import torch

from common.backbones.sam3d.prompt import PositionCode3D, PromptEncoder3D
from common.errors import ConfigError, PromptError


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return PromptEncoder3D(channels=12, image_size=32, grid=4, boxes=True).eval()


def code(matrix, place):
    """The code of one place in 0..1, number by number."""
    angles = [2 * math.pi * sum((2 * p - 1) * float(g) for p, g in zip(place, column)) for column in matrix.t()]
    return torch.tensor([f(a) for f in (math.sin, math.cos, math.sin) for a in angles])


def test_codes_one_by_one(encoder):
    matrix = encoder.pe_layer.positional_encoding_gaussian_matrix
    for place in ((0.0, 0.5, 1.0), (0.1, 0.7, 0.2)):
        torch.testing.assert_close(encoder.pe_layer(torch.tensor(place)), code(matrix, place), rtol=0, atol=1e-5)


def test_the_dense_code_has_its_first_two_axes_swapped(encoder):
    dense = encoder.dense_positions()
    assert dense.shape == (1, 12, 4, 4, 4)
    matrix = encoder.pe_layer.positional_encoding_gaussian_matrix
    for i, j, k in ((0, 1, 2), (3, 0, 1), (2, 2, 0)):
        expected = code(matrix, ((j + 0.5) / 4, (i + 0.5) / 4, (k + 0.5) / 4))
        torch.testing.assert_close(dense[0, :, i, j, k], expected, rtol=0, atol=1e-5)


def test_the_dense_code_is_computed_once_per_matrix(encoder):
    with torch.inference_mode():
        first = encoder.dense_positions()
    assert first is encoder.dense_positions() and not first.is_inference() and not first.requires_grad
    before = first.clone()
    encoder.load_state_dict({**encoder.state_dict(), "pe_layer.positional_encoding_gaussian_matrix": torch.ones(3, 4)})
    changed = encoder.dense_positions()
    assert not torch.equal(changed, before)
    twin = copy.deepcopy(encoder)
    assert torch.equal(twin.dense_positions(), changed)
    assert encoder.double().dense_positions().dtype == torch.float64
    assert not [name for name in encoder.state_dict() if "dense" in name]


def test_a_network_built_for_inference_alone_still_answers():
    with torch.inference_mode():
        positions = PositionCode3D(channels=6)
        assert torch.equal(positions.dense(2), positions.dense(2))


def test_a_later_training_step_may_use_the_code_that_inference_left(encoder):
    with torch.inference_mode():
        encoder.dense_positions()
    scale = torch.ones(1, requires_grad=True)
    (encoder.dense_positions() * scale).sum().backward()


def test_points_and_their_labels(encoder):
    points = torch.tensor([[[3.0, 10.0, 20.0], [15.0, 2.0, 7.0], [1.0, 1.0, 1.0]]])
    sparse, dense = encoder(points=points, labels=torch.tensor([[1, 0, -1]]))
    assert sparse.shape == (1, 4, 12)
    matrix = encoder.pe_layer.positional_encoding_gaussian_matrix
    centre = [(p + 0.5) / 32 for p in (3, 10, 20)], [(p + 0.5) / 32 for p in (15, 2, 7)]
    outside, inside = (e.weight[0] for e in encoder.point_embeddings)
    torch.testing.assert_close(sparse[0, 0], code(matrix, centre[0]) + inside, rtol=0, atol=1e-5)
    torch.testing.assert_close(sparse[0, 1], code(matrix, centre[1]) + outside, rtol=0, atol=1e-5)
    for row in (2, 3):  # no point, and the pad that goes with points
        assert torch.equal(sparse[0, row], encoder.not_a_point_embed.weight[0])
    assert torch.equal(dense, encoder.no_mask_embed.weight.view(1, 12, 1, 1, 1).expand(1, -1, 4, 4, 4))


def test_a_box_is_two_corners_and_no_pad(encoder):
    boxes = torch.tensor([[[1.0, 2, 3], [11, 12, 13]], [[math.nan] * 3] * 2])
    sparse = encoder(boxes=boxes).sparse
    assert sparse.shape == (2, 2, 12)
    matrix = encoder.pe_layer.positional_encoding_gaussian_matrix
    for corner in range(2):
        place = [(float(p) + 0.5) / 32 for p in boxes[0, corner]]
        expected = code(matrix, place) + encoder.box_embeddings.weight[corner]
        torch.testing.assert_close(sparse[0, corner], expected, rtol=0, atol=1e-5)
        assert torch.equal(sparse[1, corner], encoder.not_a_point_embed.weight[0])
    both = encoder(points=torch.zeros(2, 1, 3), labels=torch.ones(2, 1), boxes=boxes).sparse
    assert torch.equal(both[:, 1:], sparse) and both.shape == (2, 3, 12)
    encoder(boxes=boxes).sparse.sum().backward()
    assert encoder.box_embeddings.weight.grad.isfinite().all()


def test_without_any_prompt_there_is_no_token(encoder):
    sparse, dense = encoder()
    assert sparse.shape == (1, 0, 12) and dense.shape == (1, 12, 4, 4, 4)


def test_a_mask_becomes_the_dense_prompt_with_gradients(encoder):
    masks = torch.randn(2, 1, 16, 16, 16, requires_grad=True)
    found = encoder(masks=masks)
    assert found.sparse.shape == (2, 0, 12) and found.dense.shape == (2, 12, 4, 4, 4)
    torch.testing.assert_close(found.dense, encoder.mask_downscaling(masks))
    found.dense.square().sum().backward()
    assert masks.grad.abs().sum() > 0


def test_codes_stay_exact_under_autocast(encoder):
    points, labels = torch.rand(1, 5, 3) * 32, torch.ones(1, 5)
    expected = encoder(points=points, labels=labels).sparse
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder(points=points, labels=labels).sparse, expected)


def test_box_embeddings_start_at_the_positive_point():
    wide = PromptEncoder3D(channels=3000, image_size=32, grid=2, boxes=True)
    moved = wide.box_embeddings.weight - wide.point_embeddings[1].weight
    assert 0.018 < moved.std().item() < 0.022


POINTS, LABELS = torch.zeros(2, 3, 3), torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"points": POINTS}, "go together"),
        ({"labels": LABELS}, "go together"),
        ({"points": POINTS[0], "labels": LABELS[0]}, "points have another shape"),
        ({"points": POINTS[..., :2], "labels": LABELS}, "points have another shape"),
        ({"points": POINTS, "labels": LABELS[:, :2]}, "labels have another shape"),
        ({"points": POINTS, "labels": LABELS[:1]}, "labels have another shape"),
        ({"points": POINTS, "labels": LABELS, "masks": torch.zeros(1, 1, 16, 16, 16)}, "masks have another shape"),
        ({"masks": torch.zeros(1, 1, 8, 8, 8)}, "masks have another shape"),
        ({"boxes": torch.zeros(1, 6)}, "boxes have another shape"),
        ({"boxes": torch.zeros(2, 3, 3)}, "boxes have another shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(encoder, given, message):
    with pytest.raises(PromptError, match=message):
        encoder(**given)


def test_boxes_that_cannot_be_read_are_refused():
    plain = PromptEncoder3D(channels=12, image_size=32, grid=4)
    with pytest.raises(PromptError, match="without box embeddings used with boxes") as caught:
        plain(boxes=torch.zeros(1, 2, 3))
    assert "boxes=True" in str(caught.value)


def test_channels_are_a_multiple_of_three():
    with pytest.raises(ConfigError, match="three equal parts"):
        PositionCode3D(channels=8)
