"""Finds what a configuration names in installed libraries: nothing of the current folder or of a bundle is imported.

Libraries that bundles are made of are imported from where packages are installed. Any other installed package, and
Python's own modules, are read without running them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path
from typing import Any

__all__ = ["ANYTHING", "NotFoundError", "libraries_only", "library_signature"]

P = inspect.Parameter
ANYTHING = inspect.Signature([P("args", P.VAR_POSITIONAL), P("kwargs", P.VAR_KEYWORD)])
OWN = ("common", "tools")  # this program, which runs already
IMPORTED = frozenset((
    *OWN, "builtins", "batchgenerators", "dynamic_network_architectures", "einops", "ignite", "itk", "monai", "nibabel",
    "nnunetv2", "numpy", "pandas", "peft", "PIL", "pydicom", "safetensors", "sam2", "scipy", "segment_anything",
    "SimpleITK", "skimage", "timm", "torch", "torchvision",
))  # fmt: skip


class NotFoundError(LookupError):
    """There is no such class or function; the text says where the search ended."""


@functools.cache
def _places() -> tuple[Path, ...]:
    """The folders of installed packages and of Python itself."""
    paths = sysconfig.get_paths()
    found = [paths[key] for key in ("purelib", "platlib", "stdlib", "platstdlib")]
    found += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple(dict.fromkeys(Path(p).resolve() for p in found))


@functools.cache
def _installed(place: str) -> bool:
    """Whether an entry of ``sys.path`` is of Python's own: not the current folder, and not where somebody works."""
    path = Path(place)
    if not path.is_absolute():
        return False
    path = path.resolve()
    return path in _places() or path.name == "lib-dynload" or (path.suffix == ".zip" and path.parent in {
        p.parent for p in _places()
    })  # fmt: skip


@contextlib.contextmanager
def libraries_only() -> Iterator[None]:
    """Inside, an import finds installed packages alone."""
    before = list(sys.path)
    sys.path[:] = [p for p in before if _installed(p)]
    try:
        yield
    finally:
        sys.path[:] = before


def library_signature(name: str, read: Callable[[str, Path], inspect.Signature]) -> inspect.Signature:
    """How something is called that a configuration names and that no bundle holds.

    Args:
        name: dotted name, ``torch.nn.Conv3d``.
        read: tells a signature from a dotted name and the folder where its package lies, without importing it.

    Raises:
        NotFoundError: when it is not installed, or there is no such class or function.
    """
    root = name.split(".")[0]
    if any(not part.isidentifier() or part == "__main__" for part in name.split(".")):
        raise NotFoundError(f"{name} is no name of a class or function")
    if root in OWN or root == "builtins":
        return _of(_imported(name), name)
    with libraries_only():
        if root in sys.stdlib_module_names:
            return _standard(name, read)
        spec = PathFinder.find_spec(root, [p for p in sys.path if _installed(p)])
        if spec is None:
            raise NotFoundError(f"{name} is in no installed package and not in the bundle")
        if root in IMPORTED and _is_library(root):
            return _of(_imported(name), name)
    return _read(name, spec, read)


def _is_library(root: str) -> bool:
    """Whether what was imported under a name already is the installed package."""
    loaded = sys.modules.get(root)
    file = getattr(getattr(loaded, "__spec__", None), "origin", None)
    return loaded is None or file is None or any(Path(file).resolve().is_relative_to(p) for p in _places())


def _standard(name: str, read: Callable[[str, Path], inspect.Signature]) -> inspect.Signature:
    """Of Python's own modules many do something when they are imported: what is not loaded yet is read."""
    parts = name.split(".")
    for split in range(len(parts) - 1, 0, -1):
        module = sys.modules.get(".".join(parts[:split]))
        if module is not None and _is_library(parts[0]):
            found: Any = module
            with contextlib.suppress(AttributeError):
                for part in parts[split:]:
                    found = inspect.getattr_static(found, part)
                return _of(found.__func__ if isinstance(found, staticmethod | classmethod) else found, name)
    spec = PathFinder.find_spec(parts[0], [str(p) for p in _places()])
    return ANYTHING if spec is None else _read(name, spec, read)  # built into Python


def _read(name: str, spec: Any, read: Callable[[str, Path], inspect.Signature]) -> inspect.Signature:
    origin = str(spec.origin or "")
    if origin.endswith(tuple(EXTENSION_SUFFIXES)):
        return ANYTHING
    if not origin.endswith(".py"):
        raise NotFoundError(f"{name} cannot be read")
    file = Path(origin)
    return read(name, file.parent.parent if file.name == "__init__.py" else file.parent)


def _imported(name: str) -> Any:
    parts = name.split(".")
    found: Any = None
    module = ""
    for index, part in enumerate(parts):
        if index and hasattr(found, part):
            found = getattr(found, part)
            continue
        if index and not inspect.ismodule(found):
            return None
        module = ".".join(parts[: index + 1])
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
                return None
            raise NotFoundError(f"{name} cannot be imported: {error}") from error
        except Exception as error:  # of whatever the library does
            raise NotFoundError(f"{name} cannot be imported: {error}") from error
    return found


def _of(found: Any, name: str) -> inspect.Signature:
    if not callable(found):
        raise NotFoundError(f"{name} does not exist")
    try:
        return inspect.signature(found)
    except (ValueError, TypeError):  # some builtins have none
        return ANYTHING
