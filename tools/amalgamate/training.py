"""The training's own configuration, opened without training: its data with the experts' answers, its trainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from common.literals import inert

from ..workflow import check_keys, read_config
from .work import BUNDLE, Work

__all__ = ["DATA", "TRAINER", "opened"]

DATA = "train::dataset"
TRAINER = "train::trainer"


def opened(work: Work, folder: Path, changed: Mapping[str, Any] | None = None) -> ConfigParser:
    """The merged configuration with this amalgamation's knobs; nothing of it is made yet.

    Args:
        work: the folder, its collection and experts.
        folder: where the training would write.
        changed: further values, plain ones.

    Raises:
        ConfigError: for a knob that the configuration does not have.
    """
    configs = work.bundles / BUNDLE / "configs"
    files = [str(configs / name) for name in work.files]
    parser = read_config(files)
    values = {**work.knobs(folder), "bundle_root": str(work.bundles / BUNDLE), "num_workers": 0, **(changed or {})}
    check_keys(parser, {**values, **work.read_typed}, where=files[-1])
    for key, value in values.items():
        parser[key] = inert(value)
    for key, value in work.read_typed.items():
        parser[key] = value
    return parser
