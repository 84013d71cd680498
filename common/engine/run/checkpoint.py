"""Checkpoints of a run: written atomically, read without executing code, continued to the same weights."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn

from ...atomic import remove_stale, require_space
from ...card import ModelCard, tensor_bytes
from ...errors import CheckpointError, WeightError
from ...integrity import remove_seal, seal, sealed_hash, sealed_write, verify
from ...plain_json import parse_object
from .best import KeepBest
from .interrupt import interrupts
from .length import RunLength
from .overrides import hash_settings, meaningful, read_command
from .plain import bare, plain, read_plain

__all__ = ["RunCheckpoint"]

logger = logging.getLogger(__name__)

FORMAT = 1
LAST, PREVIOUS = "last.pth", "previous.pth"


class RunCheckpoint:
    """Saves the whole run after every epoch and continues it when the same command is started again.

    ``folder/last.pth`` holds every object's state, the trainer's counters and best metric, the AMP scaler, the card
    and the configuration; ``previous.pth`` is the one before. With ``SeedEachEpoch`` a run that was killed at any
    moment ends with the same weights as an undisturbed one (bit-identical on a CPU). Raising ``max_epochs`` continues
    a finished run; a schedule that asks a :class:`~.length.RunLength` then goes by the new length, one of torch's own
    keeps the length that it was started with. How many steps a budget of minutes is stays as the checkpoint says.

    Place it anywhere among the trainer's handlers: it restores when the run starts (list it first if other handlers
    read the epoch at ``STARTED``) and saves after all other handlers of an epoch.

    Args:
        folder: the run's checkpoint folder, usually ``<output_dir>/checkpoints``.
        save_dict: named objects with ``state_dict`` and ``load_state_dict``: network, optimizer, schedule, KeepBest.
        card: label space, channels and bundle; another label space refuses to continue.
        every: epochs between two checkpoints, >= 1; the last epoch is always saved.
        resume: False moves an existing checkpoint aside and starts anew; it is never deleted.

    Raises:
        CheckpointError: when an object has no state, or (at the start of the run) when the checkpoint belongs to
            another configuration or label space, cannot be read, or the disk is nearly full.
    """

    def __init__(
        self,
        *,
        folder: str | Path,
        save_dict: Mapping[str, Any],
        card: ModelCard | None = None,
        every: int = 1,
        resume: bool = True,
    ) -> None:
        if every < 1:
            raise CheckpointError("checkpoints are written every n >= 1 epochs", where="every", got=every)
        objects = {name: item for name, item in save_dict.items() if item is not None}
        for name, item in objects.items():
            if not (hasattr(item, "state_dict") and hasattr(item, "load_state_dict")):
                raise CheckpointError(
                    "an object without state cannot be saved", where=f"save_dict[{name!r}]", got=type(item).__name__
                )
        if not any(isinstance(item, nn.Module) for item in objects.values()):
            raise CheckpointError("save_dict names no network", where="save_dict", got=sorted(objects))
        self.folder = Path(folder)
        self.objects = objects
        self.card = card
        self.every = every
        self.resume = resume
        self._saved_epoch = -1
        command = read_command()
        self.settings = meaningful(command.config()) if command is not None else {}
        for item in objects.values():
            if isinstance(item, KeepBest) and item.config_hash == "":
                item.config_hash = self.config_hash

    @property
    def config_hash(self) -> str:
        """sha256 of the meaningful configuration; empty when this is no bundle command (then structure decides)."""
        if self.card is not None and self.card.config_hash:
            return self.card.config_hash
        return hash_settings(self.settings) if self.settings else ""

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._complete)

    # -- start ---------------------------------------------------------------------------------------------------

    def _start(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_stale(self.folder)
            if not self.resume:
                self._move_aside()
            self._require_space()
        idist.barrier()
        if self.resume:
            self._continue(engine)
        if not engine.has_event_handler(self._epoch_completed, Events.EPOCH_COMPLETED):
            # Added now, not in attach, so that it runs after every other handler of the epoch.
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch_completed)

    def _require_space(self) -> None:
        weights = sum(tensor_bytes(bare(o).state_dict()) for o in self.objects.values() if isinstance(o, nn.Module))
        present = sum((self.folder / n).stat().st_size for n in (LAST, PREVIOUS) if (self.folder / n).exists())
        # Network and two moments of the optimizer, in last, previous and the file being written.
        require_space(self.folder, max(3 * weights, 3 * 3 * weights - present), "the checkpoints of this run")

    def _move_aside(self) -> None:
        if not any((self.folder / name).exists() for name in (LAST, PREVIOUS)):
            return
        number = 1
        while (target := self.folder.with_name(f"{self.folder.name}_{number}")).exists():
            number += 1
        self.folder.replace(target)
        self.folder.mkdir()
        logger.info("starting anew; the earlier checkpoints were moved to %s", target)

    def _continue(self, engine: Engine) -> None:
        found = [self.folder / name for name in (LAST, PREVIOUS) if (self.folder / name).exists()]
        if not found:
            return
        for position, path in enumerate(found):
            try:
                content = _read(path)
                break
            except CheckpointError as error:
                if position + 1 == len(found):
                    raise
                logger.warning("%s\ncontinuing from %s instead", error, found[position + 1])
        self._check(path, content)
        self._restore(path, content, engine)
        epoch, wanted = engine.state.epoch, engine.state.max_epochs
        if wanted is not None and epoch >= wanted:
            logger.info(
                "nothing to do: %s is at epoch %d of %d; raise --max_epochs to go on, or choose another --output_dir",
                path,
                epoch,
                wanted,
            )
        else:
            logger.info("continuing after epoch %d from %s", epoch, path)

    def _check(self, path: Path, content: Mapping[str, Any]) -> None:
        hint = "choose another --output_dir, or add --resume False (moves the old checkpoints aside)"
        if content.get("format") != FORMAT or not isinstance(content.get("objects"), Mapping):
            raise CheckpointError("this is no checkpoint of a run", where=path, got=sorted(content), hint=hint)
        saved = ModelCard.from_json(content["card"]) if content.get("card") else None
        if saved is not None and self.card is not None:
            for name, was, now in _identities(saved, self.card):
                if was != now:
                    raise CheckpointError(
                        f"the checkpoint was trained with other {name}", where=path, got=was, expected=now, hint=hint
                    )
        old, new = content.get("config_hash"), self.config_hash
        if old and new and old != new:
            changes = _differences(
                parse_object(content.get("settings") or "{}", error=CheckpointError, where=path), self.settings
            )
            raise CheckpointError(
                "the checkpoint belongs to another configuration",
                where=path,
                got="; ".join(changes[:8]) or f"hash {old[:8]}",
                expected=f"the configuration it was started with (hash {old[:8]})",
                hint=hint,
            )
        if set(content["objects"]) != set(self.objects):
            raise CheckpointError(
                "the checkpoint holds other objects",
                where=path,
                got=sorted(content["objects"]),
                expected=sorted(self.objects),
                hint=hint,
            )

    def _restore(self, path: Path, content: Mapping[str, Any], engine: Engine) -> None:
        for name, item in self.objects.items():
            try:
                bare(item).load_state_dict(content["objects"][name])
            except (RuntimeError, ValueError, KeyError) as error:
                raise CheckpointError(
                    f"{name} does not fit the checkpoint", where=path, got=str(error)[:500]
                ) from error
        scaler = getattr(engine, "scaler", None)
        if scaler is not None and content.get("scaler"):
            scaler.load_state_dict(content["scaler"])
        state = content["trainer"]
        engine.state.epoch = state["epoch"]
        length = engine.state.epoch_length
        engine.state.iteration = state["iteration"] if length is None else state["epoch"] * length
        for name in ("best_metric", "best_metric_epoch"):
            if name in state:
                setattr(engine.state, name, state[name])
        for item in self.objects.values():
            if isinstance(item, RunLength):
                item.start(engine)  # what follows asks how many epochs there are
        self._saved_epoch = state["epoch"]

    # -- saving --------------------------------------------------------------------------------------------------

    def _epoch_completed(self, engine: Engine) -> None:
        if engine.state.epoch % self.every == 0 or engine.state.epoch == engine.state.max_epochs:
            self.save(engine)

    def _complete(self, engine: Engine) -> None:
        if engine.state.epoch > max(self._saved_epoch, 0):
            self.save(engine)

    def save(self, engine: Engine) -> None:
        """Write ``last.pth``; the file before becomes ``previous.pth``. Only the first process writes.

        Raises:
            CheckpointError: when the disk is full (both older files stay intact).
        """
        self._saved_epoch = engine.state.epoch
        if idist.get_rank() != 0:
            return
        last = self.folder / LAST
        content = self._content(engine)
        with interrupts.protected(), sealed_write(last, needed=tensor_bytes(content)) as temporary:
            with temporary.open("wb") as stream:  # given a path, torch would store the temporary name
                torch.save(content, stream)
            _keep_as(last, self.folder / PREVIOUS)
        logger.debug("epoch %d saved in %s", engine.state.epoch, last)

    def _content(self, engine: Engine) -> dict[str, Any]:
        scaler = getattr(engine, "scaler", None)
        state = {
            k: getattr(engine.state, k)
            for k in ("epoch", "iteration", "best_metric", "best_metric_epoch")
            if hasattr(engine.state, k)
        }
        return {
            "format": FORMAT,
            "card": self.card.to_json() if self.card is not None else "",
            "config_hash": self.config_hash,
            "settings": json.dumps(self.settings, default=str),
            "objects": {n: plain(bare(o).state_dict(), f"save_dict[{n!r}]") for n, o in self.objects.items()},
            "trainer": plain(state, "trainer"),
            "scaler": plain(scaler.state_dict(), "scaler") if scaler is not None else {},
        }


def _read(path: Path) -> dict[str, Any]:
    try:
        verify(path)
    except WeightError as error:
        raise CheckpointError(
            "the checkpoint is not what was saved",
            where=path,
            got=error.got,
            expected=error.expected,
            hint="add --resume False to start anew (moves the checkpoints aside)",
        ) from error
    return read_plain(path)


def _keep_as(current: Path, previous: Path) -> None:
    """Give the current file a second name, so that there is never a moment without a complete ``last.pth``."""
    if not current.exists():
        return
    remove_seal(previous)
    _second_name(current, previous)
    with contextlib.suppress(WeightError):
        digest = sealed_hash(current)
        if digest is not None:
            seal(previous, digest)


def _second_name(current: Path, previous: Path) -> None:
    spare = previous.with_name(f".{previous.name}.link")
    spare.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.link(current, spare)
        spare.replace(previous)
        return
    current.replace(previous)  # file systems without hard links


def _identities(saved: ModelCard, own: ModelCard) -> list[tuple[str, Any, Any]]:
    """What two cards say of what a run is made of: names, then the values of both."""
    settings = [card.extra.get("settings") or {} for card in (saved, own)]
    experts = [s.get("expert_hashes") for s in settings]
    schemes = [{m: i.get("scheme") for m, i in (s.get("intensities") or {}).items()} for s in settings]
    return [
        ("labels", saved.labels, own.labels),
        ("channels", saved.channels, own.channels),
        ("experts", experts[0], experts[1]),
        ("normalisation", schemes[0], schemes[1]),
    ]


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """``key: old -> new`` for every leaf that changed."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for key in dict.fromkeys([*old, *new])
            for line in _differences(old.get(key), new.get(key), f"{path}::{key}" if path else str(key))
        ]
    if json.dumps(old, default=str) == json.dumps(new, default=str):
        return []
    return [f"{path}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
