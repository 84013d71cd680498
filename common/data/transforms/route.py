"""Which expert and which head a case is for, when a trained network meets it."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Transform

from ...errors import DataError
from ..datasets.dataset_json import case_name

__all__ = ["RouteCased"]


class RouteCased(Transform):
    """Add ``modality``, ``modality_id`` and ``head_id``: positions among a trained network's modalities and heads.

    The two ids are written into the image's ``meta`` as well, for an inferer that gets nothing else.

    A case's own ``modality`` and ``task`` decide. What is given here overrides them, as a new data set needs it whose
    scans are to be segmented with a known head. Where only one exists, it is taken.

    Args:
        modalities: the network's, in its order.
        heads: names of the data sets whose label spaces the network has, in its order.
        modality: for every case.
        head: for every case.

    Raises:
        DataError: for a name that the network does not know, or a case that says nothing while there is a choice.
    """

    def __init__(
        self, modalities: Sequence[str], heads: Sequence[str], modality: str | None = None, head: str | None = None
    ) -> None:
        self.known = {"modality": tuple(modalities), "head": tuple(heads)}
        self.given = {"modality": modality, "head": head}
        for kind, name in self.given.items():
            if name is not None:
                self._index(kind, name, "the override")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with the three entries."""
        where = f"case {case_name(data)}"
        modality, modality_id = self._choose("modality", data.get("modality"), where)
        _, head_id = self._choose("head", data.get("task"), where)
        image = data.get("image")
        if isinstance(image, MetaTensor):
            image.meta.update(modality_id=modality_id, head_id=head_id)
        return {**data, "modality": modality, "modality_id": modality_id, "head_id": head_id}

    def _choose(self, kind: str, own: Any, where: str) -> tuple[str, int]:
        name = self.given[kind] if self.given[kind] is not None else own
        if name is None and len(self.known[kind]) == 1:
            name = self.known[kind][0]
        return str(name), self._index(kind, name, where)

    def _index(self, kind: str, name: Any, where: str) -> int:
        if name in self.known[kind]:
            return self.known[kind].index(name)
        close = difflib.get_close_matches(str(name), self.known[kind], n=1)
        own = "modality" if kind == "modality" else "task"
        raise DataError(
            f"the network has no {kind} for this case" if name is not None else f"the case does not say its {own}",
            where=where,
            got=name,
            expected=", ".join(self.known[kind]),
            hint=f"did you mean {close[0]!r}?" if close else f"say which one with --{kind} NAME",
        )
