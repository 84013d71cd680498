"""What is counted of stored answers: who sees which structure in how many scans."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from common.labels import LabelSpace
from tests.tools.amalgamate.made import expert
from tools.amalgamate.answers import counted
from tools.amalgamate.contradictions import SEEN
from tools.amalgamate.lessons import LABELS


class Answers:
    """Stored answers of one expert: voxels of each structure in each scan that it read."""

    chain = "chain"

    def __init__(self, place: Path, *voxels: list[int]) -> None:
        self.voxels, self.names = voxels, [str(i) for i in range(len(voxels))]
        self.store = SimpleNamespace(find=lambda chain, name: place, writable=lambda: place)

    def case(self, place: int) -> dict[str, Any]:
        return {"voxels": torch.tensor(self.voxels[place])}


class Cases(list[dict[str, Any]]):
    """Three scans of two tasks, the last one with a label map."""

    def item_of(self, position: int) -> dict[str, Any]:
        return self[position]

    def case(self, position: int) -> dict[str, Any]:
        return {"positions": {1: torch.zeros(3, 1), 3: torch.zeros(3, 1)}}


def test_structures_are_counted_by_scan(tmp_path: Path) -> None:
    (tmp_path / "answer").write_bytes(b"x" * 100)
    data: Any = Cases([{"task": "ct"}, {"task": "ct"}, {"task": "mr", "label": "file"}])
    data.cases, data.labels = data, LabelSpace(("liver", "spleen", "rib"))
    data.experts = [expert("a", "liver", "spleen"), expert("b", "rib")]
    data.answers = [Answers(tmp_path, [SEEN, 0], [SEEN - 1, SEEN]), Answers(tmp_path, [500])]
    data.places = [{0: 0, 1: 1}, {2: 0}]
    data.disputed = {("liver", "rib"): 7}
    found = counted(data)
    assert found["scans"] == {"ct": 2, "mr": 1}
    assert found["seen"] == {
        "a": {"ct": {"liver": 1, "spleen": 1}},
        "b": {"mr": {"rib": 1}},
        LABELS: {"mr": {"liver": 1, "rib": 1}},
    }
    assert found["disputed"] == [["liver", "rib", 7]] and found["answers"] == 3 and found["bytes"] == 300
