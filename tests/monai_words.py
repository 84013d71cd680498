"""The words of a ``python -m monai.bundle`` command, split by the Fire that MONAI starts, on MONAI's own signature."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import fire
from monai.bundle.scripts import run


def arguments_of(words: Sequence[str]) -> dict[str, Any]:
    """What ``monai.bundle run`` gets, without what it was not given.

    Args:
        words: what follows ``monai.bundle``.
    """
    seen: list[dict[str, Any]] = []
    signature = inspect.signature(run)

    def recorder(*given: Any, **named: Any) -> None:
        bound = signature.bind(*given, **named)
        plain = {k: v for k, v in bound.arguments.items() if k != "override"}
        seen.append({**{k: v for k, v in plain.items() if v != signature.parameters[k].default},
                     **bound.arguments.get("override", {})})  # fmt: skip

    vars(recorder)["__signature__"] = signature
    fire.Fire({"run": recorder}, command=list(words), name="monai.bundle")
    assert len(seen) == 1
    return seen[0]


def told_by(argv: Sequence[str]) -> dict[str, str]:
    """The options of a command and their values as they stand in it, ``{"--key": "value"}``."""
    pairs = [word.partition("=") for word in argv if word.startswith("--")]
    return {key: value for key, _, value in pairs}
