"""One picture of what was gained and what was forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...atomic import atomic_write
from ...engine.monitor.gate_pictures import add_captions
from ...figure_text import save_figure

__all__ = ["draw_forgetting"]

_STYLE = {
    "general": ("#0072b2", "o", "general decoder"),
    "experts": ("#d55e00", "X", "expert alone (others: mean over all experts)"),
    "mixture": ("#009e73", "D", "mixture"),
}


def draw_forgetting(found: Mapping[str, Any], path: Path) -> None:
    """Draw a panel per prompt, a line per group and structure, a mark per model.

    Args:
        found: as :func:`~common.methods.sam_med3d_moe.forgetting.summary` gives it.
        path: PNG file; its caption is added to ``captions.json`` beside it.
    """
    from matplotlib.figure import Figure

    prompts = found["prompts"]
    lines = [*found["groups"].items()]
    names = [f"{name}  ({own['structures']})" for name, own in lines]
    figure = Figure(figsize=(2.6 * len(prompts) + 2.2, 0.55 * len(lines) + 1.9), dpi=110, layout="constrained")
    panels = figure.subplots(1, len(prompts), squeeze=False, sharey=True)[0]
    for panel, prompt in zip(panels, prompts, strict=True):
        for row, (_, own) in enumerate(lines):
            values = own["dice"][prompt]
            panel.plot([min(values.values()), max(values.values())], [row, row], color="#b9bec7", lw=2, zorder=1)
            for place, (model, (colour, mark, _)) in enumerate(_STYLE.items()):
                at = row + 0.16 * (place - 1)
                panel.scatter(values[model], at, color=colour, marker=mark, s=46, zorder=2, edgecolor="white", lw=0.6)
        panel.set(title=prompt, xlim=(-0.02, 1.02), xlabel="Dice")
        panel.set_yticks(range(len(lines)), names)
        panel.grid(axis="x", color="#e6e9ee")
        panel.set_axisbelow(True)
        panel.tick_params(length=0)
        for edge in ("top", "right", "left"):
            panel.spines[edge].set_visible(False)
    panels[0].set_ylim(len(lines) - 0.5, -0.5)
    handles = [
        panels[0].scatter([], [], color=colour, marker=mark, s=46, label=text) for colour, mark, text in _STYLE.values()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
    figure.suptitle("Structures with an expert, and all others: mean Dice over structures (their number)", fontsize=10)
    with atomic_write(path) as temporary:
        save_figure(figure, temporary, format="png")
    text = "Forgetting: what experts gain on their own structures and lose on all others, and what the mixture keeps."
    add_captions(path.parent, {path.name: text})
