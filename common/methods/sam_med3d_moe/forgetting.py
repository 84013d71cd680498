"""What the general model knows, what its experts gained and forgot, and what a mixture of them keeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ...atomic import atomic_write
from ...data.prompts.click_protocol import ClickProtocol, click_protocol
from ...data.prompts.clicks import click_generator
from ...data.prompts.objects import ObjectCrops
from ...engine.interactive.prompting import click_scores
from ...errors import ConfigError
from ...tables import write_csv
from .forgetting_picture import draw_forgetting
from .forgetting_table import forgetting_table
from .network import SAMMed3DMoE

__all__ = ["MODELS", "ForgettingReport", "summary"]

MODELS = ("general", "experts", "mixture")
# The general model alone; on a structure with an expert that one alone, on others the mean over all; the mixture.

OTHERS = "others"


class ForgettingReport:
    """Asks every decoder alone and the mixture about every object, with the very same first prompt.

    Writes into ``output_dir``: ``evaluation/forgetting.csv`` (a row per object, prompt and decoder),
    ``forgetting.json`` (means by structure and group), ``forgetting.md`` (the same as a table) and
    ``pictures/forgetting.png``.

    Args:
        network: a mixture with ``names``, ``decode_with`` and ``asker``.
        dataset: objects, as :class:`~common.data.prompts.objects.ObjectCrops` gives them.
        output_dir: where to write.
        clicks: numbers of clicks to report.
        boxes: also report boxes, where the network reads them.
        protocol: name or rules of the clicks.
        gate_at: see the mixture.
        seed: of the clicks.
        device: where the network is.
        quiet: no progress bar.

    Raises:
        ConfigError: for no prompts to report.

    Reference:
        SAM-Med3D-MoE, tables 1 and 2 (specific and original tasks).
    """

    def __init__(
        self, *, network: SAMMed3DMoE, dataset: ObjectCrops, output_dir: str | Path, clicks: Sequence[int] = (1, 3, 5),
        boxes: bool = True, protocol: ClickProtocol | str = "evaluation", gate_at: str = "every", seed: int = 0,
        device: torch.device | str = "cpu", quiet: bool = False,
    ) -> None:  # fmt: skip
        self.network, self.dataset, self.output_dir = network, dataset, Path(output_dir)
        self.clicks = sorted({int(n) for n in clicks})
        self.boxes = bool(boxes) and bool(network.boxes)
        if any(n < 1 for n in self.clicks) or not (self.clicks or self.boxes):
            raise ConfigError(
                "nothing to report", where="report_clicks", got=list(clicks), expected="such as [1, 3, 5]"
            )
        rules = click_protocol(protocol) if isinstance(protocol, str) else protocol
        fields = {**vars(rules), "steps": max(self.clicks, default=1), "mask_only": None, "mask_only_last": False}
        self.protocol = ClickProtocol(**fields)
        self.gate_at, self.seed, self.device, self.quiet = gate_at, seed, torch.device(device), quiet

    @torch.no_grad()
    def run(self) -> dict[str, Any]:
        """Ask, write, and return the summary."""
        self.network.eval()
        rows: list[dict[str, Any]] = []
        count = len(self.dataset)
        for i in tqdm(range(count), desc="Forgetting report", disable=self.quiet, unit="object"):
            rows += self._object(self.dataset[i])
        found = summary(rows, self.network.names)
        found["protocol"] = {**vars(self.protocol), "seed": self.seed, "gate_at": self.gate_at}
        self._write(rows, found)
        draw_forgetting(found, self.output_dir / "pictures" / "forgetting.png")
        return found

    def _object(self, item: Mapping[str, Any]) -> list[dict[str, Any]]:
        label = item["label"][None].to(self.device)
        embedding = self.network.encode(item["image"][None].to(self.device))
        told = {"case": item["case"], "task": item["task"], "structure": item["name"]}
        expert = int(item["expert"])
        told["expert"] = self.network.names[expert - 1] if expert else ""
        rows = []
        for decoder, start in self._decoders():
            for prompt, dice, scores in self._ask(embedding, label, item, start):
                chosen = _chosen(scores, self.network) if decoder == "mixture" else ""
                rows.append({**told, "decoder": decoder, "prompt": prompt, "dice": dice, "chosen": chosen})
        return rows

    def _decoders(self) -> list[tuple[str, Callable[[], Callable[..., Any]]]]:
        """Names, and what begins a session with them."""
        experts = [(name, partial(partial, self.network.decode_with, name)) for name in self.network.names]
        general = partial(partial, self.network.decode_with, None)
        return [("general", general), *experts, ("mixture", partial(self.network.asker, at=self.gate_at))]

    def _ask(
        self, embedding: Tensor, label: Tensor, item: Mapping[str, Any], start: Callable[[], Callable[..., Any]]
    ) -> list[tuple[str, float, Tensor | None]]:
        found: list[tuple[str, float, Tensor | None]] = []
        if self.clicks:
            generator = click_generator(self.seed, item["case"], item["name"])
            told = click_scores(self.network, embedding, label, self.protocol, generator=[generator], decode=start())
            for n in self.clicks:
                dice = told.dice[:n, 0].max() if self.protocol.report == "best" else told.dice[n - 1, 0]
                scores = None if told.scores is None else told.scores[n - 1, 0]
                found.append((f"{n} click{'s' * (n > 1)}", float(dice), scores))
        if self.boxes:
            box = item["box"][None].to(self.device)
            told = click_scores(self.network, embedding, label, click_protocol("box"), boxes=box, decode=start())
            found.append(("box", float(told.dice[0, 0]), None if told.scores is None else told.scores[0, 0]))
        return found

    def _write(self, rows: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> None:
        folder = self.output_dir / "evaluation"
        write_csv(folder / "forgetting.csv", rows)
        with atomic_write(folder / "forgetting.md") as path:
            path.write_text(forgetting_table(found), encoding="utf-8")
        with atomic_write(folder / "forgetting.json") as path:
            path.write_text(json.dumps(found, indent=2) + "\n")


def summary(rows: Sequence[Mapping[str, Any]], experts: Sequence[str]) -> dict[str, Any]:
    """Mean Dice by structure and by group, for each prompt and each of :data:`MODELS`.

    A structure's mean is over its objects; a group's is over its structures, so that a frequent one does not hide a
    rare one. Groups are the experts by name and ``others``, the structures that no expert was tuned for.

    Args:
        rows: ``structure``, ``expert``, ``decoder``, ``prompt``, ``dice``, ``chosen`` of each answer.
        experts: names.
    """
    prompts = list(dict.fromkeys(str(r["prompt"]) for r in rows))
    structures: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(str(r["structure"]) for r in rows):
        own = [r for r in rows if r["structure"] == name]
        expert = str(own[0]["expert"])
        means = {prompt: _means([r for r in own if r["prompt"] == prompt], expert, experts) for prompt in prompts}
        objects = len({(r["task"], r["case"]) for r in own})
        structures[name] = {"expert": expert, "objects": objects, "dice": means}
    groups = {}
    for group in (*experts, OTHERS):
        members = [s for s in structures.values() if s["expert"] == (group if group != OTHERS else "")]
        if members:
            groups[group] = {
                "structures": len(members),
                "dice": {p: {m: fmean(s["dice"][p][m] for s in members) for m in MODELS} for p in prompts},
            }
    asked = [r for r in rows if r["decoder"] == "mixture"]
    right = fmean(r["chosen"] == r["expert"] for r in asked)
    return {"prompts": prompts, "experts": list(experts), "groups": groups, "structures": structures,
            "gate_right": right}  # fmt: skip


def _means(rows: Sequence[Mapping[str, Any]], expert: str, experts: Sequence[str]) -> dict[str, float]:
    wanted = {"general": ["general"], "experts": [expert] if expert else list(experts), "mixture": ["mixture"]}
    return {model: fmean(float(r["dice"]) for r in rows if r["decoder"] in names) for model, names in wanted.items()}


def _chosen(scores: Tensor | None, network: SAMMed3DMoE) -> str:
    if scores is None:
        return ""
    best, top = scores[1:].max(0)
    return network.names[int(top)] if float(best) > network.tau else ""
