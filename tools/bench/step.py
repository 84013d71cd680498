"""What a training step of a preset costs in 32 bits and in bf16, and with channels last, on this machine's CPU."""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from monai.utils import set_determinism

from common.atomic import atomic_write
from common.command_words import shown_option
from common.errors import ConfigError, DataError

__all__ = ["HALF", "NETWORKS", "PLAIN", "Network", "Row", "absent_phantom", "step", "trainer_of"]

BUNDLES = Path("bundles")
PLAIN, HALF = "fp32", "bf16"


class Network(NamedTuple):
    """One row of the table.

    Args:
        bundle: whose training.
        files: configurations on top of ``train.json``.
        data: what follows the folder of the phantom: a task of it, or ``_2d`` for the pictures.
        values: of the configuration.
        last: also with channels last.
    """

    bundle: str
    files: tuple[str, ...]
    data: str = ""
    values: Mapping[str, Any] = {}
    last: bool = False


_CT = "/phantom_ct"
_GENERAL = {"exclude": ["liver tumour"]}
NETWORKS = {
    "ic_moe_laptop": Network("ic_moe", ("laptop",), "_2d"),
    "ka2er_laptop": Network("ka2er", ("laptop", "alone")),
    "ka2er_expert_abdomen": Network("ka2er_expert", ("abdomen_cpu",), _CT, {"channels_last": False}, last=True),
    "ka2er_expert_abdomen_16": Network(
        "ka2er_expert", ("abdomen_cpu",), _CT, {"channels_last": False, "base_features": 16}, last=True
    ),
    "ka2er_expert_demo": Network("ka2er_expert", ("demo",), _CT, {"channels_last": False}, last=True),
    "ka2er_expert_demo_16": Network(
        "ka2er_expert", ("demo",), _CT, {"channels_last": False, "base_features": 16}, last=True
    ),
    "ka2er_expert_laptop": Network("ka2er_expert", ("laptop",), _CT, {"channels_last": False}, last=True),
    "m4oe_demo": Network("m4oe", ("demo",)),
    "m4oe_demo_32": Network("m4oe", ("demo",), "", {"embed": 32}),
    "m4oe_laptop": Network("m4oe", ("laptop",)),
    "m4oe_expert_demo": Network("m4oe_expert", ("demo",)),
    "m4oe_expert_demo_32": Network("m4oe_expert", ("demo",), "", {"embed": 32}),
    "m4oe_expert_laptop": Network("m4oe_expert", ("laptop",)),
    "sam_med3d_demo": Network("sam_med3d_moe_expert", ("general", "demo", "small_general", "boxes"), "", _GENERAL),
    "samora_demo": Network("samora", ("lora_one", "demo")),
    "samora_laptop": Network("samora", ("lora_one", "laptop")),
    "samora_decoder_laptop": Network("samora", ("decoder_only", "laptop")),
    "samora_expert_demo": Network("samora_expert", ("pixel", "demo")),
}


@dataclass(frozen=True)
class Row:
    """Figures of one network: the processor's seconds of a step, the fastest of several after a first one.

    Args:
        network: its name in :data:`NETWORKS`.
        fp32: seconds in 32 bits.
        bf16: seconds with the network's products in bf16; None where its gradients are not finite.
        fp32_last: in 32 bits with channels last, where that is measured.
        bf16_last: likewise.
        difference: of the first step's losses in both, over that of 32 bits; None without finite gradients in bf16.
    """

    network: str
    fp32: float
    bf16: float | None
    fp32_last: float | None
    bf16_last: float | None
    difference: float | None

    @property
    def gain(self) -> float | None:
        """How many times as fast bf16 is, which presets keep as ``cpu_gain``."""
        return None if self.bf16 is None else self.fp32 / self.bf16


def step(name: str | None = None, *, data: str = "data/phantom", repeats: int = 4, out: str | None = None) -> str:
    """Measure the training step of one network, or of all, on one thread.

    Args:
        name: of :data:`NETWORKS`; all when None.
        data: the phantom, with the pictures in ``<data>_2d`` beside it.
        repeats: timed steps of each way, in turns, >= 2: the first one does not count.
        out: folder for ``bench_step.json``.

    Returns:
        the table.

    Raises:
        ConfigError: for an unknown network, too few repeats or no data.
    """
    wanted = list(NETWORKS) if name is None else [name]
    if not set(wanted) <= set(NETWORKS) or repeats < 2:
        got, expected = f"{name}, {repeats} repeats", f"one of {', '.join(NETWORKS)}, and 2 repeats or more"
        raise ConfigError("there is no such step to measure", where="bench step", got=got, expected=expected)
    absent_phantom(wanted, data)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        for key in wanted:
            rows.append(_measured(key, data, repeats))
            gain = rows[-1].gain
            told = "no finite gradients" if gain is None else f"{gain:.2f} times as fast"
            print(f"{key}: bf16 {told}", file=sys.stderr, flush=True)
            if out is not None:
                with atomic_write(Path(out) / "bench_step.json") as file:
                    file.write_text(json.dumps([{**asdict(r), "gain": r.gain} for r in rows], indent=2))
    finally:
        torch.set_num_threads(before)
    return _table(rows)


