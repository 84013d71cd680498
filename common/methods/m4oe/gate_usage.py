"""How much of each modality's tokens the experts of a gated network get: tables, a summary, and what looks wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ...atomic import atomic_write
from ...tables import write_csv

__all__ = ["PARTS", "BlockUse", "CaseUse", "block_use", "idle_experts", "usage_rows", "usage_summary", "write_usage"]

PARTS = ("encoder", "decoder")
# First word of a block's name.

IDLE = 0.01
# Share of the weight under which an expert counts as not asked.


class BlockUse(NamedTuple):
    """Sums over tokens: each expert's weight, in how many tokens it is above zero, and the number of tokens."""

    weight: tuple[float, ...]
    asked: tuple[float, ...]
    tokens: int

    def plus(self, other: BlockUse) -> BlockUse:
        """Of both together."""
        weight = tuple(a + b for a, b in zip(self.weight, other.weight, strict=True))
        asked = tuple(a + b for a, b in zip(self.asked, other.asked, strict=True))
        return BlockUse(weight, asked, self.tokens + other.tokens)


class CaseUse(NamedTuple):
    """One case: where it comes from, and the use of each block by its name, ``<part> <stage>.<block>``."""

    case: str
    task: str
    modality: str
    blocks: Mapping[str, BlockUse]


def block_use(weights: Tensor, tokens: int) -> BlockUse:
    """Sum a block's weights.

    Args:
        weights: ``[n, E, h, w]`` per token, or ``[n, E]`` per image.
        tokens: of an image, h x w.
    """
    each = weights.reshape(*weights.shape[:2], -1).double()
    repeat = tokens // each.shape[2]
    weight, asked = (repeat * x.sum((0, 2)) for x in (each, (each > 0).double()))
    return BlockUse(tuple(weight.tolist()), tuple(asked.tolist()), each.shape[0] * tokens)


def usage_rows(cases: Sequence[CaseUse], experts: Sequence[str]) -> list[dict[str, Any]]:
    """The table: modality, block, expert, mean_weight, asked (0..1), cases, tokens.

    A block's ``mean_weight`` is the share of its tokens' weight that an expert gets, ``asked`` the share of tokens
    that ask it at all. ``encoder``, ``decoder`` and ``all`` are means of their blocks, each counting once, because the
    finest blocks have nearly all tokens.

    Args:
        cases: what was recorded.
        experts: names, in the order of the weights.
    """
    rows = []
    for modality in dict.fromkeys(c.modality for c in cases):
        own = [c for c in cases if c.modality == modality]
        shares: dict[str, tuple[list[float], list[float], int]] = {}
        for name in own[0].blocks:
            use = own[0].blocks[name]
            for case in own[1:]:
                use = use.plus(case.blocks[name])
            shares[name] = ([w / use.tokens for w in use.weight], [a / use.tokens for a in use.asked], use.tokens)
        groups = {part: [s for n, s in shares.items() if n.startswith(part)] for part in PARTS}
        for name, group in {"all": list(shares.values()), **groups, **{n: [s] for n, s in shares.items()}}.items():
            rows += [
                {
                    "modality": modality,
                    "block": name,
                    "expert": expert,
                    "mean_weight": sum(s[0][e] for s in group) / len(group),
                    "asked": sum(s[1][e] for s in group) / len(group),
                    "cases": len(own),
                    "tokens": sum(s[2] for s in group),
                }
                for e, expert in enumerate(experts)
                if group
            ]
    return rows


def usage_summary(rows: Sequence[Mapping[str, Any]], block: str = "all") -> dict[str, dict[str, float]]:
    """``{modality: {expert: mean weight}}`` of one block or group of blocks; empty when there is none."""
    result: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["block"] == block:
            result.setdefault(row["modality"], {})[row["expert"]] = row["mean_weight"]
    return result


def idle_experts(mean_weight: Mapping[str, Mapping[str, float]]) -> list[dict[str, str]]:
    """Experts with less than 1 % of the weight where it matters: ``{expert, kind, message}``.

    ``idle``: in every evaluated modality; ``not_its_own``: in the modality that the expert is named like, while others
    ask it. An expert whose own modality was not evaluated is not judged.

    Args:
        mean_weight: from :func:`usage_summary`.
    """
    found = []
    for expert in [e for e in next(iter(mean_weight.values()), {}) if e in mean_weight]:
        own = mean_weight[expert]
        if own[expert] >= IDLE:
            continue
        most, where = max((shares[expert], modality) for modality, shares in mean_weight.items())
        if most < IDLE:
            kind, what = (
                "idle",
                f"gets at most {most:.2%} of the weight in every evaluated modality: its weights are unused",
            )
        else:
            instead = max(own, key=lambda e: own[e])
            kind = "not_its_own"
            what = (f"gets {own[expert]:.2%} of the weight in its own modality, where {instead} is preferred "
                    f"({own[instead]:.0%}), and {most:.0%} in {where}: its name misleads")  # fmt: skip
        message = f"expert {expert} {what}. Train with a load-balance loss, --balance 0.01, to keep all experts in use"
        found.append({"expert": expert, "kind": kind, "message": message})
    return found


def write_usage(folder: Path, rows: Sequence[Mapping[str, Any]], head: Mapping[str, Any]) -> None:
    """Write ``gate_usage.csv`` and, last, ``gate_usage.json``.

    Args:
        folder: of the evaluation.
        rows: from :func:`usage_rows`.
        head: further plain entries of the JSON.
    """
    lines = [{**r, **{k: f"{r[k]:.6g}" for k in ("mean_weight", "asked")}} for r in rows]
    write_csv(folder / "gate_usage.csv", lines)
    parts = {part: usage_summary(rows, part) for part in PARTS}
    cases = {r["modality"]: r["cases"] for r in rows}
    content = {"format": 1, "mean_weight": usage_summary(rows), **parts, "cases": cases, **head}
    with atomic_write(folder / "gate_usage.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
