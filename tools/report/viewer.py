"""The page's viewer: slices in three planes and in 3-D, by NiiVue, which is shipped inside the page."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from common.errors import DataError

__all__ = ["viewer", "viewer_scripts"]

HERE = Path(__file__).parent
LIBRARY = HERE / "vendor" / "niivue-0.69.0.umd.js.gz"
SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
"""Of the unpacked file, ``dist/niivue.umd.js`` of the npm package; see ``vendor/README.md``."""


def viewer(volumes: Mapping[str, Any]) -> str:
    """The section: buttons for case and layer, the canvas, the legend; why there is none, or nothing, without cases.

    Args:
        volumes: as :func:`~.volumes.viewer_volumes` gives them.
    """
    if not volumes["cases"]:
        note = volumes.get("note")
        return f'<h2>Look inside</h2><p class="sub">{escape(note)}</p>' if note else ""
    legend = "".join(
        f'<span data-index="{i}"><i class="key" style="--c: {label["colour"]}"></i>{escape(label["name"])}</span>'
        for i, label in enumerate(volumes["labels"], 1)
    )
    planes = {"MULTIPLANAR": "Three planes and 3-D", "AXIAL": "Axial", "CORONAL": "Coronal", "SAGITTAL": "Sagittal"}
    options = "".join(f'<option value="{k}">{v}</option>' for k, v in {**planes, "RENDER": "3-D"}.items())
    note = (
        "The worst and the best case of a task by the methods’ mean Dice, of three tasks at most, with each method’s "
        "answer of its first seed. Drag to move, scroll to change the slice, right button for contrast. Volumes are "
        "coarsened for the page."
    )
    return (
        f'<h2>Look inside</h2><p class="sub">{note}</p><div class="card viewer">'
        '<div class="tabs" id="viewer-cases"></div><div class="tabs" id="viewer-layers"></div>'
        f'<div class="controls"><label>View <select id="viewer-planes">{options}</select></label>'
        '<label>Opacity <input id="viewer-opacity" type="range" min="0" max="1" step="0.05" value="0.5"></label>'
        '<span id="viewer-status" role="status"></span></div>'
        '<div id="viewer-stage" data-state="waiting"><canvas id="viewer-canvas"></canvas></div>'
        f'<p class="legend" id="viewer-legend">{legend}</p></div>'
    )


def viewer_scripts(volumes: Mapping[str, Any]) -> str:
    """What the viewer needs behind the page's own script: the volumes, the library with its licence, and ours.

    Raises:
        DataError: when the library's file is not the one that was pinned.
    """
    if not volumes["cases"]:
        return ""
    packed = LIBRARY.read_bytes()
    if hashlib.sha256(gzip.decompress(packed)).hexdigest() != SHA256:
        raise DataError("the viewer's library was changed", where=LIBRARY, hint="see vendor/README.md beside it")
    licence = (LIBRARY.parent / "LICENSE-niivue.txt").read_text(encoding="utf-8").replace("--", "- -")
    # "<" would be able to end the element
    data = json.dumps(volumes).replace("<", "\\u003c")
    return (
        f'<script type="application/json" id="viewer-volumes">{data}</script>'
        f"<!-- NiiVue {LIBRARY.name.split('-')[1].split('.umd')[0]}\n{licence}-->"
        f'<script type="text/plain" id="viewer-library">{base64.b64encode(packed).decode("ascii")}</script>'
        f"<script>{(HERE / 'viewer.js').read_text(encoding='utf-8')}</script>"
    )
