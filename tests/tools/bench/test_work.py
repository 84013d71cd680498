"""What a measurement compares stays what it was, so that this year's figures say something beside last year's.

Both ways of every case, at small sizes, do the multiply-adds that ``work.json`` holds and give the same result. Who
changes what is measured writes the new work there (the failure shows it) and says so where the figures are told.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tools.bench import ic_moe, ka2er, m4oe, sam, sam_med3d_moe, samora
from tools.bench.measure import Case, multiply_adds

KNOWN = json.loads(Path(__file__).with_name("work.json").read_text(encoding="utf-8"))
SMALL: dict[ModuleType, dict[str, Any]] = {
    ic_moe: {"size": 64, "embed": 64, "depth": 3, "count": 3},
    ka2er: {"size": 32, "feature_size": 12, "features": (4, 8, 8), "count": 2},
    m4oe: {"size": 32, "embed": 12, "count": 3},
    sam: {"size": 64, "embed": 64, "depth": 3, "count": 2},
    sam_med3d_moe: {"size": 32, "variant": "tiny", "count": 2},
    samora: {"size": 64, "embed": 64, "depth": 3, "count": 2},
}
LARGE = {
    "sam": ("encoder_512", "encoder_1024"),
    "samora": ("inference_512",),
    "ic_moe": ("inference_256", "inference_512", "training_cached"),
    "sam_med3d_moe": ("session",),
    "ka2er": ("inference", "training", "step"),  # test_ka2er_floors has the work of the first
}
"""Of these only what they say: a pass takes seconds."""


def _named(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _said(case: Case) -> dict[str, Any]:
    return {"part": case.part, "tolerance": case.tolerance, "goals": case.goals, "tensors": case.tensors}


def _work(way: Callable[[], object]) -> float:
    return round(multiply_adds(way), 9)


def found(module: ModuleType) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in module.PARTS:
        (case,) = module.cases(**SMALL[module], parts=[part])
        known = _said(case)
        if part not in LARGE.get(_named(module), ()):
            assert case.difference() <= case.tolerance, part
            known |= {"plain": _work(case.plain), "fast": _work(case.fast)}
        yield part, known


@pytest.mark.parametrize("module", SMALL, ids=_named)
def test_what_is_measured(module: ModuleType) -> None:
    assert dict(found(module)) == KNOWN[_named(module)]
    sizes = {name: {k: list(v) if isinstance(v, tuple) else v for k, v in vars(module)[name].items()}
             for name in ("LAPTOP", "PAPER")}  # fmt: skip
    assert sizes == KNOWN["sizes"][_named(module)]


@pytest.mark.parametrize("module", [m for m in SMALL if m is not ka2er], ids=_named)
def test_the_work_grows_with_the_experts(module: ModuleType) -> None:
    given = {k: v for k, v in SMALL[module].items() if k != "count"}
    steps = [[count, _work(step)] for count, step in module.growth(**given, counts=(1, 2, 3))]
    assert steps == KNOWN["growth"][_named(module)]
