"""What a run went on with although a card, or an expert's description, says otherwise: its own card keeps it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from .atomic import atomic_write
from .card import ModelCard

__all__ = ["RECORD", "keep_record", "overridden", "override", "with_overridden"]

logger = logging.getLogger(__name__)

RECORD = ".record.json"  # what a result's name ends in, of the file that says how it was made
_KEY, _IGNORED = "contract", "ignored"
_told: dict[str, None] = {}  # in this process, which trains one model


def override(sentence: str) -> None:
    """Warn of something that would have been refused, and remember it for the card of what is trained.

    Args:
        sentence: what was ignored.
    """
    logger.warning("%s", sentence)
    _told[sentence] = None


def overridden() -> list[str]:
    """Every sentence that this process went on with, each once, in order."""
    return list(_told)


def with_overridden(card: ModelCard) -> ModelCard:
    """A card with what was ignored until now; one of a run that ignores nothing (no ``ignored``) stays as it is.

    Args:
        card: of the model that is trained.
    """
    contract = card.extra.get(_KEY)
    kept = contract.get(_IGNORED) if isinstance(contract, Mapping) else None
    if not isinstance(contract, Mapping) or not isinstance(kept, list):
        return card
    return card.with_extra(**{_KEY: {**contract, _IGNORED: list(dict.fromkeys([*kept, *_told]))}})


def keep_record(result: Path, text: str) -> None:
    """Write what was gone on with beside a result; where it was nothing, the record of an earlier one goes.

    Args:
        result: file of the result.
        text: of the record; empty when nothing was overridden.
    """
    record = result.with_name(f"{result.name}{RECORD}")
    if not text:
        record.unlink(missing_ok=True)
        return
    with atomic_write(record) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")
