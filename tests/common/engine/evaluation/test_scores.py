"""Case scores against independent naive re-implementations, and what must be refused."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_iou, compute_surface_dice
from scipy.ndimage import binary_erosion, distance_transform_edt, generate_binary_structure

from common.engine.evaluation.scores import MEASURES, case_metrics
from common.errors import ConfigError, DataError, LabelError
from common.labels import LabelSpace

ONE = LabelSpace(("liver",))
TWO = LabelSpace(("liver", "spleen"))


def naive_surface(mask):
    """Voxels of the mask with a 6-neighbour (4 in 2-D) outside; beyond the volume is outside."""
    padded = np.pad(mask, 1)
    inner = np.ones_like(mask)
    core = tuple(slice(1, -1) for _ in range(mask.ndim))
    for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
        inner &= np.roll(padded, step, axis)[core]
    return mask & ~inner


def naive(pred, label, spacing, tolerance):
    """Whole-volume distance transforms; no cropping, no trees."""
    p, t = pred.sum(), label.sum()
    if p == 0 and t == 0:
        return dict.fromkeys(MEASURES, math.nan)
    both = (pred & label).sum()
    out = {"dice": 2 * both / (p + t), "iou": both / (pred | label).sum()}
    if p == 0 or t == 0:
        return {**out, "hd95": math.nan, "hd": math.nan, "surface_dice": 0.0}
    edge_p, edge_t = naive_surface(pred), naive_surface(label)
    there = distance_transform_edt(~edge_t, sampling=spacing)[edge_p]
    back = distance_transform_edt(~edge_p, sampling=spacing)[edge_t]
    near = (there <= tolerance).sum() + (back <= tolerance).sum()
    return {
        **out,
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
        "hd": max(there.max(), back.max()),
        "surface_dice": near / (len(there) + len(back)),
    }


def blob(rng, shape, kind):
    mask = np.zeros(shape, bool)
    if kind == "noise":
        mask = rng.random(shape) < 0.15
    elif kind == "voxel":
        mask[tuple(rng.integers(0, n) for n in shape)] = True
    elif kind == "border":
        mask[tuple(slice(0, max(1, n // 2)) for n in shape)] = True
    elif kind == "ball":
        centre = [rng.uniform(0.3, 0.7) * n for n in shape]
        grid = np.indices(shape)
        mask = sum(((g - c) / (0.3 * n)) ** 2 for g, c, n in zip(grid, centre, shape)) < 1
    elif kind == "full":
        mask[:] = True
    return mask


KINDS = ("empty", "voxel", "border", "ball", "noise", "full")


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.3, 5.0)])
def test_equals_naive_twin(first, second, spacing):
    rng = np.random.default_rng(KINDS.index(first) * 7 + KINDS.index(second))
    pred, label = blob(rng, (11, 9, 6), first), blob(rng, (11, 9, 6), second)
    (row,) = case_metrics(pred[None].astype(int), label[None].astype(int), ONE, None, spacing)
    for measure, value in naive(pred, label, spacing, 2.0).items():
        np.testing.assert_allclose(row[measure], value, rtol=1e-5, atol=1e-6, err_msg=measure)
    assert row["volume_pred_ml"] == pytest.approx(pred.sum() * math.prod(spacing) / 1000)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(*[st.integers(2, 9)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    tolerance=st.floats(0, 8),
    share=st.floats(0, 1),
)
def test_equals_naive_twin_on_random_masks(seed, shape, spacing, tolerance, share):
    rng = np.random.default_rng(seed)
    pred, label = rng.random(shape) < share, rng.random(shape) < share
    (row,) = case_metrics(pred.astype(int), label.astype(int), ONE, None, spacing, surface_tolerance_mm=tolerance)
    # a distance that equals the tolerance to rounding may fall on either side
    bounds = [naive(pred, label, spacing, tolerance + e)["surface_dice"] for e in (-1e-4, 1e-4)]
    twin = naive(pred, label, spacing, tolerance)
    for measure in ("dice", "iou", "hd95", "hd"):
        np.testing.assert_allclose(row[measure], twin[measure], rtol=1e-5, atol=1e-6)
    assert math.isnan(row["surface_dice"]) or bounds[0] - 1e-9 <= row["surface_dice"] <= bounds[1] + 1e-9


def test_equals_monais_metrics():
    rng = np.random.default_rng(3)
    pred, label = blob(rng, (20, 18, 12), "ball"), blob(rng, (20, 18, 12), "ball")
    spacing = (0.8, 1.1, 3.0)
    (row,) = case_metrics(pred.astype(int), label.astype(int), ONE, None, spacing)
    p, t = (torch.from_numpy(m)[None, None].float() for m in (pred, label))
    both = {"y_pred": p, "y": t, "include_background": True}
    assert row["dice"] == pytest.approx(float(compute_dice(**both)))
    assert row["iou"] == pytest.approx(float(compute_iou(**both)))
    assert row["hd"] == pytest.approx(float(compute_hausdorff_distance(**both, spacing=spacing)))
    assert row["hd95"] == pytest.approx(float(compute_hausdorff_distance(**both, percentile=95, spacing=spacing)))
    nsd = compute_surface_dice(**both, class_thresholds=[2.0], spacing=spacing)
    assert row["surface_dice"] == pytest.approx(float(nsd))


def test_symmetric_and_perfect():
    rng = np.random.default_rng(0)
    pred, label = blob(rng, (9, 9, 9), "ball").astype(int), blob(rng, (9, 9, 9), "noise").astype(int)
    one, other = case_metrics(pred, label, ONE)[0], case_metrics(label, pred, ONE)[0]
    assert {m: one[m] for m in MEASURES} == {m: other[m] for m in MEASURES}
    same = case_metrics(pred, pred, ONE)[0]
    assert [same[m] for m in MEASURES] == [1.0, 1.0, 0.0, 0.0, 1.0]


def test_hd95_known_value_in_mm():
    pred, label = np.zeros((20, 5, 5), int), np.zeros((20, 5, 5), int)
    pred[2, 2, 2] = label[7, 2, 2] = 1
    row = case_metrics(pred, label, ONE, None, (3.0, 1.0, 1.0))[0]
    assert row["hd95"] == row["hd"] == pytest.approx(15.0)


def naive_legacy(pred, label):
    """medpy's dc and hd95 under the TransUNet family's rule, in voxels."""
    if pred.any() and label.any():
        cross = generate_binary_structure(pred.ndim, 1)
        edge_p, edge_t = (m ^ binary_erosion(m, structure=cross) for m in (pred, label))
        there, back = distance_transform_edt(~edge_t)[edge_p], distance_transform_edt(~edge_p)[edge_t]
        return 2 * (pred & label).sum() / (pred.sum() + label.sum()), np.percentile(np.hstack((there, back)), 95)
    return (1, 0) if pred.any() else (0, 0)


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_legacy_rule(first, second):
    rng = np.random.default_rng(5)
    pred, label = blob(rng, (10, 8, 7), first), blob(rng, (10, 8, 7), second)
    (row,) = case_metrics(pred.astype(int), label.astype(int), ONE, None, (2.0, 0.5, 4.0), empty="legacy")
    np.testing.assert_allclose((row["dice"], row["hd95"]), naive_legacy(pred, label), rtol=1e-5)


def test_two_dimensions():
    rng = np.random.default_rng(2)
    pred, label = blob(rng, (17, 13), "ball"), blob(rng, (17, 13), "border")
    (row,) = case_metrics(pred[None].astype(int), label[None].astype(int), ONE, None, (0.5, 2.0))
    for measure, value in naive(pred, label, (0.5, 2.0), 2.0).items():
        np.testing.assert_allclose(row[measure], value, rtol=1e-5)


def test_unannotated_structures_give_no_row():
    pred, label = np.ones((4, 4, 4), int), np.zeros((4, 4, 4), int)
    rows = case_metrics(pred, label, TWO, [True, False, True])
    assert [r["structure"] for r in rows] == ["spleen"]


def test_overlapping_structures():
    space = LabelSpace(("a", "b"), exclusive=False)
    pred, label = np.zeros((2, 5, 5, 5), int), np.zeros((2, 5, 5, 5), int)
    pred[:, 1:4], label[0, 1:4], label[1] = 1, 1, 1
    rows = case_metrics(pred, label, space)
    assert rows[0]["dice"] == 1.0 and rows[1]["dice"] == pytest.approx(2 * 75 / (75 + 125))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_refuses_non_finite(bad, side):
    maps = [np.zeros((3, 3, 3)), np.zeros((3, 3, 3))]
    maps[side][1, 1, 1] = bad
    with pytest.raises(DataError, match=r"case7.*NaN or infinite"):
        case_metrics(*maps, ONE, where="case7")


@pytest.mark.parametrize("value", [0.5, 2, -1, 255])
def test_refuses_foreign_values(value):
    pred = np.zeros((3, 3, 3))
    pred[0, 0, 0] = value
    with pytest.raises(LabelError):
        case_metrics(pred, np.zeros((3, 3, 3)), ONE)


def test_refuses_wrong_arguments():
    zero = np.zeros((3, 3, 3), int)
    with pytest.raises(DataError, match="differ in shape"):
        case_metrics(zero, zero[:2], ONE)
    with pytest.raises(LabelError, match="one entry per class"):
        case_metrics(zero, zero, ONE, [True])
    with pytest.raises(LabelError, match="one channel each"):
        case_metrics(zero, zero, LabelSpace(("a", "b"), exclusive=False))
    for spacing in ((1, 1), (1, 0, 1), (1, math.nan, 1)):
        with pytest.raises(ConfigError, match="spacing"):
            case_metrics(zero, zero, ONE, None, spacing)
    with pytest.raises(ConfigError, match="tolerance"):
        case_metrics(zero, zero, ONE, surface_tolerance_mm=-1)
    with pytest.raises(ConfigError, match="rule"):
        case_metrics(zero, zero, ONE, empty="zero")
