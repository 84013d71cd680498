"""SAM-Med3D's checkpoints: every layout that goes round, other image sizes, and what is refused."""

from argparse import Namespace

import pytest
import torch

from common.backbones.sam3d.network import sam3d_network
from common.backbones.sam3d.weights import load_sam_med3d, resize_positions_3d
from common.errors import WeightError


@pytest.fixture(scope="module")
def state():
    return sam3d_network("tiny", seed=5).state_dict()


@pytest.mark.parametrize("layout", ["bare", "training", "parallel", "dict"])
def test_layouts(tmp_path, state, layout):
    content = {
        "bare": state,
        "training": {"epoch": 7, "model_state_dict": state, "losses": [0.5], "args": Namespace(gpu_ids=[0])},
        "parallel": {"model_state_dict": {f"module.{name}": value for name, value in state.items()}},
        "dict": state,
    }[layout]
    source = content
    if layout != "dict":
        source = tmp_path / "file.pth"
        torch.save(content, source)
    network = sam3d_network("tiny", seed=0)
    found = load_sam_med3d(network, source)
    assert len(found.matched) == len(state) and found.fraction == 1.0
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("size", [16, 24, 48])
def test_position_tables_of_another_size_are_resized(state, size):
    network = sam3d_network("tiny", image_size=size, rel_pos="released", seed=0).eval()
    load_sam_med3d(network, state)
    own, grid = network.state_dict(), size // 8
    position = state["image_encoder.pos_embed"]
    centre = position.mean((1, 2, 3))
    assert own["image_encoder.pos_embed"].shape == (1, grid, grid, grid, 24)
    if grid == 2:  # each new place lies between eight old ones
        corner = position[0, :2, :2, :2].mean((0, 1, 2))
        torch.testing.assert_close(own["image_encoder.pos_embed"][0, 0, 0, 0], corner)
        torch.testing.assert_close(own["image_encoder.pos_embed"].mean((1, 2, 3)), centre)
    assert own["image_encoder.blocks.2.attn.rel_pos_d"].shape == (2 * grid - 1, 12)
    window = "image_encoder.blocks.0.attn.rel_pos_d"
    assert torch.equal(own[window], state[window])
    with torch.inference_mode():
        assert network.encode(torch.randn(1, 1, size, size, size)).isfinite().all()


def test_global_distances_are_interpolated_along_their_first_axis(state):
    name = "image_encoder.blocks.2.attn.rel_pos_h"
    ramp = torch.arange(7.0)[:, None] * torch.arange(1, 13)
    found = resize_positions_3d({**state, name: ramp}, sam3d_network("tiny", image_size=16).image_encoder)[name]
    torch.testing.assert_close(found, torch.tensor([2 / 3, 3.0, 16 / 3])[:, None] * torch.arange(1, 13))


def test_the_same_size_changes_nothing(state):
    found = resize_positions_3d(state, sam3d_network("tiny").image_encoder)
    assert found == state


@pytest.mark.parametrize("table", [torch.zeros(1, 4, 4, 3, 24), torch.zeros(1, 5, 5, 5, 32), torch.zeros(4, 4, 24)])
def test_positions_that_cannot_be_resized_are_refused(state, table):
    network = sam3d_network("tiny", seed=0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(WeightError, match="cannot be resized"):
        load_sam_med3d(network, {**state, "image_encoder.pos_embed": table})
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_every_tensor_must_be_there(state):
    lacking = {name: value for name, value in state.items() if name != "mask_decoder.iou_token.weight"}
    with pytest.raises(WeightError, match="99"):
        load_sam_med3d(sam3d_network("tiny"), lacking)
    with pytest.raises(WeightError, match="no place"):
        load_sam_med3d(sam3d_network("tiny"), {**state, "other": torch.zeros(1)})


def test_another_variant_is_refused(state):
    with pytest.raises(WeightError):
        load_sam_med3d(sam3d_network("small"), state)
