"""One budget for different methods: a number of steps, or minutes that each training turns into steps of its own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.bundle_words import FILES, TypedText, knob, with_files
from common.command_words import option
from common.errors import ConfigError

from ..chain.step import Step, step_files
from ..workflow import read_config

__all__ = ["Budget", "measured", "with_words"]

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Budget:
    """What every training may take, the experts' each as well as the methods' own.

    Args:
        steps: updates of the weights, at the batch size that the method's preset has; None for the preset's own.
        minutes: of training steps; None for no limit.

    Raises:
        ConfigError: for both at once, or one that is not positive.
    """

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        """Check."""
        if self.steps is not None and self.minutes is not None:
            raise ConfigError("one budget", where="budget", got="steps and minutes", expected="one of them")
        for name, value in (("budget_steps", self.steps), ("budget_minutes", self.minutes)):
            if value is not None and not value > 0:
                raise ConfigError("a budget is positive", where=name, got=value, expected="> 0")
        if self.steps is not None and not isinstance(self.steps, int):
            raise ConfigError(
                "a budget has whole steps", where="budget_steps", got=self.steps, expected="a whole number"
            )

    @property
    def words(self) -> str:
        """For people."""
        if self.steps is not None:
            return f"{self.steps} steps"
        return f"{self.minutes:g} minutes" if self.minutes is not None else "none in common: each preset's own length"


def measured(step: Step, budget: Budget) -> Step:
    """The same command with the budget's settings and the handlers that measure what it costs.

    What would treat methods differently is off: no training ends before its budget for want of progress, and no answer
    is cleaned up to the largest piece of each structure, which only some bundles do. A budget replaces the preset's
    number of epochs, whether that is smaller or greater, and the schedule is stretched to it.

    Args:
        step: of a chain; what neither trains nor evaluates is left alone.
        budget: of every training.

    Raises:
        ConfigError: for a training that takes no budget.
    """
    if not step.argv:
        return step
    config = _config(step)
    if step.produces != Step.produces:
        plain = {"keep_largest": False} if "keep_largest" in config else {}
        return with_words(step, plain, (HERE / "costs_evaluate.json",))
    knobs: dict[str, object] = {}
    if budget.steps is not None:
        knobs = {"max_steps": budget.steps}
    if budget.minutes is not None:
        knobs = {"max_minutes": budget.minutes}
    unknown = [k for k in knobs if k not in config]
    if unknown:
        got = f"no knob {unknown[0]}"
        expected = "max_steps and max_minutes, for common.engine.run.length.RunLength"
        raise ConfigError("this bundle takes no budget", where=step_files(step.argv)[0], got=got, expected=expected)
    if knobs and config.get("patience") is not None:
        knobs["patience"] = None
    return with_words(step, knobs, (HERE / "costs_train.json",))


def _config(step: Step) -> Mapping[str, Any]:
    config: Mapping[str, Any] = read_config([str(f) for f in step_files(step.argv)]).get()
    return config


def with_words(step: Step, knobs: Mapping[str, object] | None = None, files: Sequence[Path] = ()) -> Step:
    """The same command with further overrides (the last one counts) and configuration files."""
    words = _replaced(step.argv, FILES, with_files([*step_files(step.argv), *(Path(_short(f)) for f in files)]))
    for name, value in (knobs or {}).items():
        words = _replaced(words, name, knob(name, TypedText(value) if isinstance(value, str) else value))
    return dataclasses.replace(step, argv=words)


def _replaced(words: Sequence[str], key: str, new: str) -> tuple[str, ...]:
    """The words with one of them in the place of those for its key, or at the end."""
    old = [n for n, w in enumerate(words) if w.startswith(option(key, ""))]
    at = old[0] if old else len(words)
    return (*words[:at], new, *words[at + 1 :])


def _short(file: Path) -> str:
    """Relative to the folder where the command runs, when that is above it."""
    return os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
