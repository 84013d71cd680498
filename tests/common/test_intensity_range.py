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


def ends(low: float, high: float, **more: bool) -> Range:
    return Range(low, high, low, high, **more)


@pytest.mark.parametrize(("good", "bad", "words"), [
    (ends(-20, 30.5), ends(-20, 30), "rescaled"), (Range(0, 11, -500, 500), Range(0, 10, -500, 500), "rescaled"),
    (ends(-1, 255), ends(0, 255), "windowed"), (ends(-1, 256), ends(0, 256), "perhaps of 1024"),
    (ends(-1000, -300), ends(-1000, -301), "twice"), (ends(-4200, 100), ends(-4201, 100), "another scale"),
    (ends(-32000, 100), ends(-31999, 100), "another scale"), (ends(-8192, 100), ends(-8191, 100), "another scale"),
    (ends(-1000, 4000), ends(-1000, 4001), "another scale"), (ends(-900, 9), ends(-900, 9, deep=True), "another scale"),
    (ends(-900, 9), ends(-900, 9, shifted=True), "near 1024"),
])  # fmt: skip
def test_what_is_just_hu_and_what_is_not(good: Range, bad: Range, words: str) -> None:
    assert odd_ct(good) is None and words in str(odd_ct(bad))


def learned_from(lows: tuple[float, float], highs: tuple[float, float]) -> dict[str, tuple[float, float]]:
    return {"lows": lows, "highs": highs}


@pytest.mark.parametrize(("learned", "ct", "good", "bad", "words"), [
    (learned_from((0, 5), (90, 100)), False, ends(-10, 90), ends(-10.1, 90), "below 0"),
    (learned_from((-0.1, 5), (90, 100)), False, ends(-11, 90), ends(-51, 90), "constant offset"),
    (learned_from((-1000, -1000), (1000, 1000)), True, ends(-1000, -800), ends(-1000, -801), "another scale"),
    (learned_from((0, 0), (2000, 2000)), False, ends(0, 100), ends(0, 99), "another scale"),
    (learned_from((0, 10), (20, 2000)), False, ends(0, 200), ends(0, 201), "another scale"),
    (learned_from((-1000, -900), (200, 300)), True, ends(-500, 300), ends(-499, 300), "constant offset or"),
    (learned_from((-600, -500), (200, 300)), True, ends(-1000, 300), ends(-1001, 300), "constant offset or"),
    (learned_from((0, 10), (100, 100)), False, ends(60, 150), ends(61, 150), "constant offset or"),
    (learned_from((-1, 10), (100, 100)), False, ends(-51.5, 100), ends(-51.6, 100), "constant offset or"),
    (learned_from((-1000, -900), (874, 900)), True, ends(-900, 800, shifted=True), ends(-499, 800), "offset or"),
    (learned_from((-1000, -900), (873, 900)), True, ends(-900, 800), ends(-900, 800, shifted=True), "perhaps of 1024"),
])  # fmt: skip
def test_what_just_fits_a_model_and_what_does_not(
    learned: dict[str, tuple[float, float]], ct: bool, good: Range, bad: Range, words: str
) -> None:
    assert odd_for(good, learned, ct=ct) is None and words in str(odd_for(bad, learned, ct=ct))


@pytest.mark.parametrize(("learned", "good", "bad"), [
    (learned_from((0, 0), (2, 10)), (0, 30), (0, 30.1)), (learned_from((0, 0), (2, 10)), (0, 0.67), (0, 0.66)),
    (learned_from((-10, -10), (1, 10)), (-10, 30), (-10, 30.1)),
])  # fmt: skip
def test_three_times_as_bright_is_another_unit(
    learned: dict[str, tuple[float, float]], good: tuple[float, float], bad: tuple[float, float]
) -> None:
    assert odd_for(ends(*good), learned, ct=False, unit=True) is None
    assert "another unit" in str(odd_for(ends(*bad), learned, ct=False, unit=True))
    assert odd_for(ends(*bad), learned, ct=False) is None, "of what has no unit nobody can tell"


def test_what_a_model_learned_of_nothing_bright_tells_no_unit() -> None:
    assert odd_for(ends(-10, 30.1), learned_from((-10, -10), (0, 10)), ct=False, unit=True) is None


def test_two_scans_are_no_others() -> None:
    dark, bright = ends(0, 100), ends(500, 600)
    assert odd_beside(bright, [dark, bright], ct=False) is None
    assert "the other scans" in str(odd_beside(bright, [dark, dark, bright], ct=False))


def test_a_model_of_cts_with_an_offset_takes_any() -> None:
    picture = ends(0, 255)
    assert odd_ct_for(picture, learned_from((-1000, -900), (874, 2000))) is None
    assert "windowed" in str(odd_ct_for(picture, learned_from((-1000, -900), (873, 2000))))


def known(*parts: tuple[int, float]) -> Range:
    """Of so many voxels of each value."""
    found = range_of(np.concatenate([np.full(count, value) for count, value in parts]))
    assert found is not None
    return found


def test_of_large_scans_every_nth_voxel_is_taken() -> None:
    voxels = np.tile([0.0, 1000.0], 200_000)
    found, whole = range_of(voxels), range_of(voxels[:-2])
    assert found is not None and (found.low, found.high, found.smallest, found.largest) == (0, 0, 0, 1000)
    assert whole is not None and whole.high == 1000


def test_what_is_deep() -> None:
    noise = np.linspace(-2000, -1251, 50)
    for count, deep in ((50, True), (49, False)):
        found = range_of(np.append(np.zeros(1000 - count), noise[:count]))
        assert found is not None and found.deep == deep
    values = [(12, -2000.0 - i) for i in range(5)]
    assert known((900, 0.0), *values).deep and not known((900, 0.0), *values[:4]).deep, "four values are padding"
    air = range_of(np.append(np.zeros(950), np.append(noise[:49], -1250.0)))
    assert air is not None and not air.deep, "air may be as dark as that"


@pytest.mark.parametrize(("parts", "shifted"), [
    ([(51, 1000), (949, 0)], True), ([(50, 1000), (950, 0)], False),
    ([(10, 1000), (10, 2000)], False), ([(11, 1000), (10, 2000)], True),
    ([(20, 874)], False), ([(20, 875)], True), ([(20, 1174)], False), ([(20, 1173)], True),
    ([(20, 1000), *((5, -400 - i) for i in range(4))], True), ([(20, 1000), *((5, -400 - i) for i in range(5))], False),
    ([(20, 1000), (19, 300)], True), ([(20, 1000), (20, 301)], False), ([(20, 1000), (19, 301)], True),
    ([(20, 1000), *((5, v) for v in (-300, -400, -500, -600))], True),
    ([(20, 1000), *((5, v) for v in (-300, -400, -500, -600, -700))], False),
    ([(20, 1000), *((5, v) for v in (-299, -400, -500, -600, -700))], True),
])  # fmt: skip
def test_what_is_shifted(parts: list[tuple[int, float]], shifted: bool) -> None:
    assert known(*parts).shifted == shifted
