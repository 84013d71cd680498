"""What ran for a scan, where experts stay beside the student: the record of its result says it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from common.experts.answers.beside import kept_file

__all__ = ["passes_of", "stays_beside"]


def stays_beside(model: str | Path) -> bool:
    """Whether it is said of a student that experts stay beside it."""
    return kept_file(model).is_file()


def passes_of(config: ConfigParser, scans: Iterable[str]) -> dict[str, dict[str, Any]]:
    """By scan, whose passes its result is made of; empty for a model beside which no expert stays.

    Args:
        config: the inference as it was run.
        scans: names of the scans.
    """
    if "unite_kept" not in config.get() or not stays_beside(config.get_parsed_content("model_path")):
        return {}
    keep = bool(config.get_parsed_content("keep"))
    told, hashes = config.get_parsed_content("unite_kept").told, dict[str, str]()
    if keep:
        hashes = {k.spec.name: k.spec.sha256 for k in config.get_parsed_content("ask_kept").kept}
    found = {}
    for name in scans:
        kept = [{"expert": e, "sha256": hashes[e], "decides": own} for e, own in told.get(name, {}).items()]
        found[name] = {"passes": ["student", *(k["expert"] for k in kept)], "keep": keep, "kept": kept}
    return found
