"""Windows that follow an object: where they go, what they are shown, how their logits are merged."""

import logging
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from common.engine.interactive.encoded_volume import NOTHING, Block
from common.engine.interactive.object_windows import ObjectState, Windows, _deepest, _tiles
from common.engine.interactive.session import Session
from common.errors import PromptError

Build = Callable[..., Any]
MM = 1.5


def tube(length: int = 110, low: int = 8, high: int = 100) -> tuple[MetaTensor, Tensor]:
    """A bright bar along x, longer than any window, and its mask, on the network's own grid."""
    mask = torch.zeros(length, 40, 40, dtype=torch.bool)
    mask[low:high, 14:26, 15:27] = True
    noise = torch.randn(mask.shape, generator=torch.Generator().manual_seed(1))
    image = (100 + 80.0 * mask + 2 * noise)[None]
    return MetaTensor(image, affine=torch.diag(torch.tensor([MM, MM, MM, 1.0], dtype=torch.float64))), mask


def dice(mask: Tensor, target: Tensor) -> float:
    a = mask.bool()
    return float(2 * (a & target).sum() / (a.sum() + target.sum()))


def test_windows_follow_the_object(growing: Build) -> None:
    image, mask = tube()
    alone = Session(network=growing(), image=image).click("bar", (50, 20, 20))
    assert alone.open_ended and alone.windows == 1 and dice(alone.mask.as_tensor()[0], mask) < 0.6
    session = Session(network=growing(), image=image, follow=True, cache=16)
    answer = session.click("bar", (50, 20, 20))
    assert not answer.open_ended and answer.windows == session.encodings == 6
    assert dice(answer.mask.as_tensor()[0], mask) > 0.9
    starts = [w.start for w in session.events[-1].state.windows]
    assert starts[:3] == [(34, 4, 4), (18, 4, 4), (50, 4, 4)] and max(s[0] for s in starts) == 78
    before = session.encodings
    session.click("bar", (70, 20, 13), inside=False)
    session.click("bar", (12, 20, 20))
    assert session.encodings == before


def test_a_new_window_is_shown_what_is_known(growing: Build) -> None:
    image, _ = tube()
    network = growing()
    session = Session(network=network, image=image, follow=True)
    session.click("bar", (50, 20, 20))
    state = session.events[-1].state
    second = next(w for w in state.windows if w.start == (18, 4, 4))
    asked = network.asked[1]
    first = network.upsample(state.windows[0].low_res)[0, 0]
    known = torch.zeros(32, 32, 32)
    known[16:] = first[:16]
    assert torch.allclose(asked.masks[0, 0], known.reshape(16, 2, 16, 2, 16, 2).mean((1, 3, 5)), atol=1e-6)
    assert second.seed is not None and asked.labels.tolist() == [[1]]
    local = [int(c - s) for c, s in zip(second.seed, second.start, strict=True)]
    assert asked.points.tolist() == [[local]] and local[0] >= 16
    inside = [abs(c - m) for c, m in zip(second.seed[1:], (19.5, 20.5), strict=True)]
    assert max(inside) <= 2  # deep in the bar
    session.click("bar", (20, 20, 20), inside=False)
    assert network.asked[-1].labels.tolist() == [[1, 0]] and network.asked[-1].points[0, 0].tolist() == local
    session.click("bar", (21, 20, 20))
    assert network.asked[-1].labels.tolist() == [[0, 1]]  # the user's own click takes the place of ours


def test_overlaps_are_averaged(growing: Build) -> None:
    image, _ = tube()
    session = Session(network=growing(), image=image, follow=True)
    session.click("bar", (50, 20, 20))
    session.click("bar", (52, 30, 32))
    state = session.events[-1].state
    block = session.windows.merged(state)
    looked: dict[tuple[int, ...], list[float]] = {}
    for window in state.windows:
        values = session.windows.network.upsample(window.low_res)[0, 0].detach()
        for at in np.ndindex(8, 8, 8):  # every fourth voxel
            where = tuple(4 * i + s for i, s in zip(at, window.start, strict=True))
            looked.setdefault(where, []).append(float(values[tuple(4 * i for i in at)]))
    assert max(len(v) for v in looked.values()) > 1
    for where, values in looked.items():
        mine = float(block.values[tuple(w - s for w, s in zip(where, block.start, strict=True))])
        assert mine == pytest.approx(sum(values) / len(values), abs=1e-5)
    assert bool((block.values == NOTHING).any()) == (len({w.start[1:] for w in state.windows}) > 1)


def test_one_window_is_the_networks_answer(growing: Build) -> None:
    image, _ = tube()
    network = growing()
    session = Session(network=network, image=image)
    session.click("bar", (50, 20, 20))
    window = session.events[-1].state.windows[0]
    block = session.windows.merged(session.events[-1].state)
    assert block.start == window.start and torch.equal(block.values, network.upsample(window.low_res)[0, 0].detach())


