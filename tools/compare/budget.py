"""One budget for different methods: a number of steps in each bundle's own settings, or minutes by the clock."""

from __future__ import annotations

import ast
import dataclasses
import itertools
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import ConfigError

from ..chain.step import Step, step_files
from ..command_line import TypedText, files_word, word
from ..workflow import read_config

__all__ = ["Budget", "measured", "schedule", "with_words"]

HERE = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Budget:
    """What every training may take, the experts' each as well as the methods' own.

    Args:
        steps: updates of the weights, at the batch size that the method's preset has; None for the preset's own.
        minutes: of training; None for no limit.

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

    @property
    def words(self) -> str:
        """For people."""
        if self.steps is not None:
            return f"{self.steps} steps"
        return f"{self.minutes:g} minutes" if self.minutes is not None else "none in common: each preset's own length"


def schedule(steps: int, epochs: int) -> tuple[int, int]:
    """Epochs and steps per epoch whose product is as near to ``steps`` as can be.

    Between half as many epochs and as many as the preset has, as learning rates follow epochs; exact where one of these
    numbers divides ``steps``.

    Args:
        steps: wanted, >= 1.
        epochs: of the preset, >= 1.
    """
    most = max(1, min(epochs, steps))
    choices = [(e, max(1, round(steps / e))) for e in range(max(1, (most + 1) // 2), most + 1)]
    return min(choices, key=lambda c: (abs(c[0] * c[1] - steps), -c[0]))


def measured(step: Step, budget: Budget, rules: Mapping[str, Mapping[str, Any]]) -> Step:
    """The same command with the budget's settings and the handlers that measure what it costs.

    What would treat methods differently is off: no training ends before its budget for want of progress, and no answer
    is cleaned up to the largest piece of each structure, which only some bundles do.

    Args:
        step: of a chain; what neither trains nor evaluates is left alone.
        budget: of every training.
        rules: ``budget`` of the chain's ``chain.json``: for each bundle the knobs ``epochs`` and ``per_epoch``, the
            knob that a step is to be multiplied by (``times``), knobs in epochs (``scaled``) and knobs in steps that
            may not take more than a quarter (``at_most_quarter``).

    Raises:
        ConfigError: for a bundle without rules, or a knob that is no plain number.
    """
    if not step.argv:
        return step
    if step.produces != Step.produces:
        plain = {"keep_largest": False} if "keep_largest" in _config(step) else {}
        return with_words(step, plain, (HERE / "costs_evaluate.json",))
    knobs: dict[str, object] = {}
    if budget.steps is not None:
        knobs = _knobs(step, budget.steps, rules)
    if budget.minutes is not None:
        knobs = {"max_minutes": budget.minutes}
    if knobs and _may_stop(step):
        knobs["patience"] = None
    return with_words(step, knobs, (HERE / "costs_train.json",))


def _knobs(step: Step, steps: int, rules: Mapping[str, Mapping[str, Any]]) -> dict[str, object]:
    files = step_files(step.argv)
    bundle = files[0].parent.parent.name
    if bundle not in rules:
        raise ConfigError("it is not known how this bundle counts steps", where=files[0], got=bundle,
                          expected="budget in chain.json: " + ", ".join(rules))  # fmt: skip
    rule, config = rules[bundle], {**_config(step), **_given(step.argv)}
    before = _number(config, rule["epochs"], files[0])
    epochs, length = schedule(steps, before)
    times = _number(config, rule["times"], files[0]) if "times" in rule else 1
    knobs: dict[str, object] = {rule["epochs"]: epochs, rule["per_epoch"]: length * times}
    for name in rule.get("scaled", ()):
        value = config[name]
        scaled = [max(1, round(v * epochs / before)) for v in (value if isinstance(value, list) else [value])]
        knobs[name] = sorted(scaled) if isinstance(value, list) else scaled[0]
    for name in rule.get("at_most_quarter", ()):
        knobs[name] = min(_number(config, name, files[0]), epochs * length // 4)
    return knobs


def _may_stop(step: Step) -> bool:
    """Whether the training could end for want of progress: it has patience, and validates at all."""
    config = {**_config(step), **_given(step.argv)}
    return config.get("patience") is not None and config.get("val_interval", 1) <= config.get("max_epochs", math.inf)


def _config(step: Step) -> Mapping[str, Any]:
    config: Mapping[str, Any] = read_config([str(f) for f in step_files(step.argv)]).get()
    return config


def _given(argv: Sequence[str]) -> dict[str, Any]:
    """The plain numbers and lists among a command's overrides."""
    found = {}
    for option, value in itertools.pairwise(argv):
        if option.startswith("--"):
            try:
                found[option[2:]] = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                continue
    return found


def _number(config: Mapping[str, Any], name: str, where: Path) -> int:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError("a budget of steps needs a plain number here", where=where, got=f"{name} = {value!r}",
                          hint=f"--knobs {shlex.quote(f'{where.parent.parent.name}.{name}=NUMBER')}")  # fmt: skip
    return value


def with_words(step: Step, knobs: Mapping[str, object] | None = None, files: Sequence[Path] = ()) -> Step:
    """The same command with further overrides (the last one counts) and configuration files."""
    words = list(step.argv)
    at = words.index("--config_file") + 1
    words[at] = files_word([*step_files(words), *(Path(_short(f)) for f in files)])
    for name, value in (knobs or {}).items():
        given = word(TypedText(value) if isinstance(value, str) else value)
        if f"--{name}" in words:
            words[words.index(f"--{name}") + 1] = given
        else:
            words += [f"--{name}", given]
    return dataclasses.replace(step, argv=tuple(words))


def _short(file: Path) -> str:
    """Relative to the folder where the command runs, when that is above it."""
    return os.path.relpath(file) if file.is_relative_to(Path.cwd()) else str(file)
