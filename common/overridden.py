"""What a run went on with although a card, or an expert's description, says otherwise: its own card keeps it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from .card import ModelCard

__all__ = ["overridden", "override", "with_overridden"]

logger = logging.getLogger(__name__)

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
