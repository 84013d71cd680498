"""What a chain of transforms is: all that it was built with, as JSON, equal in every process that builds it again."""

from __future__ import annotations

import enum
import functools
import hashlib
import importlib
import inspect
import json
import types
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["chain_json", "digest", "names"]

FORMAT = 1
_LIBRARIES = ("monai", "torch", "numpy", "scipy", "nibabel", "SimpleITK", "pydicom", "pillow", "scikit-image")
_OURS = __name__.removesuffix(".data.store.chain")
# states that change when a transform is used, and what decides whether a case is refused, not what is made of it
_VOLATILE = {"R", "_tracing", "allow_missing_keys"}


def chain_json(chain: Any) -> dict[str, Any]:
    """Classes, settings and versions of everything that decides what a chain computes.

    Objects are described by their class and attributes; one that knows better says so with a method
    ``chain_identity()``. The code of our own classes counts by its hash, that of libraries by their version. Functions
    count with the file that they are in: a class that leaves its work to some, as one that reads files does, names them
    in its identity.

    Args:
        chain: transforms, most often a MONAI ``Compose``.
    """
    modules: set[str] = set()
    described = _described(chain, (), modules)
    return {"format": FORMAT, "chain": described, "libraries": _versions(modules), "code": _code(modules)}


def digest(value: Any) -> str:
    """32 hexadecimal digits of JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def names(found: Mapping[str, Any]) -> list[str]:
    """The classes of a chain's transforms, for people, after what was told of it."""
    parts = found["chain"].get("state", {}).get("transforms", [found["chain"]])
    listed: list[str] = [str(found["told"])] if found.get("told") else []
    for part in (p for p in parts if isinstance(p, Mapping)):
        inner = part.get("state", {}).get("transforms")
        own = str(part.get("class", part.get("name", "?"))).rpartition(".")[2]
        listed += [n for p in inner for n in names({"chain": p})] if inner else [own]
    return listed


def _described(value: Any, within: tuple[int, ...], modules: set[str]) -> Any:
    if isinstance(value, enum.Enum):
        return {"enum": [_name(type(value)), str(value.value)]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, (np.generic, Path, torch.dtype, torch.device, np.dtype)):
        return str(value)
    if isinstance(value, (np.ndarray, torch.Tensor)):
        array = np.ascontiguousarray(value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value)
        return {"array": [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]}
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, np.ufunc)):
        modules.add(getattr(value, "__module__", None) or "")
        return {"name": _name(value)}
    if id(value) in within:
        return {"again": within.index(id(value))}
    return _compound(value, (*within, id(value)), modules)


def _compound(value: Any, inside: tuple[int, ...], modules: set[str]) -> Any:
    """What is made of parts; one that contains itself ends there."""
    if isinstance(value, Mapping):
        pairs = [[_described(k, inside, modules), _described(v, inside, modules)] for k, v in value.items()]
        return {"mapping": sorted(pairs, key=json.dumps)}
    if isinstance(value, (list, tuple)):
        return [_described(v, inside, modules) for v in value]
    if isinstance(value, (set, frozenset)):
        return {"set": sorted((_described(v, inside, modules) for v in value), key=json.dumps)}
    if isinstance(value, functools.partial):
        return {"partial": [_described(p, inside, modules) for p in (value.func, value.args, value.keywords)]}
    if isinstance(value, types.MethodType):
        return {"method": [value.__func__.__qualname__, _described(value.__self__, inside, modules)]}
    return _object(value, inside, modules)


def _object(value: Any, inside: tuple[int, ...], modules: set[str]) -> dict[str, Any]:
    kind = type(value)
    modules.update(c.__module__ for c in kind.__mro__)
    own = getattr(value, "chain_identity", None)
    state = own() if callable(own) else {k: v for k, v in _attributes(value).items() if k not in _VOLATILE}
    return {"class": _name(kind), "state": {str(k): _described(v, inside, modules) for k, v in sorted(state.items())}}


def _attributes(value: Any) -> dict[str, Any]:
    slots = [n for c in type(value).__mro__ for n in getattr(c, "__slots__", ()) if isinstance(n, str)]
    return {**{n: getattr(value, n) for n in slots if hasattr(value, n)}, **getattr(value, "__dict__", {})}


def _name(value: Any) -> str:
    """The name in its package, wherever that package was copied to."""
    module, name = str(getattr(value, "__module__", "")), getattr(value, "__qualname__", getattr(value, "__name__", ""))
    return f"{_relative(module)}.{name}"


def _relative(module: str) -> str:
    return "common" + module.removeprefix(_OURS) if module == _OURS or module.startswith(_OURS + ".") else module


def _versions(modules: set[str]) -> dict[str, str]:
    known = {}
    for name in sorted(
        {*_LIBRARIES, *(m.partition(".")[0] for m in modules if not m.startswith(_OURS))} - {"builtins"}
    ):
        try:
            known[name] = version(name).partition("+")[0]
        except (PackageNotFoundError, ValueError):
            continue
    return known


def _code(modules: set[str]) -> dict[str, str]:
    """A hash of the file of each of our own modules."""
    found = {}
    for module in sorted(m for m in modules if m == _OURS or m.startswith(_OURS + ".")):
        file = inspect.getsourcefile(importlib.import_module(module))
        if file is not None and Path(file).is_file():
            found[_relative(module)] = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    return found
