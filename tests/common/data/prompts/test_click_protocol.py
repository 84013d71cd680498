"""Protocols by name, their fields, and what they refuse."""

import pytest

from common.data.prompts.click_protocol import PROTOCOLS, ClickProtocol, click_protocol
from common.errors import ConfigError


def test_names_say_what_was_published() -> None:
    released, tables = PROTOCOLS["released"], PROTOCOLS["tables"]
    assert (released.steps, released.mask_only, released.clicks, released.threshold) == (11, (2, 8), "latest", 0.5)
    assert released.mask_only_last and released.strategy_at(0) == "random"
    assert (tables.clicks, tables.report, tables.threshold) == ("latest", "best", 0.5)
    assert [tables.strategy_at(i) for i in range(4)] == ["ritm", "ritm", "random", "random"]
    honest = click_protocol()
    assert (honest.clicks, honest.report, honest.threshold) == ("accumulate", "last", 0.0)


def test_changes() -> None:
    assert click_protocol("evaluation", steps=3, strategy="ritm").strategy_at(2) == "ritm"
    assert click_protocol("training", steps=6).mask_only == (2, 4)
    assert click_protocol("training", steps=3).mask_only is None
    assert click_protocol("training", steps=4).mask_only == (2, 2)
    assert click_protocol("training", mask_only=[1, 5]).mask_only == (1, 5)
    assert click_protocol("training", mask_only=None).mask_only is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clicks": "all"}, "unknown choice"),
        ({"strategy": "centre"}, "unknown choice"),
        ({"report": "mean"}, "unknown choice"),
        ({"first_mask": "ones"}, "unknown choice"),
        ({"steps": 0}, "at least one step"),
        ({"mask_only": (0, 2)}, "needs a mask before it"),
        ({"mask_only": (3, 2)}, "needs a mask before it"),
        ({"mask_only": (2, 5)}, "needs a mask before it"),
        ({"steps": 1, "mask_only_last": True}, "needs a mask before it"),
    ],
)
def test_refusals(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClickProtocol(**changes)  # type: ignore[arg-type]


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="unknown protocol"):
        click_protocol("paper")
    with pytest.raises(ConfigError, match="no such field"):
        click_protocol("evaluation", click=3)
