"""The expert of a run as PEFT's files, beside its checkpoints."""

from __future__ import annotations

from pathlib import Path

import ignite.distributed as idist
from ignite.engine import Engine, Events
from torch import nn

from ....atomic import atomic_write
from ....card import ModelCard
from ....engine.run.interrupt import interrupts
from ....engine.run.plain import bare
from ....layers.lora.files import save_adapter
from ....overridden import with_overridden
from ..base import CARD

__all__ = ["KeepExpert"]


class KeepExpert:
    """Writes ``<output_dir>/adapter`` after every epoch: PEFT's two files, and ``card.json`` which says whose they are.

    Args:
        network: has ``encoder`` and ``level``; one without (a teacher) has no expert, and nothing is written.
        output_dir: the run's folder.
        card: of the run's weights.
    """

    def __init__(self, *, network: nn.Module, output_dir: str | Path, card: ModelCard | None = None) -> None:
        self.network, self.folder, self.card = network, Path(output_dir) / "adapter", card

    def attach(self, engine: Engine) -> None:
        """Register with a trainer, on the first process."""
        if idist.get_rank() == 0 and hasattr(bare(self.network), "level"):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write."""
        network = bare(self.network)
        with interrupts.protected():
            save_adapter(network.encoder, network.level, self.folder)
            if self.card is not None:
                card = with_overridden(self.card).with_extra(epoch=engine.state.epoch)
                with atomic_write(self.folder / CARD) as temporary:
                    temporary.write_text(card.to_json() + "\n", encoding="utf-8")
