"""The forgetting report as one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...tables import markdown_text

__all__ = ["forgetting_table"]


def forgetting_table(found: Mapping[str, Any]) -> str:
    """Markdown: a line per group, then one per structure; general decoder / experts / mixture for each prompt.

    Args:
        found: as :func:`~common.methods.sam_med3d_moe.forgetting.summary` gives it.
    """
    prompts = found["prompts"]
    head = "general / experts / mixture"
    lines = [
        "Mean Dice. Experts: on a structure with an expert that one alone, on others the mean over all. A group's mean",
        f"is over its structures. The gate asked the right one for {100 * found['gate_right']:.0f} % of the prompts.",
        "",
        f"| | objects | {' | '.join(f'{p}: {head}' for p in prompts)} |",
        "|---|---:|" + "---|" * len(prompts),
    ]
    for name, own in found["groups"].items():
        expert = "" if name == "others" else name
        objects = sum(s["objects"] for s in found["structures"].values() if s["expert"] == expert)
        lines.append(_line(f"**{markdown_text(name)}** ({own['structures']})", objects, own["dice"], prompts))
    for name, own in found["structures"].items():
        lines.append(_line(markdown_text(name), own["objects"], own["dice"], prompts))
    rules = found["protocol"]
    lines += ["", "Clicks: " + ", ".join(f"{k} {v}" for k, v in rules.items() if v not in (None, False)) + "."]
    return "\n".join(lines) + "\n"


def _line(name: str, objects: int, dice: Mapping[str, Mapping[str, float]], prompts: list[str]) -> str:
    cells = [" / ".join(f"{value:.3f}" for value in dice[p].values()) for p in prompts]
    return f"| {name} | {objects} | {' | '.join(cells)} |"
