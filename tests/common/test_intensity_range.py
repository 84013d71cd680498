"""A scan's intensities are judged by what a CT must be, by the scans beside it and by what a model learned from."""

import numpy as np
import pytest

from common.intensity_range import Range, odd_beside, odd_ct, odd_ct_for, odd_for, range_of

RNG = np.random.default_rng(0)
BODY = RNG.normal(40, 60, 20_000)
AIR = np.full(20_000, -1000.0)
CT = np.concatenate([AIR, BODY])
MR = np.concatenate([np.zeros(20_000), RNG.uniform(100, 900, 20_000)])


def test_range_is_the_naive_percentiles() -> None:
    voxels = np.append(RNG.normal(0, 1, 5_000), [np.nan, np.inf])
    found = range_of(voxels.reshape(2, -1))
    kept = voxels[np.isfinite(voxels)]
    assert found is not None and found.low == pytest.approx(np.percentile(kept, 0.5))
    assert found.high == pytest.approx(np.percentile(kept, 99.5)) and found.smallest == kept.min()
    assert range_of(np.array([np.nan])) is None


@pytest.mark.parametrize(("voxels", "words"), [
    (CT, None), (np.clip(CT, -200, 300), None), (BODY, None), (CT + 1024, "offset"), (CT + 1000, "offset"),
    ((CT - CT.mean()) / CT.std(), "rescaled"), (np.append((BODY - 40) / 60, 70.0), "rescaled"), (BODY[:50], None),
    ((np.clip(CT, -160, 240) - 40) / 100, "rescaled"), ((np.clip(CT, -1000, 1000)) / 50, "rescaled"),
    (CT - 1024, "twice"), ((CT + 1000) / 1400, "rescaled"), ((np.clip(CT, -160, 240) + 160) / 400 * 255, "picture"),
])  # fmt: skip
def test_what_a_ct_cannot_be(voxels: np.ndarray, words: str | None) -> None:
    found = range_of(voxels)
    assert found is not None
    said = odd_ct(found)
    assert (said is None) if words is None else (words in str(said))


@pytest.mark.parametrize("padding", [-2000.0, -1024.0, None])
def test_a_ct_with_an_offset_under_padding(padding: float | None) -> None:
    pad = np.zeros(0) if padding is None else np.full(6_000, padding)
    air = RNG.normal(-1000, 15, 20_000)
    learned = {"lows": [-1024, -1000], "highs": [180, 260]}
    body, bone, metal = BODY, RNG.uniform(300, 1500, 2_000), np.full(300, 3000.0)
    head = np.concatenate([air, body, bone, metal])
    good, bad = range_of(np.append(head, pad)), range_of(np.append(head + 1024, pad))
    assert odd_ct(good) is None and odd_for(good, learned, ct=True) is None
    assert "offset" in str(odd_ct(bad)) and "offset" in str(odd_for(bad, learned, ct=True))
    assert odd_for(bad, {"lows": [-1024, 0], "highs": [1150, 3100]}, ct=True) is None  # as it was taught
    assert odd_ct(range_of(np.concatenate([body, bone, metal, pad]))) is None  # a body alone
    assert odd_for(range_of(MR), {"lows": [0, 0], "highs": [700, 1500]}, ct=False) is None


@pytest.mark.parametrize(("base", "ct"), [(CT, True), (MR, False)])
def test_one_scan_among_others(base: np.ndarray, ct: bool) -> None:
    alike = [range_of(base * f) for f in (0.9, 1.0, 1.1, 1.05)]
    padded = range_of(np.append(base, np.full(2_000, -3024.0 if ct else 0.0)))
    assert not [r for r in alike if odd_beside(r, alike, ct=ct)] and odd_beside(padded, [*alike, padded], ct=ct) is None
    for odd in (base + 1024, base / 3000):
        one = range_of(odd)
        assert "the other scans lie between" in odd_beside(one, [*alike, one], ct=ct)
    assert odd_beside(range_of(base + 1024), alike[:2], ct=ct) is None


