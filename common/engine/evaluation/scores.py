"""How well one predicted label map agrees with the annotated one, structure by structure."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from monai.metrics.utils import get_edge_surface_distance
from numpy.typing import ArrayLike, NDArray

from ...errors import ConfigError, DataError, LabelError
from ...labels import LabelSpace
from ...overlap import dice, iou

__all__ = ["MEASURES", "EmptyRule", "case_metrics", "check_label_map"]

EmptyRule = Literal["nan_skip", "legacy"]
MEASURES = ("dice", "iou", "hd95", "hd", "surface_dice")
NAN = float("nan")


def check_label_map(array: ArrayLike | torch.Tensor, labels: LabelSpace, *, what: str, where: object = None) -> Any:
    """Return the voxels as masks ready to be compared, or refuse them.

    Args:
        array: integer label map ``[1, X, Y, Z]`` or ``[X, Y, Z]`` (2-D likewise) with values 0..K; for overlapping
            structures ``[K, X, Y, Z]`` with values 0 and 1.
        labels: the label space that the values refer to.
        what: "prediction" or "label", for the message.
        where: the case, for the message.

    Returns:
        integer array ``[X, Y, Z]`` (exclusive) or boolean array ``[K, X, Y, Z]``.

    Raises:
        DataError: for NaN or infinite values.
        LabelError: for fractional values, values outside the label space or the wrong number of channels.
    """
    raw = array.detach().cpu() if isinstance(array, torch.Tensor) else array
    voxels = np.asarray(raw)
    if voxels.dtype.kind == "f":
        if not np.isfinite(voxels).all():
            bad = int((~np.isfinite(voxels)).sum())
            raise DataError(f"the {what} holds NaN or infinite values", where=where, got=f"{bad} voxels")
        if (voxels != np.rint(voxels)).any():
            raise LabelError(f"the {what} holds fractional values", where=where, expected="an integer label map")
        voxels = voxels.astype(np.int64)
    highest = len(labels) if labels.exclusive else 1
    if voxels.size and (int(voxels.min()) < 0 or int(voxels.max()) > highest):
        raise LabelError(
            f"the {what} holds values outside the label space",
            where=where,
            got=f"{int(voxels.min())}..{int(voxels.max())}",
            expected=f"0..{highest}",
            hint="map the file's values to indices first (MapLabelsd)",
        )
    if labels.exclusive:
        return voxels[0] if voxels.ndim > 2 and voxels.shape[0] == 1 else voxels
    if voxels.shape[0] != len(labels):
        raise LabelError(
            f"the {what} of overlapping structures needs one channel each",
            where=where,
            got=voxels.shape,
            expected=f"[{len(labels)}, ...]",
        )
    return voxels.astype(bool)


def _check(
    pred: Any, label: Any, labels: LabelSpace, annotated: Any, spacing: Sequence[float], where: object
) -> tuple[NDArray[np.bool_], tuple[float, ...]]:
    if pred.shape != label.shape:
        raise DataError("prediction and label differ in shape", where=where, got=pred.shape, expected=label.shape)
    mask = np.ones(labels.num_classes, bool) if annotated is None else np.asarray(annotated).astype(bool)
    if mask.shape != (labels.num_classes,):
        raise LabelError(
            "`annotated` needs one entry per class", where=where, got=mask.shape, expected=f"[{len(labels)}+1]"
        )
    size = tuple(float(s) for s in spacing)
    dims = label.ndim if labels.exclusive else label.ndim - 1
    if len(size) != dims or not all(math.isfinite(s) and s > 0 for s in size):
        raise ConfigError(
            "the spacing must be positive, one value per axis", where=where, got=size, expected=f"{dims} values in mm"
        )
    return mask, size


def _crop(pred: NDArray[np.bool_], label: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Both masks cut to the box around their union; distances between them do not change."""
    either = pred | label
    slices = []
    for axis in range(either.ndim):
        on = np.flatnonzero(either.any(axis=tuple(a for a in range(either.ndim) if a != axis)))
        slices.append(slice(int(on[0]), int(on[-1]) + 1))
    box = tuple(slices)
    return pred[box], label[box]


def _distances(
    pred: NDArray[np.bool_], label: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances (mm) from each surface voxel of one mask to the other's surface, both ways."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, both, _ = get_edge_surface_distance(
            torch.from_numpy(np.ascontiguousarray(pred)),
            torch.from_numpy(np.ascontiguousarray(label)),
            spacing=list(spacing),
            symmetric=True,
        )
    return both[0].double(), both[1].double()  # type: ignore[misc]


def _quantile(values: torch.Tensor, q: float) -> float:
    return float(np.percentile(values.numpy(), q))


