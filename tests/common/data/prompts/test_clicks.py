"""Clicks lie in what is wrong, where the strategy says, and repeat with their seed."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from common.data.prompts.clicks import NO_CLICK, click_generator, inner_voxels, next_click
from common.errors import ConfigError, PromptError


def block(low: tuple[int, ...], high: tuple[int, ...], size: int = 12) -> torch.Tensor:
    mask = torch.zeros(1, 1, size, size, size, dtype=torch.bool)
    mask[..., low[0] : high[0], low[1] : high[1], low[2] : high[2]] = True
    return mask


def naive_core(found: np.ndarray, wanted: np.ndarray) -> tuple[set[tuple[int, ...]], int]:
    """Brute force: distance of each wrong voxel to every voxel that is not wrong in that way, rim included."""
    best: tuple[float, int, dict[tuple[int, ...], float]] = (0.0, 0, {})
    for label, error in ((0, found & ~wanted), (1, wanted & ~found)):
        padded = np.pad(error, 1)
        outside = np.argwhere(~padded) - 1
        depths = {
            tuple(int(i) for i in v): float(np.sqrt(((outside - v) ** 2).sum(1).min())) for v in np.argwhere(error)
        }
        deepest = max(depths.values(), default=0.0)
        if deepest > best[0]:
            best = (deepest, label, depths)
    return {v for v, d in best[2].items() if d > best[0] / 2}, best[1]


@pytest.mark.parametrize("strategy", ["random", "ritm"])
def test_a_click_says_what_is_wrong_where_it_is(strategy: str) -> None:
    target = torch.cat([block((2, 2, 2), (8, 8, 8)), block((0, 0, 0), (3, 3, 3))])
    found = torch.cat([block((2, 2, 2), (8, 8, 5)), block((0, 0, 0), (9, 9, 9))])
    for seed in range(10):
        points, labels = next_click(found, target, strategy=strategy, generator=torch.Generator().manual_seed(seed))
        assert points.shape == (2, 1, 3) and labels.shape == (2, 1) and labels.tolist() == [[1], [0]]
        for b in range(2):
            x, y, z = (int(c) for c in points[b, 0])
            assert found[b, 0, x, y, z] != target[b, 0, x, y, z]


def test_uniform_clicks_reach_every_wrong_voxel_alike() -> None:
    target, found = block((1, 1, 1), (3, 3, 3), 4), block((1, 1, 1), (2, 3, 3), 4) | block((0, 0, 0), (1, 1, 2), 4)
    generator, counts = torch.Generator().manual_seed(0), {}
    for _ in range(1200):
        click = next_click(found, target, generator=generator)
        key = (*click.points[0, 0].int().tolist(), int(click.labels))
        counts[key] = counts.get(key, 0) + 1
    wrong = {(*v.tolist()[2:], int(target[tuple(v)])) for v in (found ^ target).nonzero()}
    assert set(counts) == wrong and len(wrong) == 6
    assert all(abs(n - 200) < 5 * (200 * 5 / 6) ** 0.5 for n in counts.values())


@pytest.mark.parametrize("seed", range(4))
def test_the_core_is_that_of_brute_force(seed: int) -> None:
    random = np.random.default_rng(seed)
    noise = [ndimage.gaussian_filter(random.normal(size=(9, 8, 7)), 1.2) > 0.02 for _ in range(2)]
    found, wanted = noise
    core, label = naive_core(found, wanted)
    mine = inner_voxels(torch.from_numpy(found), torch.from_numpy(wanted))
    assert {tuple(v) for v in mine.nonzero().tolist()} == core
    click = next_click(torch.from_numpy(found)[None, None], torch.from_numpy(wanted)[None, None], strategy="ritm")
    assert tuple(click.points[0, 0].int().tolist()) in core and int(click.labels) == label


def test_depth_on_the_bounding_box_is_depth_on_the_volume() -> None:
    random = np.random.default_rng(5)
    wanted = np.zeros((20, 18, 16), bool)
    wanted[4:15, 0:9, 9:16] = ndimage.gaussian_filter(random.normal(size=(11, 9, 7)), 1) > -0.1
    depth = ndimage.distance_transform_edt(np.pad(wanted, 1))[1:-1, 1:-1, 1:-1]
    mine = inner_voxels(torch.zeros(wanted.shape, dtype=torch.bool), torch.from_numpy(wanted))
    assert torch.equal(mine, torch.from_numpy(depth > depth.max() / 2))


def test_equal_errors_click_outside() -> None:
    found, target = block((1, 1, 1), (4, 4, 4)), block((7, 7, 7), (10, 10, 10))
    assert int(next_click(found, target, strategy="ritm").labels) == 0


@pytest.mark.parametrize("strategy", ["random", "ritm"])
def test_nothing_wrong_is_no_click(strategy: str) -> None:
    target = block((2, 2, 2), (8, 8, 8))
    for same in (target, torch.zeros_like(target)):
        points, labels = next_click(same, same, strategy=strategy)
        assert labels.tolist() == [[NO_CLICK]] and not points.any()


def test_an_empty_target_is_clicked_outside() -> None:
    found = block((2, 2, 2), (4, 4, 4))
    click = next_click(found, torch.zeros_like(found))
    assert int(click.labels) == 0 and found[0, 0][tuple(click.points[0, 0].long())]


def test_threshold_on_logits() -> None:
    target = block((2, 2, 2), (4, 4, 4))
    logits = torch.where(target, 0.3, -1.0)
    assert int(next_click(logits, target).labels) == NO_CLICK
    assert int(next_click(logits, target, threshold=0.5).labels) == 1


def test_clicks_of_a_case_do_not_depend_on_its_batch() -> None:
    targets = [block((i, 1, 1), (9, 9, 6 + i)) for i in range(3)]
    alone = [
        [next_click(torch.zeros_like(t), t, generator=g).points for _ in range(3)]
        for t, g in zip(targets, (click_generator(7, f"case{i}", "liver") for i in range(3)), strict=True)
    ]
    generators = [click_generator(7, f"case{i}", "liver") for i in range(3)]
    batch = torch.cat(targets)
    for step in range(3):
        together = next_click(torch.zeros_like(batch), batch, generator=generators).points
        assert torch.equal(together, torch.cat([a[step] for a in alone]))


def test_streams_differ_by_seed_case_and_structure() -> None:
    parts = itertools.product((0, 1), ("a", "b"), ("", "liver"))
    drawn = {float(torch.rand(1, dtype=torch.float64, generator=click_generator(*p))) for p in parts}
    assert len(drawn) == 8
    first, second = (torch.rand(3, generator=click_generator(1, "a", 2)) for _ in range(2))
    assert torch.equal(first, second)


def test_a_sample_without_errors_does_not_shift_the_others() -> None:
    target = block((2, 2, 2), (8, 8, 8))
    empty = torch.zeros_like(target)
    one = next_click(torch.cat([empty, empty]), torch.cat([target, target]), generator=torch.Generator().manual_seed(3))
    two = next_click(
        torch.cat([target, empty]), torch.cat([target, target]), generator=torch.Generator().manual_seed(3)
    )
    assert torch.equal(one.points[1], two.points[1]) and int(two.labels[0]) == NO_CLICK


def test_refusals() -> None:
    mask = block((0, 0, 0), (2, 2, 2))
    with pytest.raises(ConfigError, match="unknown way to click"):
        next_click(mask, mask, strategy="centre")
    with pytest.raises(PromptError, match="compare a prediction with its target"):
        next_click(mask[0], mask[0])
    with pytest.raises(PromptError, match="compare"):
        next_click(mask, torch.cat([mask, mask]))
    with pytest.raises(PromptError, match="one generator per sample"):
        next_click(mask, mask, generator=[torch.Generator(), torch.Generator()])