def test_a_scan_for_a_model() -> None:
    learned = {"lows": [-1024, -1000], "highs": [180, 260]}
    assert odd_for(range_of(CT), learned, ct=True) is None
    assert "offset" in odd_for(range_of(CT + 1024), learned, ct=True)
    assert "-1024" in odd_for(range_of((CT + 1000) / 1400), learned, ct=True)
    assert odd_for(range_of(np.append(CT, np.full(9_000, 1200.0))), learned, ct=True) is None  # a bone, a metal
    assert odd_for(range_of(MR), {"lows": [0, 0], "highs": [700, 1500]}, ct=False) is None
    assert "scale" in odd_for(range_of(MR / 900), {"lows": [0, 0], "highs": [700, 1500]}, ct=False)
    assert "scale" in odd_for(range_of(MR * 100), {"lows": [0, 0], "highs": [700, 1500]}, ct=False)
    assert odd_for(Range(0, 1, 0, 1), {}, ct=True) is None and odd_for(Range(0, 1, 0, 1), {"lows": 3}, ct=True) is None


@pytest.mark.parametrize("paddings", [(-2000.0, -1024.0), (-3024.0, -2000.0, -1000.0)])
def test_padding_of_several_values_hides_no_offset(paddings: tuple[float, ...]) -> None:
    pad = np.repeat(paddings, 6_000)
    shifted = range_of(np.concatenate([pad, BODY + 1024, np.full(300, 5.0)]))
    assert shifted is not None and shifted.shifted and "near 1024" in str(odd_ct(shifted))
    noisy = np.concatenate([RNG.normal(-980, 15, 18_000).round(), RNG.normal(1000, 60, 20_000)])  # bone alone, in air
    for other in (np.concatenate([pad, BODY]), noisy):
        found = range_of(other)
        assert found is not None and not found.shifted and odd_ct(found) is None


HU = {"lows": [-1024, -1000], "highs": [180, 260]}
CROPS = {"lows": [-200, -50], "highs": [200, 260]}


@pytest.mark.parametrize(("found", "learned", "words"), [
    (Range(-2048, -724, -2048, 1000), HU, "twice"), (Range(-10240, 3000, -10240, 30000), HU, "scale"),
    (Range(-16384, 4800, -16384, 16000), HU, "scale"), (Range(0, 255, 0, 255), CROPS, "windowed"),
    (Range(0, 1300, 0, 1300), CROPS, "offset"), (Range(824, 1270, 824, 1270), CROPS, "offset"),
    (Range(-3024, 200, -3024, 900), HU, None), (Range(-1000, 3000, -1024, 3071), HU, None),
    (Range(-150, 240, -180, 300), CROPS, None), (Range(0, 1, 0, 1), {"lows": [0, 0], "highs": [1, 1]}, None),
    (Range(-2048, -724, -2048, 1000), {}, "twice"),
    (Range(0, 255, 0, 255), {"lows": [-5, 9], "highs": [99, 255]}, None),
])  # fmt: skip
def test_a_ct_for_a_model_of_cts(found: Range, learned: dict, words: str | None) -> None:
    said = odd_ct_for(found, learned)
    assert (said is None) if words is None else (words in str(said))


def test_a_ct_times_something_is_known_by_the_noise_of_its_air() -> None:
    air, padded = RNG.normal(-1000, 15, 20_000), np.full(30_000, -2000.0)
    scaled, good = range_of(np.append(air, BODY) * 4), range_of(np.concatenate([air, BODY, padded]))
    assert scaled is not None and scaled.deep and "scale" in str(odd_ct(scaled))
    assert good is not None and not good.deep and odd_ct(good) is None


def test_extremes_are_of_finite_voxels_and_statistics_without_end_are_none() -> None:
    found = range_of(np.array([1.0, 2.0, np.inf, -np.inf, np.nan]))
    assert found is not None and (found.smallest, found.largest) == (1.0, 2.0)
    for bad in (float("nan"), float("inf"), 10**400):
        assert odd_for(Range(0, 1e6, 0, 1e6), {"lows": [bad] * 2, "highs": [bad] * 2}, ct=False) is None