def test_the_end_of_the_volume_is_no_open_face(growing: Build) -> None:
    image, mask = tube(length=60, low=0, high=60)
    session = Session(network=growing(), image=image, follow=True)
    answer = session.click("bar", (10, 20, 20))
    starts = [w.start[0] for w in session.events[-1].state.windows]
    assert starts == [-6, 10, 26, 28] and not answer.open_ended
    assert dice(answer.mask.as_tensor()[0], mask) > 0.85


def test_a_click_elsewhere_begins_a_window_of_the_same_object(growing: Build) -> None:
    image, _ = tube(high=30)
    image[0, 84:96, 14:26, 15:27] += 80
    session = Session(network=growing(), image=image, follow=True)
    session.click("bar", (20, 20, 20))
    count = session.answer("bar").windows
    answer = session.click("bar", (90, 20, 20))
    assert answer.windows > count and bool(answer.mask[0, 90, 20, 20]) and session.objects == ("bar",)


@pytest.mark.parametrize("follow", [True, False])
def test_a_box_larger_than_a_window(growing: Build, follow: bool) -> None:
    image, mask = tube()
    session = Session(network=growing(), image=image, follow=follow)
    answer = session.box("bar", [[8, 14, 15], [99, 25, 26]])
    starts = sorted(w.start[0] for w in session.events[-1].state.windows)
    if not follow:
        assert answer.windows == 1 and answer.open_ended and starts == [38]
        return
    assert starts == [4, 18, 31, 45, 58, 72] and dice(answer.mask.as_tensor()[0], mask) > 0.9
    shown = [a.boxes[0].tolist() for a in session.windows.network.asked]
    assert shown[0] == [[4, 10, 11], [31, 21, 22]] and shown[-1] == [[0, 10, 11], [27, 21, 22]]
    assert all(a.points is None for a in session.windows.network.asked)
    assert not session.windows.open_faces(session.events[-1].state)


def test_too_many_windows(growing: Build, caplog: pytest.LogCaptureFixture) -> None:
    image, _ = tube()
    session = Session(network=growing(), image=image, follow=True, max_windows=3)
    with caplog.at_level(logging.WARNING):
        answer = session.click("bar", (50, 20, 20))
    assert answer.windows == 3 and answer.open_ended and "beyond 3 windows" in caplog.text
    other = Session(network=growing(), image=image, follow=True, max_windows=3)
    with pytest.raises(PromptError, match="more windows than there may be"):
        other.box("bar", [[8, 14, 15], [99, 25, 26]])
    assert other.objects == ()


@pytest.mark.parametrize(
    ("reuse", "x", "shared"), [(0.25, 57, True), (0.25, 60, False), (0.0, 65, True), (0.9, 50, False)]
)
def test_a_new_object_shares_a_window_that_holds_it_well(growing: Build, reuse: float, x: int, shared: bool) -> None:
    image, _ = tube()
    session = Session(network=growing(), image=image, reuse_margin=reuse)
    session.click("a", (50, 20, 20))
    session.click("b", (x, 20, 20))
    windows = session.events[-1].state.windows
    assert (windows[0].start == (34, 4, 4)) == (shared or x == 50)
    assert session.encodings == (1 if shared or x == 50 else 2)


def test_half_a_window_of_margin_centres_a_new_one_even_where_a_window_holds_the_whole_scan(growing: Build) -> None:
    small = MetaTensor(tube()[0].as_tensor()[:, 40:60, 10:30, 10:30], affine=torch.eye(4))
    starts = []
    for earlier in (False, True):
        session = Session(network=growing(), image=small, reuse_margin=0.5)
        if earlier:
            session.click("a", (10, 10, 10))
        session.click("b", (4, 6, 8))
        starts.append(session.events[-1].state.windows[0].start)
    assert starts[0] == starts[1]


def test_faces_of_an_empty_mask_are_closed(growing: Build) -> None:
    image, _ = tube()
    session = Session(network=growing(), image=image)
    session.click("bar", (50, 20, 20))
    window = session.events[-1].state.windows[0]
    empty = ObjectState(windows=(window._replace(low_res=-torch.ones_like(window.low_res)),))
    full = ObjectState(windows=(window._replace(low_res=torch.ones_like(window.low_res)),))
    assert session.windows.open_faces(empty) == []
    faces = [(axis, side) for _, axis, side in session.windows.open_faces(full)]
    assert faces == [(0, -1), (0, 1), (1, -1), (1, 1), (2, -1), (2, 1)]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [-1, 1])
