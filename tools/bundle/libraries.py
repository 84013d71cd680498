"""Which installable packages the code of a packed bundle needs, and whether its metadata names them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions
from importlib.metadata import distribution as installed
from typing import Any

from common.errors import ConfigError

from .closure import Closure

__all__ = ["check_libraries", "distribution"]

STATED = {"torch", "numpy", "monai"}  # have keys of their own in metadata.json
# what an option asks for and a plain run never imports; MONAI reads "optional_packages_version" in the place of
# "required_packages_version", so that the metadata cannot name them
SEPARATE = {"sam2", "mlflow"}


@functools.cache
def _installed() -> Mapping[str, list[str]]:
    return packages_distributions()


def distribution(module: str) -> str:
    """What ``pip install`` calls the package of a module; the module's own name when it is not installed."""
    try:
        name = installed(module).metadata["Name"]  # itk is a package of packages of its own
    except PackageNotFoundError:
        name = min(_installed().get(module, [module]), key=len)
    return str(name).lower().replace("_", "-")


def check_libraries(needed: Closure, meta: Mapping[str, Any]) -> None:
    """Refuse metadata that do not name what the code imports.

    Args:
        needed: the code.
        meta: content of ``metadata.json``.

    Raises:
        ConfigError: with the packages to add.
    """
    stated = {k.lower().replace("_", "-") for k in meta.get("required_packages_version", {})} | STATED
    lacking = {distribution(m) for m in needed.required} - stated
    lacking |= {distribution(m) for m in needed.optional} - stated - SEPARATE
    if lacking:
        raise ConfigError(
            "the metadata do not name all packages that the code imports",
            where="configs/metadata.json",
            got=f"required_packages_version without {sorted(lacking)}",
        )
