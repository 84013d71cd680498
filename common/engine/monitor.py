"""Everything that shows a run to its user, under one name for configurations."""

from __future__ import annotations

from .history import History, draw_curves, read_history
from .overlays import Overlays, class_colors, draw_overlay
from .progress import Progress
from .tracking import Tracking

__all__ = [
    "History",
    "Overlays",
    "Progress",
    "Tracking",
    "class_colors",
    "draw_curves",
    "draw_overlay",
    "read_history",
]
