"""The cases that an evaluator has just finished, one by one, however its batch and its output are put together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ignite.engine import Engine
from monai.data import decollate_batch

__all__ = ["finished_cases"]


def finished_cases(engine: Engine) -> Iterator[dict[str, Any]]:
    """Each case of the evaluator's output as one dict; what the network step dropped is taken from the batch.

    Args:
        engine: after an iteration; its batch and its output may be lists of cases, or collated.
    """
    batch: Any = engine.state.batch
    output: Any = engine.state.output
    batch = decollate_batch(batch) if isinstance(batch, dict) else batch
    output = decollate_batch(output) if isinstance(output, dict) else output
    for i, item in enumerate(output):
        yield {**(batch[i] if i < len(batch) else {}), **item}
