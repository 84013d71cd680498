"""The rules of a clicking session: how many clicks, which of them the network sees, which mask counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import ConfigError
from .clicks import STRATEGIES

__all__ = ["PROTOCOLS", "ClickProtocol", "click_protocol"]

_CHOICES = {
    "strategy": (*STRATEGIES, "default"),
    "clicks": ("accumulate", "latest"),
    "report": ("last", "best"),
    "first_mask": ("zeros", "none"),
}


@dataclass(frozen=True, kw_only=True)
class ClickProtocol:
    """How a network is asked again and again until its mask is right.

    Args:
        steps: questions, >= 1; each brings one click unless it is a mask-only step.
        strategy: where clicks are set: ``random`` or ``ritm`` (see :func:`.clicks.next_click`), or ``default``:
            ``ritm`` for the first two, ``random`` from the third on.
        clicks: ``accumulate`` shows the network all clicks so far, ``latest`` the newest one.
        report: which mask an evaluation counts: that of the ``last`` step, or the ``best`` by Dice, which needs to know
            the answer.
        legacy_logit_05: errors are looked for where logits > 0.5 instead of > 0 (sigmoid > 0.5), as the public code of
            March 2024 does; the Dice itself is always of logits > 0.
        mask_only: first and last step (from 0) among which one is drawn that shows no point but the mask only; None for
            no such step.
        mask_only_last: the last step shows no point.
        first_mask: the mask prompt before there is a mask: ``zeros`` (undecided everywhere), or ``none``.
        feed_gradient: let gradients flow through the mask prompt into the steps before.

    Raises:
        ConfigError: for an unknown choice, no steps, or mask-only steps that do not exist.
    """

    steps: int = 5
    strategy: str = "default"
    clicks: str = "accumulate"
    report: str = "last"
    legacy_logit_05: bool = False
    mask_only: tuple[int, int] | None = None
    mask_only_last: bool = False
    first_mask: str = "zeros"
    feed_gradient: bool = True

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError("unknown choice", where=name, got=getattr(self, name), expected=", ".join(choices))
        if self.steps < 1:
            raise ConfigError("a session has at least one step", where="steps", got=self.steps)
        if self.mask_only is not None:
            low, high = self.mask_only
            object.__setattr__(self, "mask_only", (int(low), int(high)))
            if not 1 <= low <= high < self.steps:
                raise ConfigError(
                    "a mask-only step needs a mask before it",
                    where="mask_only",
                    got=list(self.mask_only),
                    expected=f"1 <= first <= last < {self.steps}",
                )
        if self.mask_only_last and self.steps < 2:
            raise ConfigError("a mask-only step needs a mask before it", where="mask_only_last", got="one step")

    @property
    def threshold(self) -> float:
        """Logits above are taken for inside when errors are looked for."""
        return 0.5 if self.legacy_logit_05 else 0.0

    def strategy_at(self, click: int) -> str:
        """Where click number ``click`` (from 0) is set: ``random`` or ``ritm``."""
        if self.strategy != "default":
            return self.strategy
        return "ritm" if click < 2 else "random"


PROTOCOLS: dict[str, ClickProtocol] = {
    # training as released: 11 steps, two of them without a point, errors where logits > 0.5
    "released": ClickProtocol(
        steps=11, strategy="random", clicks="latest", legacy_logit_05=True, mask_only=(2, 8), mask_only_last=True
    ),
    "training": ClickProtocol(steps=11, strategy="random", clicks="latest", mask_only=(2, 8), mask_only_last=True),
    "evaluation": ClickProtocol(),
    # what the public tables of March 2024 count
    "tables": ClickProtocol(clicks="latest", report="best", legacy_logit_05=True),
    "box": ClickProtocol(steps=1),
}


def click_protocol(name: str = "evaluation", **changes: Any) -> ClickProtocol:
    """A protocol by name, with changes.

    Args:
        name: ``training``, ``released``, ``evaluation``, ``tables`` or ``box``.
        changes: fields of :class:`ClickProtocol`.

    Raises:
        ConfigError: for an unknown name or field, or values that do not fit together.
    """
    if name not in PROTOCOLS:
        raise ConfigError("unknown protocol", where="protocol", got=name, expected=", ".join(PROTOCOLS))
    known = ClickProtocol.__dataclass_fields__
    wrong = sorted(set(changes) - set(known))
    if wrong:
        raise ConfigError("a protocol has no such field", where="protocol", got=wrong, expected=", ".join(known))
    if changes.get("steps") and "mask_only" not in changes and PROTOCOLS[name].mask_only:
        changes = {**changes, "mask_only": _within(PROTOCOLS[name].mask_only, int(changes["steps"]))}
    return ClickProtocol(**{k: changes.get(k, getattr(PROTOCOLS[name], k)) for k in known})


def _within(steps: tuple[int, int] | None, count: int) -> tuple[int, int] | None:
    """The drawn mask-only step of a shorter session; None when it is too short to have one before the last."""
    if steps is None or count < 4:
        return None
    return min(steps[0], count - 2), min(steps[1], count - 2)