def absent_phantom(wanted: Sequence[str], data: str) -> None:
    """Refuse where the phantom is not there.

    Args:
        wanted: networks of :data:`NETWORKS`.
        data: the phantom.

    Raises:
        ConfigError: with the command that writes it.
    """
    absent = [p for n in wanted if not (p := Path(data + NETWORKS[n].data)).is_dir()]
    if absent:
        hint = f"python -m tools phantom {shown_option('out', data)}"
        raise ConfigError("the phantom is not there", where=absent[0], hint=hint)


def _measured(key: str, data: str, repeats: int) -> Row:
    network = NETWORKS[key]
    ways = [(p, last) for last in ((False, True) if network.last else (False,)) for p in (PLAIN, HALF)]
    with tempfile.TemporaryDirectory() as place:
        runs = {way: _run(network, data, Path(place), *way) for way in ways}
        seconds: dict[tuple[str, bool], list[float]] = {way: [] for way in ways}
        losses: dict[tuple[str, bool], float] = {}
        for turn in range(repeats):
            for way, run in runs.items():
                torch.manual_seed(turn)
                began = time.process_time()
                try:
                    loss = run()
                except DataError:  # the trainer's, of gradients that are not finite
                    if way[0] == PLAIN:
                        raise
                    loss = math.nan
                seconds[way].append(time.process_time() - began)
                losses[way] = losses.get(way, loss) if math.isfinite(loss) else math.nan
    best = {way: min(s[1:]) for way, s in seconds.items() if math.isfinite(losses[way])}
    plain, half = losses[PLAIN, False], losses[HALF, False]
    return Row(key, best[PLAIN, False], best.get((HALF, False)), best.get((PLAIN, True)), best.get((HALF, True)),
               abs(half - plain) / abs(plain) if math.isfinite(half) else None)  # fmt: skip


def _run(network: Network, data: str, place: Path, precision: str, last: bool) -> Callable[[], float]:
    """One step of the preset's own trainer, on its first batch; returns the loss."""
    trainer = trainer_of(network, data, place, precision, last)
    batch = next(iter(trainer.data_loader))

    def once() -> float:
        found = trainer._process_function(trainer, batch)
        return float((found[0] if isinstance(found, list) else found)["loss"])

    return once


def trainer_of(network: Network, data: str, place: Path, precision: str = PLAIN, last: bool = False) -> Any:
    """The trainer of a preset, on this machine's CPU and with loaders in this process.

    Args:
        network: the preset.
        data: the phantom.
        place: a folder for what it writes; its prepared volumes lie in ``store`` there.
        precision: ``fp32`` or ``bf16``.
        last: with channels last.
    """
    parser = ConfigParser()
    parser.read_config([str(BUNDLES / network.bundle / "configs" / f"{f}.json") for f in ("train", *network.files)])
    folder = str(place / "-".join([*network.files, precision, str(last)]))
    own = {"dataset_dir": data + network.data, "output_dir": folder, "ckpt_dir": folder,
           "store_dir": str(place / "store"),
           "bundle_root": str(BUNDLES / network.bundle), "num_workers": 0, "quiet": True}  # fmt: skip
    half = {"_target_": "common.engine.training.precision.Numerics", "dtype": "$__import__('torch').bfloat16"}
    told = {"numerics": half} if precision == HALF else {"precision": PLAIN}
    for name, value in {**own, **network.values, "device": torch.device("cpu"), **told}.items():
        parser[name] = value
    if last:
        parser["channels_last"] = True
    set_determinism(int(parser.get("seed", 0)))
    return parser.get_parsed_content("train::trainer")


def _table(rows: Sequence[Row]) -> str:
    heads = "network", "fp32 s", "bf16 s", "gain", "channels last, fp32 s", "bf16 s", "losses differ by"
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * 6]
    for row in rows:
        last = [f"{v:.3f}" if v is not None else "" for v in (row.fp32_last, row.bf16_last)]
        half = ["not finite", ""] if row.bf16 is None else [f"{row.bf16:.3f}", f"{row.fp32 / row.bf16:.2f}"]
        differ = "" if row.difference is None else f"{row.difference:.1e}"
        figures = [f"{row.fp32:.3f}", *half, *last, differ]
        lines.append(f"| {row.network} | {' | '.join(figures)} |")
    return "\n".join(lines)
