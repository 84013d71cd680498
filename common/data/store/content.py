"""A prepared case as text and arrays: everything but large arrays is plain JSON, so that reading runs no code."""

from __future__ import annotations

import base64
import enum
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from ...errors import DataError

__all__ = ["decoded", "encoded"]

# arrays with more elements than this are kept in files of their own; smaller ones exactly, in the text
LARGE = 4096

Keep = Callable[[NDArray[Any]], int]
Find = Callable[[int, Mapping[str, Any]], Any]


def encoded(value: Any, keep: Keep, where: str = "") -> Any:
    """A value as JSON.

    Args:
        value: numbers, text, arrays, tensors with their metadata, lists and mappings of them.
        keep: takes a large array and returns its number.
        where: the case and the entry, for the message.

    Raises:
        DataError: for anything else.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return _scalar(value)
    if isinstance(value, (np.generic, Path)):
        return _scalar(value.item() if isinstance(value, np.generic) else str(value))
    if isinstance(value, MetaTensor):
        extra = {"meta": _meta(value.meta, keep, where), "operations": encoded(_settled(value), keep, where)}
        return {**_array(value.as_tensor().detach().cpu().numpy(), "meta_tensor", keep), **extra}
    if isinstance(value, torch.Tensor):
        return _array(value.detach().cpu().numpy(), "tensor", keep)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiubU":
        return encoded(value.tolist(), keep, where) if value.dtype.kind == "U" else _array(value, "array", keep)
    if isinstance(value, (torch.dtype, np.dtype)):
        return {"kind": "dtype", "name": str(value)}
    if isinstance(value, list):
        return [encoded(v, keep, where) for v in value]
    if isinstance(value, tuple):
        return {"kind": "tuple", "entries": [encoded(v, keep, where) for v in value]}
    if isinstance(value, Mapping):
        pairs = [[encoded(k, keep, where), encoded(v, keep, f"{where}::{k}")] for k, v in value.items()]
        return {"kind": "mapping", "entries": pairs}
    problem = "this cannot be kept among the prepared volumes"
    expected = "numbers, text, arrays, lists and mappings"
    hint = "move the transform that makes it behind the store"
    raise DataError(problem, where=where, got=type(value).__name__, expected=expected, hint=hint)


def decoded(found: Any, find: Find) -> Any:
    """What :func:`encoded` was given.

    Args:
        found: JSON.
        find: makes something of a large array's number and description.
    """
    if isinstance(found, list):
        return [decoded(v, find) for v in found]
    if not isinstance(found, dict):
        return found
    kind = found["kind"]
    if kind == "tuple":
        return tuple(decoded(v, find) for v in found["entries"])
    if kind == "mapping":
        return {decoded(k, find): decoded(v, find) for k, v in found["entries"]}
    if kind == "dtype":
        name = found["name"]
        return getattr(torch, name.removeprefix("torch.")) if name.startswith("torch.") else np.dtype(name)
    if "file" in found:
        return find(int(found["file"]), found)
    array = np.frombuffer(base64.b64decode(found["bytes"]), np.dtype(found["dtype"])).reshape(found["shape"]).copy()
    return in_kind(array if kind == "array" else torch.from_numpy(array), found, find)


def in_kind(values: Any, found: Mapping[str, Any], find: Find) -> Any:
    """Numbers as what they were: array, tensor, or tensor with metadata."""
    kind = found["kind"]
    if kind == "array":
        return values.numpy() if isinstance(values, torch.Tensor) else values
    if kind == "meta_tensor":
        meta, operations = decoded(found["meta"], find), decoded(found["operations"], find)
        return MetaTensor(values, meta=meta, applied_operations=operations)
    return values


def _scalar(value: Any) -> Any:
    """Enumerations and subclasses of text as the plain thing."""
    if isinstance(value, enum.Enum):
        return _scalar(value.value)
    return str(value) if isinstance(value, str) else value


def _array(array: NDArray[Any], kind: str, keep: Keep) -> dict[str, Any]:
    if array.size > LARGE:
        return {"kind": kind, "file": keep(array)}
    text = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {"kind": kind, "dtype": array.dtype.str, "shape": list(array.shape), "bytes": text}


def _meta(meta: Mapping[Any, Any], keep: Keep, where: str) -> Any:
    """Metadata, without what a reader put there that is neither number nor text."""
    kept: dict[Any, Any] = {}
    for key, value in meta.items():
        try:
            encoded(value, _refuse, where)
        except DataError:
            continue
        kept[key] = value
    return encoded(kept, keep, where)


def _refuse(array: NDArray[Any]) -> int:
    raise DataError("metadata are small", got=array.shape)


def _settled(image: MetaTensor) -> list[Any]:
    """What was done to the image, without the places of objects in memory, so that any equal chain can undo it."""
    return [{**step, "id": "none"} if isinstance(step, Mapping) and "id" in step else step
            for step in image.applied_operations]  # fmt: skip
