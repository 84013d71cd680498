"""The plan that a model's card keeps: every part of it is judged before it is used, or written anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import WeightError
from ...literals import check_file_name
from .network import check_described

__all__ = ["check_kept"]

_PARTS = {
    "plans": (Mapping, "nnU-Net's plans"),
    "dataset_json": (Mapping, "labels and channel_names"),
    "configuration": (str, "a name, such as 3d_fullres"),
}


def check_kept(settings: Mapping[str, Any], where: str | Path) -> None:
    """Refuse what no training keeps.

    Args:
        settings: of the card: ``plans``, ``dataset_json`` and ``configuration``.
        where: the weights file.

    Raises:
        WeightError: naming the entry, for one that is missing, of another kind, or names what it must not.
        LabelError: for structures that are none.
    """
    for key, (kind, expected) in _PARTS.items():
        if not isinstance(settings.get(key), kind):
            got = f"{settings.get(key)!a:.100}"
            raise WeightError(f"the card's settings.{key} cannot be read", where=where, got=got, expected=expected)
    planned, place = f"{where}, settings.plans", f"{where}, settings.dataset_json"
    check_described(
        settings["plans"], settings["dataset_json"], settings["configuration"], where=planned, described=place
    )
    for key, named in (("plans_name", settings["plans"]), ("name", settings["dataset_json"])):
        if key == "plans_name" or key in named:  # results folders are called by them
            check_file_name(named.get(key), key, where=planned, error=WeightError)
