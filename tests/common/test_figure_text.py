"""Names in figures are text, and all figures are saved so."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from common.engine.monitor.overlays import draw_overlay
from common.figure_text import save_figure
from common.labels import LabelSpace

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("x$_$y", "$^$", "a$b$c", "$\\frac$", "100 $", "a\u202eb\x1b")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_formula(name):
    figure = Figure(figsize=(2, 2), layout="constrained")
    panel = figure.subplots()
    panel.set_title(name)
    panel.set_ylabel(name)
    panel.text(0, 0, name)
    figure.suptitle(name)
    figure.legend(handles=[Patch(label=name)])
    file = io.BytesIO()
    save_figure(figure, file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")
    assert "\u202e" not in panel.get_title() and panel.get_title()[0] == name[0]


def test_a_case_with_such_a_name_is_drawn(tmp_path):
    image, label = np.random.default_rng(0).random((8, 8)), np.eye(8, dtype=np.int64)
    for name in NAMES[:3]:
        file = tmp_path / "a.png"
        draw_overlay(file, image=image, label=label, pred=label, labels=LabelSpace(("_a",)), spacing=(1, 1), title=name)
        assert file.stat().st_size > 500


def test_nobody_saves_figures_past_it():
    files = [p for folder in ("common", "tools") for p in (ROOT / folder).rglob("*.py")]
    own = [p.name for p in files if re.search(r"\.savefig\(", p.read_text(encoding="utf-8"))]
    assert own == ["figure_text.py"]