def test_only_the_last_layer_of_a_window_is_its_face(growing: Build, axis: int, side: int) -> None:
    """A mask on the very face is open there and nowhere else; one voxel further in it is closed."""
    image, _ = tube()
    session = Session(network=growing(), image=image)
    session.click("bar", (50, 20, 20))
    state = session.events[-1].state
    size = session.windows.size
    for inset, wanted in ((0, [(state.windows[0].start, axis, side)]), (1, [])):
        values = torch.full((size,) * 3, -1.0)
        at = [slice(size // 2, size // 2 + 1)] * 3
        face = inset if side < 0 else size - 1 - inset
        at[axis] = slice(face, face + 1)
        values[tuple(at)] = 1
        assert session.windows.open_faces(state, Block(state.windows[0].start, values)) == wanted


def test_what_lies_beyond_a_window_is_no_face_of_it(growing: Build) -> None:
    """The mask touches the face of a second window, one voxel further; the first is closed."""
    image, _ = tube()
    session = Session(network=growing(), image=image)
    session.click("bar", (50, 20, 20))
    first = session.events[-1].state.windows[0]
    second = first._replace(start=(first.start[0] + 1, *first.start[1:]))
    size = session.windows.size
    values = torch.full((size + 1, size, size), -1.0)
    values[size, size // 2, size // 2] = 1
    found = session.windows.open_faces(ObjectState(windows=(first, second)), Block(first.start, values))
    assert found == [(second.start, 0, 1)]


def scene(*encoded: tuple[int, int, int], reuse: float = 0.25) -> Windows:
    """Windows of 32 voxels over a volume that goes on along its first axis alone."""
    volume = SimpleNamespace(network=None, size=32, shape=(40, 32, 32), encoded=list(encoded))
    return Windows(volume=volume, follow=True, reuse=reuse)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("encoded", "low", "high", "start"),
    [
        ([(0, 0, 0)], 23, 23, (0, 0, 0)),  # eight voxels from the face beyond which the volume goes on
        ([(0, 0, 0)], 24, 24, (8, 0, 0)),  # seven: one around it
        ([(0, 0, 0)], 3, 23, (0, 0, 0)),
        ([(0, 0, 0)], 3, 24, (-2, 0, 0)),
        ([(8, 0, 0)], 16, 16, (8, 0, 0)),
        ([(8, 0, 0)], 15, 15, (-1, 0, 0)),
        ([(8, 0, 0)], 15, 30, (7, 0, 0)),
        ([(0, 0, 0), (8, 0, 0)], 18, 18, (0, 0, 0)),  # 13 against 10
        ([(0, 0, 0), (8, 0, 0)], 21, 21, (8, 0, 0)),
        ([], 18, 18, (2, 0, 0)),
    ],
)
def test_an_object_begins_where_it_has_room(
    encoded: list[tuple[int, int, int]], low: int, high: int, start: tuple[int, int, int]
) -> None:
    assert scene(*encoded)._begin((low, 16, 16), (high, 16, 16)) == start
    assert scene(*encoded, reuse=0.5)._begin((low, 16, 16), (high, 16, 16))[0] == (low + high + 1) // 2 - 16


def test_a_window_holds_what_rounds_into_it() -> None:
    windows = scene()
    assert windows._holds((0, 0, 0), (-0.5, 0, 31.4)) and not windows._holds((0, 0, 0), (-0.6, 0, 0))
    assert not windows._holds((0, 0, 0), (0, 31.5, 0)) and windows._holds((4, 0, 0), (35.49, 0, 0))


def test_the_next_window_is_half_a_window_further_and_inside_the_volume() -> None:
    windows = scene()
    windows.volume.shape = (100, 32, 40)  # type: ignore[misc]
    assert windows._beyond((20, 0, 4), 0, 1) == (36, 0, 4) and windows._beyond((20, 0, 4), 0, -1) == (4, 0, 4)
    assert windows._beyond((60, 0, 4), 0, 1) == (68, 0, 4) and windows._beyond((8, 0, 4), 0, -1) == (0, 0, 4)
    assert windows._beyond((20, 0, 4), 2, 1) == (20, 0, 8) and windows._beyond((80, 0, 0), 0, 1) == (80, 0, 0)


def test_tiles_cover_a_box_and_an_eighth_around_it() -> None:
    assert _tiles(10.0, 1, 32) == [-6] and _tiles(10.0, 32, 32) == [10] and _tiles(10.0, 31, 32) == [9]
    assert _tiles(10.0, 33, 32) == [6, 15] and _tiles(0.0, 40, 32) == [-4, 12] and _tiles(0.0, 41, 32) == [-4, 4, 13]
    for extent in range(33, 130):
        found = _tiles(5.0, extent, 32)
        assert found[0] == 1 and abs(found[-1] + 32 - (5 + extent + 4)) <= 0.5
        assert max(b - a for a, b in pairwise(found)) <= 16


def test_the_deepest_voxel_is_one_of_the_volume() -> None:
    logits = -torch.ones(9, 9, 9)
    assert _deepest(logits, (5, 6, 7)) is None
    logits[2:7, 3:8, 1:6] = 1
    assert _deepest(logits, (5, 6, 7)) == (9, 11, 10)
