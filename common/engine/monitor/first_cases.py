"""Pictures and a table of the first cases of each task, made while an evaluator goes through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import Tensor

from ...errors import ConfigError
from ...literals import file_name
from ...tables import write_csv
from .gate_pictures import add_captions

__all__ = ["FirstCases", "first_of", "plain_tensor"]


class FirstCases:
    """After the forward pass of each of the first cases of a task: a picture with its caption, and rows of a table.

    Writes ``<output_dir>/pictures/<kind>_<task>_<case>.png`` and ``<output_dir>/evaluation/<table>.csv``, on the first
    process only. What is drawn is up to :meth:`see`.

    Args:
        output_dir: the run's folder.
        cases: how many cases of each task, >= 0.

    Raises:
        ConfigError: for a negative number of cases.
    """

    kind = ""
    table_name = ""
    fields: Sequence[str] | None = None
    """Columns of the table; those of the first row when None."""

    def __init__(self, *, output_dir: str | Path, cases: int) -> None:
        if cases < 0:
            raise ConfigError("cases are counted from the first", where="cases", got=cases, expected=">= 0")
        self.cases = cases
        self.pictures = Path(output_dir) / "pictures"
        self.table = Path(output_dir) / "evaluation" / f"{self.table_name}.csv"
        self._drawn: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator."""
        if idist.get_rank() == 0 and self.cases:
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Look at the case that was just segmented, if it is among the first of its task."""
        batch: Any = engine.state.batch
        task = first_of(batch.get("task"), "case")
        case = first_of(batch.get("case"), f"case{engine.state.iteration}")
        if self._drawn.get(task, 0) >= self.cases:
            return
        self._drawn[task] = self._drawn.get(task, 0) + 1
        name = f"{self.kind}_{file_name(task, case)}.png"
        caption, rows = self.see(engine, self.pictures / name, f"{task} · {case}")
        add_captions(self.pictures, {name: f"{task}, case {case}: {caption}"})
        self._rows += [{"task": task, "case": case, **row} for row in rows]
        fields = list(self._rows[0]) if self.fields is None else self.fields
        write_csv(self.table, self._rows, fields)

    def see(self, engine: Engine, path: Path, title: str) -> tuple[str, Sequence[Mapping[str, Any]]]:
        """Draw the engine's case.

        Args:
            engine: the evaluator, after a forward pass.
            path: PNG file to write.
            title: heading.

        Returns:
            what the caption says of it, and its rows of the table.
        """
        raise NotImplementedError


def first_of(value: Any, default: str) -> str:
    """The first of a batch's names, or the default."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return default if value is None else str(value)


def plain_tensor(value: Any) -> Tensor:
    """A tensor without meta data."""
    tensor = torch.as_tensor(value)
    plain: Tensor = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    return plain
