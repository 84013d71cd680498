"""Pictures that runs left: their best and worst cases, and what goes on inside of them."""

from __future__ import annotations

import base64
import io
import struct
from html import escape
from pathlib import Path

from PIL import Image

from .results import Overlay, Run, Study

__all__ = ["gallery", "image", "pictures"]

PICTURES_PER_RUN = 12


def image(file: Path, alt: str) -> str:
    """A picture inside the page; WebP, because a page with all PNGs is several times as large.

    Of one that cannot be read there is a word.
    """
    packed = io.BytesIO()
    try:
        with Image.open(file) as picture:
            picture.convert("RGB").save(packed, "WEBP", quality=86)
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError) as error:
        return f'<p class="notice">Left out: {escape(file.name)} is no picture ({type(error).__name__}).</p>'
    data = base64.b64encode(packed.getvalue()).decode("ascii")
    return f'<img loading="lazy" alt="{escape(alt)}" src="data:image/webp;base64,{data}">'


def gallery(study: Study) -> str:
    """Best and worst cases, a tab for each run."""
    shown = [r for r in sorted(study.runs, key=_gallery_order) if r.overlays]
    if not shown:
        return ""
    first = shown[0].id
    buttons, figures = "", ""
    for run in shown:
        pressed = "true" if run.id == first else "false"
        buttons += f'<button value="{escape(run.id)}" aria-pressed="{pressed}">{escape(run.title)}</button>'
        hidden = "" if run.id == first else " hidden"
        for o in sorted(run.overlays, key=_overlay_order)[:PICTURES_PER_RUN]:
            name = o.case if o.case.startswith(o.task) else f"{o.task} {o.case}"
            alt = f"{o.kind}: {o.case}, {o.structure}, Dice {o.dice:.3f}"
            figures += (
                f'<figure data-shown="{escape(run.id)}"{hidden}>{image(o.file, alt)}'
                f'<figcaption><span class="pill">{escape(o.kind)}</span><b>{escape(o.structure)}</b> Dice {o.dice:.3f}'
                f"<span>{escape(name)}</span></figcaption></figure>"
            )
    note = (
        "Best and worst cases of every task by mean Dice: solid outlines are the label, dashed the prediction. "
        "Best cases are cut through their largest structure, worst cases through the one that failed most."
    )
    tabs = f'<div class="tabs" data-group="shown">{buttons}</div>' if len(shown) > 1 else ""
    return f'<h2>Best and worst cases</h2><p class="sub">{note}</p>{tabs}<div class="gallery">{figures}</div>'


def _overlay_order(overlay: Overlay) -> tuple[str, str]:
    return overlay.task, overlay.kind


def _gallery_order(run: Run) -> int:
    order = ("amalgamated", "run", "alone", "variant", "expert", "external")
    return order.index(run.kind) if run.kind in order else len(order)


def pictures(study: Study) -> str:
    """What runs left in ``pictures/``: attention and gate maps, votes, what was forgotten."""
    figures = "".join(
        f"<figure>{image(p.file, p.caption)}<figcaption><b>{escape(p.caption)}</b>"
        f"<span>{escape(r.title)}</span></figcaption></figure>"
        for r in study.runs
        for p in r.pictures[:PICTURES_PER_RUN]
    )
    return f'<h2>Inside the models</h2><div class="gallery">{figures}</div>' if figures else ""
