"""The experts of all tasks as one untrained model: what a student is worth must be more than this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from torch import Tensor, nn

from ..errors import ExpertError
from ..labels import LabelSpace
from .expert_set import Expert, ExpertSet

__all__ = ["ExpertEnsemble", "finest_spacing"]


class ExpertEnsemble(nn.Module):
    """Every expert answers about every image; a structure's answer is the mean over the experts that know it.

    ``y_k = mean_{e knows k} (p_e(k) - p_e(background))`` and ``y_background = 0``, so that the argmax is the structure
    with the largest margin over its experts' background, if any is positive. Experts that do not know a structure have
    no say in it. With one expert of one task it is that expert's decision between each structure and background.

    Args:
        experts: of the tasks; task-agnostic ones take part as well where they know structures of ``labels``.
        labels: the union that the answer is over.
        spacing: mm per voxel of the images, in x, y, z.
        axcodes: directions of their axes.

    Raises:
        ExpertError: without an expert, for overlapping structures, or a structure that no expert knows.
    """

    def __init__(
        self, *, experts: ExpertSet, labels: LabelSpace, spacing: Sequence[float], axcodes: str = "RAS"
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.labels, self.spacing, self.axcodes = labels, tuple(spacing), axcodes
        if not len(experts):
            raise ExpertError("an ensemble needs experts", where="experts", got="none")
        if not labels.exclusive or any(not e.spec.labels.exclusive for e in experts):
            raise ExpertError("an ensemble is over structures that exclude each other", where="labels")
        known = {name for e in experts for name in e.spec.labels.names}
        missing = [name for name in labels.names if name not in known]
        if missing:
            got = ", ".join(missing)
            expected = ", ".join(sorted(known))
            raise ExpertError("no expert knows these structures", where="labels", got=got, expected=expected)

    def forward(self, raw: Tensor, stats: Tensor) -> Tensor:
        """Margins ``[B, K+1, X, Y, Z]`` of intensities ``[B, C, X, Y, Z]`` that nobody normalised.

        Args:
            raw: the images or windows of them.
            stats: ``[1 or B, C, 10]`` statistics of the whole volumes, as the experts take them.
        """
        rows = stats.expand(raw.shape[0], *stats.shape[1:])
        total = raw.new_zeros(raw.shape[0], self.labels.num_classes, *raw.shape[2:])
        count = raw.new_zeros(self.labels.num_classes)
        for expert in cast(Iterable[Expert], self.experts):
            answer = expert.logits(raw, rows, self.spacing, self.axcodes)
            p = answer.float().softmax(1)
            for i, name in enumerate(expert.spec.labels.names, 1):
                if name in self.labels.names:
                    k = self.labels.names.index(name) + 1
                    total[:, k] += p[:, i] - p[:, 0]
                    count[k] += 1
        margins: Tensor = total / count.clamp(min=1)[None, :, None, None, None]
        return margins


def finest_spacing(experts: ExpertSet, otherwise: Sequence[float]) -> list[float]:
    """The smallest voxel along each axis among the experts', mm; ``otherwise`` where none names its own."""
    known = [e.spec.spacing for e in experts if e.spec.spacing is not None]
    return [min(sizes) for sizes in zip(*known, strict=True)] if known else [float(s) for s in otherwise]
