"""Answers in the store: what an expert said about each scan, and one map of what all said."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.transforms import Compose, Transform

from ...data.datasets.dataset_json import case_name
from ...data.store.cases import StoredCases
from ...data.store.chain import digest
from ...data.store.entry import StoredArray
from ...data.store.layout import Reading
from ...data.store.place import Store
from ...data.store.sources import Sources
from ...data.transforms.loading import LoadCased
from ...data.transforms.positions import ForegroundPositionsd
from ...errors import DataError, few
from ..spec import ExpertSpec
from .ask import AskExpertd
from .joint import conflicts, joint
from .record import decide, expand
from .teaching import Judge
from .together import one_map

__all__ = ["MapAnswersd", "StoredAnswers", "StoredMaps", "grid_of"]


def grid_of(case: Mapping[Hashable, Any]) -> dict[str, Any]:
    """Where the voxels of a prepared case lie: ``shape`` and ``affine`` of its image, in plain numbers.

    Raises:
        DataError: when the image does not say it.
    """
    image = case["image"]
    affine = getattr(image, "meta", {}).get("affine")
    if affine is None or len(image.shape) != 4:
        raise DataError("the prepared image does not say where its voxels lie", where=f"case {case_name(case)}",
                        got=tuple(image.shape), expected="a volume [C, X, Y, Z] with its affine")  # fmt: skip
    return {"shape": [int(n) for n in image.shape[1:]], "affine": np.asarray(affine, dtype=np.float64).tolist()}


class StoredAnswers(StoredCases):
    """What one expert says about scans, on the grids of a student.

    An entry is named by the expert's files and way of answering, the content of the scan and the grid, and by nothing
    else: seeds, variants, restarts and other collections share it.

    Args:
        data: the cases.
        grids: of each case, see :func:`grid_of`.
        spec: the expert.
        store: where the answers lie.
        reading: how they will be read.
        options: of :class:`.ask.AskExpertd`.
    """

    def __init__(
        self,
        data: Sequence[Mapping[Hashable, Any]],
        grids: Sequence[Mapping[str, Any]],
        spec: ExpertSpec,
        *,
        store: Store,
        reading: Reading | Sequence[int] | int | None = None,
        **options: Any,
    ) -> None:
        wanted = ("image", "case", "task")
        items: list[dict[Hashable, Any]] = [
            {**{k: c[k] for k in wanted if k in c}, "grid": g} for c, g in zip(data, grids, strict=True)
        ]
        ask = AskExpertd(spec, **options)
        chain = Compose([LoadCased(keys="image"), ask])
        told = f"answers of {spec.name} ({few(spec.labels.names)})"
        super().__init__(items, chain, store=store, reading=reading, keys=("image",), told=told)
        ask.release()

    def key_of(self, item: Mapping[Hashable, Any], sources: Sources) -> str:
        """The name of an answer, from the scan's content and the grid alone."""
        return digest(sources.content({k: item[k] for k in ("image", "grid")}, self.keys))


class MapAnswersd(Transform):
    """One label map of the answers about a case, with positions to crop around and what its experts dispute.

    Args:
        answers: of each expert.
        judges: the experts in the student's terms.
        structures: the student's.
    """

    def __init__(self, answers: Sequence[StoredAnswers], judges: Sequence[Judge], structures: Sequence[str]) -> None:
        self.answers, self.judges, self.structures = list(answers), list(judges), tuple(structures)
        self.positions = ForegroundPositionsd()

    def chain_identity(self) -> dict[str, Any]:
        """The experts' terms; which answers it is made of is said by each case."""
        terms = [[j.structures, j.exclusive, j.place, j.known, j.matrix] for j in self.judges]
        return {"judges": terms, "structures": self.structures, "positions": self.positions,
                "code": (one_map, joint, conflicts, decide, expand)}  # fmt: skip

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``label`` ``[1, X, Y, Z]`` of the student's indices, ``positions`` and ``disputed``."""
        heard = [(self.answers[e].read(p, _answer), self.judges[e]) for e, p in data["parts"].items()]
        found = one_map([a for a, _ in heard], [j for _, j in heard], self.structures)
        placed = self.positions({"label": found.classes[None].float()})
        return {**placed, "disputed": found.disputed}


class StoredMaps(StoredCases):
    """One map of all answers about each scan.

    Args:
        data: the cases.
        parts: of each case ``{expert: position among that expert's answers}``.
        answers: of each expert.
        judges: the experts in the student's terms.
        structures: the student's.
        store: where the maps lie.
        reading: how they will be read.
    """

    def __init__(
        self,
        data: Sequence[Mapping[Hashable, Any]],
        parts: Sequence[Mapping[int, int]],
        answers: Sequence[StoredAnswers],
        judges: Sequence[Judge],
        structures: Sequence[str],
        *,
        store: Store,
        reading: Reading | Sequence[int] | int | None = None,
    ) -> None:
        self.answers = list(answers)
        wanted = ("image", "case", "task")
        items: list[dict[Hashable, Any]] = [
            {**{k: c[k] for k in wanted if k in c}, "parts": p} for c, p in zip(data, parts, strict=True)
        ]
        told = f"one map of the answers about {few(list(structures))}"
        super().__init__(items, MapAnswersd(answers, judges, structures), store=store, reading=reading,
                         keys=("image",), told=told)  # fmt: skip

    def key_of(self, item: Mapping[Hashable, Any], sources: Sources) -> str:
        """The name of a map, from those of the answers that it is made of."""
        return digest([[e, self.answers[e].chain, self.answers[e].names[p]] for e, p in item["parts"].items()])


def _answer(case: Mapping[Hashable, Any]) -> Any:
    answer = case["answer"]
    return answer.whole() if isinstance(answer, StoredArray) else answer