def _measure(
    pred: NDArray[np.bool_], label: NDArray[np.bool_], spacing: Sequence[float], tol: float
) -> dict[str, float]:
    n_pred, n_label = int(pred.sum()), int(label.sum())
    if n_pred == 0 and n_label == 0:
        return dict.fromkeys(MEASURES, NAN)
    if n_pred == 0 or n_label == 0:
        return {"dice": 0.0, "iou": 0.0, "hd95": NAN, "hd": NAN, "surface_dice": 0.0}
    both = int((pred & label).sum())
    there, back = _distances(*_crop(pred, label), spacing)
    near = int((there <= tol).sum()) + int((back <= tol).sum())
    return {
        "dice": dice(both, n_pred, n_label),
        "iou": iou(both, n_pred, n_label),
        "hd95": max(_quantile(there, 95), _quantile(back, 95)),
        "hd": max(float(there.max()), float(back.max())),
        "surface_dice": near / (len(there) + len(back)),
    }


def _legacy(pred: NDArray[np.bool_], label: NDArray[np.bool_], row: dict[str, float]) -> dict[str, float]:
    """Overwrite Dice and HD95 by the convention of the TransUNet family (voxels, pooled percentile)."""
    if pred.any() and label.any():
        there, back = _distances(*_crop(pred, label), [1.0] * pred.ndim)
        return {**row, "hd95": _quantile(torch.cat([there, back]), 95)}
    return {**row, "dice": 1.0 if pred.any() else 0.0, "hd95": 0.0}


def case_metrics(
    pred: ArrayLike | torch.Tensor,
    label: ArrayLike | torch.Tensor,
    labels: LabelSpace,
    annotated: ArrayLike | torch.Tensor | None = None,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    *,
    empty: EmptyRule = "nan_skip",
    surface_tolerance_mm: float = 2.0,
    where: object = None,
) -> list[dict[str, Any]]:
    """Score one case: one row per annotated foreground structure.

    With prediction P, label L, their surface voxels ∂P, ∂L and d(a, B) the distance of a voxel centre to a set::

        dice = 2|P∩L| / (|P|+|L|)            iou = |P∩L| / |P∪L|
        hd   = max(max d(∂P, ∂L), max d(∂L, ∂P))            hd95 = max of both directions' 95th percentiles
        surface_dice = (|{d(∂P, ∂L) <= t}| + |{d(∂L, ∂P) <= t}|) / (|∂P| + |∂L|)

    What happens when a structure is empty (rule ``nan_skip``): in both maps, every measure is NaN and means skip it;
    in one of them, the overlap measures are 0 and the distances NaN (no distance to nothing exists). ``legacy`` is the
    TransUNet family's convention and only good for comparison with their printed tables: Dice and HD95 are (1, 0) for
    a structure that is predicted but not annotated, (0, 0) when nothing is predicted, and HD95 is the 95th percentile
    of both directions pooled, in voxels.

    Args:
        pred: map of indices 0..K, ``[1, X, Y, Z]`` or ``[X, Y, Z]`` (or 2-D); ``[K, X, Y, Z]`` when structures overlap.
        label: same shape as ``pred``.
        labels: the label space of both.
        annotated: ``[K+1]`` mask of the classes this case is annotated for; all when None. Others give no row.
        spacing: voxel size in mm, one value per axis.
        empty: the rule above.
        surface_tolerance_mm: t of the surface Dice, >= 0.
        where: case name for messages.

    Returns:
        rows with ``structure``, the measures, ``volume_pred_ml`` and ``volume_label_ml`` (2-D: of a slice 1 mm thick).

    Raises:
        DataError: shapes differ or values are not finite.
        LabelError: values do not belong to the label space.
        ConfigError: impossible spacing, tolerance or rule.

    Reference: Maier-Hein et al., Metrics reloaded, Nature Methods 2024; Nikolov et al., arXiv:1809.04430 (surface Dice,
    here with voxel counts instead of surface areas, as MONAI's default).
    """
    if empty not in ("nan_skip", "legacy"):
        raise ConfigError("unknown rule for empty structures", where=where, got=empty, expected="nan_skip or legacy")
    if not math.isfinite(surface_tolerance_mm) or surface_tolerance_mm < 0:
        raise ConfigError("the surface tolerance must be >= 0 mm", where=where, got=surface_tolerance_mm)
    p = check_label_map(pred, labels, what="prediction", where=where)
    t = check_label_map(label, labels, what="label", where=where)
    mask, size = _check(p, t, labels, annotated, spacing, where)
    voxel_ml = math.prod(size) / 1000.0
    rows = []
    for i, name in enumerate(labels.names, start=1):
        if not mask[i]:
            continue
        a, b = (p == i, t == i) if labels.exclusive else (p[i - 1], t[i - 1])
        scores = _measure(a, b, size, surface_tolerance_mm)
        if empty == "legacy":
            scores = _legacy(a, b, scores)
        volumes = {"volume_pred_ml": int(a.sum()) * voxel_ml, "volume_label_ml": int(b.sum()) * voxel_ml}
        rows.append({"structure": name, **scores, **volumes})
    return rows
