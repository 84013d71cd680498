"""Pictures that runs left: their best and worst cases, and what goes on inside of them."""

from __future__ import annotations

import base64
import io
import struct
from pathlib import Path
from typing import NamedTuple

import PIL.Image

from .results import Overlay, Run, Study

__all__ = ["Drawn", "Gallery", "Image", "gallery", "image", "pictures"]

PICTURES_PER_RUN = 12


class Image(NamedTuple):
    """A picture inside the page: its data address, or why there is none."""

    name: str
    alt: str
    address: str = ""
    problem: str = ""


class Drawn(NamedTuple):
    """A case of the gallery: the run that is shown with it, the picture, and what is below."""

    run: str
    image: Image
    kind: str
    structure: str
    dice: float
    name: str


class Gallery(NamedTuple):
    """Runs with pictures, and these; those of the first are shown."""

    runs: list[Run]
    figures: list[Drawn]


def image(file: Path, alt: str) -> Image:
    """A picture; WebP, because a page with all PNGs is several times as large. One that cannot be read is named."""
    packed = io.BytesIO()
    try:
        with PIL.Image.open(file) as picture:
            picture.convert("RGB").save(packed, "WEBP", quality=86)
    except (OSError, ValueError, SyntaxError, struct.error, PIL.Image.DecompressionBombError) as error:
        return Image(file.name, alt, problem=type(error).__name__)
    return Image(file.name, alt, "data:image/webp;base64," + base64.b64encode(packed.getvalue()).decode("ascii"))


def gallery(study: Study) -> Gallery | None:
    """Best and worst cases, a tab for each run; None without any."""
    runs = [r for r in sorted(study.runs, key=_gallery_order) if r.overlays]
    shown = [(r, o) for r in runs for o in sorted(r.overlays, key=_overlay_order)[:PICTURES_PER_RUN]]
    return Gallery(runs, [_drawn(r, o) for r, o in shown]) if runs else None


def _drawn(run: Run, overlay: Overlay) -> Drawn:
    o = overlay
    name = o.case if o.case.startswith(o.task) else f"{o.task} {o.case}"
    shown = image(o.file, f"{o.kind}: {o.case}, {o.structure}, Dice {o.dice:.3f}")
    return Drawn(run.id, shown, o.kind, o.structure, o.dice, name)


def _overlay_order(overlay: Overlay) -> tuple[str, str]:
    return overlay.task, overlay.kind


def _gallery_order(run: Run) -> int:
    order = ("amalgamated", "run", "alone", "variant", "expert", "external")
    return order.index(run.kind) if run.kind in order else len(order)


def pictures(study: Study) -> list[tuple[Image, str]]:
    """What runs left in ``pictures/``, and whose it is: attention and gate maps, votes, what was forgotten."""
    return [(image(p.file, p.caption), r.title) for r in study.runs for p in r.pictures[:PICTURES_PER_RUN]]
