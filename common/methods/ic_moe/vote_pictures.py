"""Pictures of a vote: every expert's mask, where the candidates agree, the answer, features and Grad-CAM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ignite.engine import Engine
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ...atomic import atomic_write
from ...engine.monitor.first_cases import FirstCases, plain_tensor
from ...engine.monitor.overlays import class_colors
from ...figure_text import save_figure

__all__ = ["VotePictures", "Voted", "draw_vote"]

_BACK, _TEXT = "#14161a", "#e6e9ee"


class Voted(Protocol):
    """What the experts see in one picture."""

    @property
    def answers(self) -> Mapping[str, Tensor]:
        """Class indices ``[S, S]`` by name; the network's own is ``answer``."""

    @property
    def votes(self) -> Tensor | None:
        """How many candidates see a structure ``[S, S]``."""

    @property
    def chosen(self) -> Sequence[str]:
        """The candidate that was chosen for each class."""

    @property
    def scores(self) -> Mapping[str, float]:
        """Of the candidates, 0..1."""

    @property
    def features(self) -> Mapping[str, Tensor]:
        """False colours ``[3, S, S]`` by expert."""

    @property
    def cams(self) -> Mapping[str, Tensor]:
        """Where each expert's answer comes from ``[S, S]``."""


class Viewer(Protocol):
    """A network for pictures that shows what its experts see."""

    def views(self, image: Tensor, box: Tensor | None = None) -> Voted:
        """Look at ``[1, C, S, S]``."""
        ...


class VotePictures(FirstCases):
    """Draws the first cases of each task, and writes which candidate was chosen for each.

    Writes ``<output_dir>/pictures/vote_<task>_<case>.png`` with captions and ``<output_dir>/evaluation/votes.csv``. On
    the first process only.

    Args:
        network: shows its views.
        output_dir: the run's folder.
        cases: how many cases of each task are drawn, >= 0.
        image_key: of the batch, ``[B, C, S, S]``.
        label_key: of the batch, in any size; may be missing.

    Raises:
        ConfigError: for a negative number of cases.
    """

    kind, table_name = "vote", "votes"

    def __init__(
        self,
        *,
        network: Viewer,
        output_dir: str | Path,
        cases: int = 2,
        image_key: str = "image",
        label_key: str = "label",
    ) -> None:
        super().__init__(output_dir=output_dir, cases=cases)
        self.network, self.image_key, self.label_key = network, image_key, label_key

    def see(self, engine: Engine, path: Path, title: str) -> tuple[str, Sequence[Mapping[str, Any]]]:
        """Draw the picture that was just segmented."""
        state: Any = engine.state  # MONAI's, which knows the device
        batch, device = state.batch, state.device
        image = plain_tensor(batch[self.image_key])[:1].to(device)
        box = plain_tensor(batch["box"])[:1].to(device) if "box" in batch else None
        views = self.network.views(image, box)
        label = None
        if self.label_key in batch:
            given = plain_tensor(batch[self.label_key])[:1].float()
            label = F.interpolate(given, size=tuple(image.shape[2:]))[0, 0].cpu()
        draw_vote(path, image[0].float().cpu(), views, label=label, title=title)
        told = f", which adds the expert {', '.join(views.chosen)}" if views.chosen else ""
        return f"what each expert sees, and the answer{told}", [{"chosen": " ".join(views.chosen), **views.scores}]


def draw_vote(path: Path, image: Tensor, views: Voted, *, label: Tensor | None = None, title: str = "") -> None:
    """Draw a row of masks and votes, one of features and one of Grad-CAM.

    Args:
        path: PNG file.
        image: ``[1 or 3, S, S]``, 0..1.
        views: of the picture.
        label: class indices ``[S, S]``, outlined in white.
        title: heading.
    """
    from matplotlib.figure import Figure

    names = [n for n in views.answers if n != "answer"] or list(views.features)
    columns = ["picture", *names, *(["votes"] if views.votes is not None else []), "answer"]
    rows = ("mask", "features", "Grad-CAM")
    figure = Figure(figsize=(2.0 * len(columns), 2.0 * len(rows) + 0.5), dpi=110, facecolor=_BACK, layout="constrained")
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    picture = image.clamp(0, 1).expand(3, -1, -1).permute(2, 1, 0).numpy()
    for row, what in enumerate(rows):
        for column, name in enumerate(columns):
            panel = grid[row][column]
            panel.set_axis_off()
            if _shown(panel, what, name, picture, views) and label is not None and what == "mask":
                _outline(panel, label)
            if row == 0:
                panel.set_title(_heading(name, views), color=_TEXT, fontsize=8)
        first = grid[row][1]
        first.text(
            -0.04, 0.5, what, color=_TEXT, fontsize=8, rotation=90, va="center", ha="right", transform=first.transAxes
        )
    if views.votes is not None:
        _key(grid[1][columns.index("votes")])
    figure.suptitle(title, color=_TEXT, fontsize=9)
    with atomic_write(path) as temporary:
        save_figure(figure, temporary, format="png", facecolor=_BACK)


def _key(panel: Any) -> None:
    """What the colours of the votes mean."""
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    colours = colormaps["viridis"]
    marks = [Patch(color=colours(n / 3), label=f"{n} of 3 candidates") for n in range(4)]
    panel.legend(handles=marks, loc="upper center", fontsize=7, frameon=False, labelcolor=_TEXT)


def _heading(name: str, views: Voted) -> str:
    if name in views.scores:
        return f"{name} {views.scores[name]:.3f}" + (" ✓" if name in views.chosen else "")
    return name


def _shown(panel: Any, what: str, name: str, picture: NDArray[Any], views: Voted) -> bool:
    """Draw one panel; False where there is nothing to draw."""
    from matplotlib.colors import ListedColormap

    if what == "features":
        if name not in views.features:
            return False
        panel.imshow(views.features[name].permute(2, 1, 0).numpy())
        return True
    if what == "Grad-CAM":
        if name not in views.cams:
            return False
        panel.imshow(picture)
        panel.imshow(views.cams[name].T.numpy(), cmap="inferno", alpha=0.6, vmin=0, vmax=1)
        return True
    panel.imshow(picture)
    if name == "votes" and views.votes is not None:
        panel.imshow(views.votes.T.numpy(), cmap="viridis", alpha=0.75, vmin=0, vmax=3)
    elif name in views.answers or (name != "picture" and "answer" in views.answers):
        answer = views.answers.get(name, views.answers["answer"])
        classes = max(1, *(int(a.max()) for a in views.answers.values()))
        found = np.ma.masked_equal(answer.T.numpy(), 0)
        panel.imshow(found, cmap=ListedColormap(class_colors(classes)), alpha=0.55, vmin=0.5, vmax=classes + 0.5)
    return True


def _outline(panel: Any, label: Tensor) -> None:
    for index in (int(v) for v in label.unique() if v > 0):
        mask = (label == index).T.float().numpy()
        if 0 < mask.mean() < 1:
            panel.contour(mask, levels=[0.5], colors=["white"], linewidths=0.9)
