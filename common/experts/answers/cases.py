"""A training set whose teachers have answered: each case with what every expert says about it, crop by crop."""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...data.datasets.datalist import Collection, read_collection, task_modalities
from ...data.datasets.dataset_json import case_name
from ...data.store.cases import StoredCases, whole
from ...data.store.entry import StoredArray
from ...data.store.layout import Reading
from ...data.store.place import Store
from ...data.store.stacked import StackedArrays
from ...errors import ConfigError, DataError, few
from ...labels import LabelSpace
from ..fit import check_expert, check_voxels, reads, tell_doubts
from ..regions import region_parts
from ..spec import ExpertSpec, read_manifest
from ..tiles import Tiles, inherited_tiles
from .kept import StoredAnswers, StoredMaps, grid_of
from .teaching import Judge, judge_of, width

__all__ = ["AnsweredCases", "fitting_experts"]

logger = logging.getLogger(__name__)


class AnsweredCases(Dataset[Any]):
    """Cases as a deterministic chain prepares them, with the stored answers of all experts that can read them.

    Each expert is asked once about each scan of a task and modality that it can read, whatever task it is of; what it
    says is kept in the store on the grid of the prepared case. An item is what the chain returns and

    - ``answers``: the experts' records one after another ``[S, ...]`` uint8, zeros of those who were not asked,
    - ``answered`` ``[E]`` bool: whose records they are,
    - ``labelled`` bool: whether ``label`` was drawn by somebody. Where nobody drew one, ``label`` and ``positions`` are
      of one map of all answers (:func:`.together.one_map`) and ``annotated`` is what the experts that answered know,
    - ``taught`` ``[K+1]`` bool: background and what somebody teaches in scans of its modality.

    Args:
        data: dictionaries of files, as :func:`~common.data.datasets.part_labelled.part_labelled` lists them.
        preprocessing: without random parts; cases without a label map pass it.
        store: where prepared volumes and answers lie.
        experts: ``experts.json``, or descriptions.
        labels: the student's structures, which exclude each other.
        dataset_dir: the collection that the data are of: its channels and modalities.
        reading: as for :class:`~common.data.store.cases.StoredCases`.
        transform: random parts, of one item.
        use: roles of the experts that are asked: a part of ``("task", "external")``.
        regions: ``{expert: {region: structures}}``, see :func:`.teaching.judge_of`.
        folds: folds of nnU-Nets that answer together; each description's own when empty.
        mirroring: nnU-Nets answer for mirrored scans, too; None as each one's home does.
        tile_step: step of nnU-Net's tiles as a share of the patch; None as each one's home does.
        device: where experts are asked, in this process if it is a GPU.
        without: entries that are not kept.
        whole_cases: items have their whole arrays in memory, for validation.
        ignore_card: compare channels by their number only.
        volumes: entries that ``transform`` crops; None where nobody says it.

    Attributes:
        experts: those that are asked, in the order of ``answered``.

    Raises:
        ConfigError: without an expert, for structures that overlap, or where answers are left out of what is cropped.
        DataError: when nobody teaches anything about any case.
        ExpertError: for an expert that does not fit the data of its own task.
    """

    def __init__(
        self,
        data: Sequence[Mapping[Hashable, Any]],
        preprocessing: Callable[..., Any],
        *,
        store: Store,
        experts: str | Path | Sequence[ExpertSpec],
        labels: LabelSpace,
        dataset_dir: str | Path | Sequence[str | Path] | Collection,
        reading: Reading | Sequence[int] | int | None = None,
        transform: Callable[..., Any] | None = None,
        use: Sequence[str] = ("task", "external"),
        regions: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
        folds: Sequence[int | str] = (),
        mirroring: bool | None = None,
        tile_step: float | None = None,
        device: torch.device | str = "cpu",
        without: Sequence[str] = (),
        whole_cases: bool = False,
        ignore_card: bool = False,
        volumes: Sequence[str] | None = None,
    ) -> None:
        if volumes is not None and "answers" not in volumes:
            raise ConfigError("another configuration after stored.json takes the answers out", where="volumes",
                              got=", ".join(volumes), expected="answers among them",
                              hint="name stored.json last, after nnunet.json and the sizes")  # fmt: skip
        if not labels.exclusive:
            raise ConfigError("stored answers teach structures that exclude each other", where="exclusive", got=False,
                              hint="leave stored.json out")  # fmt: skip
        specs = read_manifest(experts) if isinstance(experts, (str, Path)) else list(experts)
        collection = read_collection(dataset_dir)
        self.labels, self.transform, self.preprocessing = labels, transform, preprocessing
        self.without, self.whole_cases, self.tile_step = frozenset(without), whole_cases, tile_step
        fitting = fitting_experts([s for s in specs if s.role in use], collection, labels, regions or {}, ignore_card)
        self.experts, self.judges = tuple(s for s, _ in fitting), tuple(j for _, j in fitting)
        asked = [_readable(s, data, collection, ignore_card) for s in self.experts]
        kept = [i for i, case in enumerate(data) if "label" in case or any(i in a for a in asked)]
        _tell_left(data, kept)
        self.data = [data[i] for i in kept]
        self.cases = StoredCases(self.data, preprocessing, store=store, reading=reading)
        place = {old: new for new, old in enumerate(kept)}
        self.places = [{place[i]: n for n, i in enumerate(a)} for a in asked]
        grids = {i: grid_of(self.cases.case(i)) for i in sorted({i for p in self.places for i in p})}
        asking = copy.copy(store)
        if torch.device(device).type == "cuda":
            asking.workers = 0  # a forked process has no GPU
        self.answers = [
            StoredAnswers([self.data[i] for i in p], [grids[i] for i in p], s, store=asking, reading=reading,
                          folds=folds, mirroring=mirroring, tile_step=tile_step, device=device)
            for s, p in zip(self.experts, self.places, strict=True)
        ]  # fmt: skip
        self.mapped = {i: n for n, i in enumerate(grids)}
        parts = [{e: p[i] for e, p in enumerate(self.places) if i in p} for i in self.mapped]
        self.maps = StoredMaps([self.data[i] for i in self.mapped], parts, self.answers, self.judges, labels.names,
                               store=store, reading=reading)  # fmt: skip
        self._tell()

    def __len__(self) -> int:
        """Number of cases."""
        return len(self.data)

    def item_of(self, position: int) -> Mapping[Hashable, Any]:
        """A case's own entries: paths, task, modality."""
        return self.data[position]

    def __getitem__(self, position: int) -> Any:
        """A case, its arrays on disk (in memory for validation), after ``transform``."""
        return self.read(position, _itself if self.transform is None else self.transform)

    def case(self, position: int) -> dict[Hashable, Any]:
        """A case, its arrays on disk (in memory for validation)."""
        found: dict[Hashable, Any] = self.read(position, _itself)
        return found

    def read(self, position: int, read: Callable[[dict[Hashable, Any]], Any]) -> Any:
        """What ``read`` makes of a case; once more when a part of it proves damaged and was made again."""
        own: list[tuple[StoredCases, int]] = [(self.cases, position)]
        own += [(self.answers[e], p[position]) for e, p in enumerate(self.places) if position in p]
        if not self._labelled(position):
            own.append((self.maps, self.mapped[position]))

        def then(found: list[dict[Hashable, Any]]) -> Any:
            if len(found) == len(own):
                joined = self._joined(position, found)
                return read(whole(joined) if self.whole_cases else joined)
            store, place = own[len(found)]

            def go_on(case: dict[Hashable, Any]) -> Any:
                return then([*found, case])

            return store.read(place, go_on)

        return then([])

    def _labelled(self, position: int) -> bool:
        return "label" in self.data[position]

    def _joined(self, position: int, found: list[dict[Hashable, Any]]) -> dict[Hashable, Any]:
        labelled = self._labelled(position)
        case, told = found[0], iter(found[1:])
        answered = torch.tensor([position in p for p in self.places])
        parts = [next(told)["answer"] if a else width(s) for a, s in zip(answered, self.experts, strict=True)]
        case["answers"] = _stacked(parts, case["image"].shape[1:])
        case["answered"], case["labelled"] = answered, torch.tensor(labelled)
        taught = self.taught[str(self.data[position].get("modality", ""))]
        case["taught"] = torch.tensor([True, *(n in taught for n in self.labels.names)])
        if not labelled:
            made = next(told)
            known = {n for a, j in zip(answered, self.judges, strict=True) if a for n in j.known}
            case["label"], case["positions"] = made["label"], made["positions"]
            case["annotated"] = torch.tensor([True, *(n in known for n in self.labels.names)])
        return {k: v for k, v in case.items() if k not in self.without}

    @cached_property
    def taught(self) -> dict[str, list[str]]:
        """By modality the structures that occur in label maps that are used, or that an expert found somewhere."""
        known: dict[str, set[str]] = {}
        for position, item in enumerate(self.data):
            names = known.setdefault(str(item.get("modality", "")), set())
            if len(names) == len(self.labels):
                continue
            if self._labelled(position):
                places = self.cases.case(position).get("positions", {})
                names |= {self.labels.names[k - 1] for k in places if 0 < k <= len(self.labels)}
            for store, place, judge in zip(self.answers, self.places, self.judges, strict=True):
                if position in place and not set(judge.known) <= names:
                    names |= _found(store.case(place[position])["voxels"], judge, self.labels.names)
        return {m: [n for n in self.labels.names if n in names] for m, names in known.items()}

    @property
    def tiles(self) -> Tiles:
        """The student's tiles in the place of those of the experts that have answered."""
        answered = (s for s, places in zip(self.experts, self.places, strict=True) if places)
        return inherited_tiles(answered, self.tile_step)

    @property
    def disputed(self) -> dict[tuple[str, str], int]:
        """``{(structure of one expert, structure of another): voxels}`` that both claim, in all cases together."""
        total: Counter[tuple[str, str]] = Counter()
        for position in range(len(self.maps)):
            total.update(self.maps.case(position)["disputed"])
        return dict(total.most_common())

    def _tell(self) -> None:
        for spec, place in zip(self.experts, self.places, strict=True):
            logger.info("expert %r has answered about %d of %d scans", spec.name, len(place), len(self.data))
        taught = {n for names in self.taught.values() for n in names}
        never = [n for n in dict.fromkeys(n for j in self.judges for n in j.known) if n not in taught]
        if never:
            logger.warning("no expert finds %s in any scan, and no label map has it: it is not taught", few(never))
        for (one, other), voxels in list(self.disputed.items())[:5]:
            logger.info("experts dispute %d voxels: %s or %s", voxels, one, other)


def _itself(case: dict[Hashable, Any]) -> dict[Hashable, Any]:
    return case


def _stacked(parts: Sequence[Any], space: Sequence[int]) -> Any:
    """Records one after another; small ones are in memory and no arrays on disk."""
    if not any(isinstance(p, Tensor) for p in parts):
        return StackedArrays(parts, space)
    read = [p.whole() if isinstance(p, StoredArray) else p for p in parts]
    return torch.cat([p if isinstance(p, Tensor) else torch.zeros(p, *space, dtype=torch.uint8) for p in read])


def _found(voxels: Tensor, judge: Judge, structures: Sequence[str]) -> set[str]:
    rows = range(judge.structures) if judge.place is None else judge.place
    if judge.exclusive:
        return {n for i, n in zip(rows, judge.known, strict=True) if voxels[i]}
    held = [row for i, row in zip(rows, judge.matrix, strict=True) if voxels[i]]
    return {n for k, n in enumerate(structures, 1) if any(row[k] for row in held)}


def fitting_experts(
    specs: Sequence[ExpertSpec], collection: Collection, labels: LabelSpace,
    regions: Mapping[str, Mapping[str, Sequence[str]]], ignore_card: bool,
) -> list[tuple[ExpertSpec, Judge]]:  # fmt: skip
    """Experts that know what is learned, in the student's terms.

    Args:
        specs: the experts.
        collection: what is learned from.
        labels: the student's structures.
        regions: as of :class:`AnsweredCases`.
        ignore_card: also.

    Raises:
        ConfigError: without an expert that knows something of it, or for two of one name.
        ExpertError: for an expert that does not fit the data of its own task.
    """
    names = [s.name for s in specs]
    if not names or len(set(names)) < len(names):
        raise ConfigError("stored answers need experts of different names", where="experts", got=few(names) or "none",
                          hint="python -m tools experts describe writes the list of experts")  # fmt: skip
    called, found = task_modalities(collection), []
    for spec in specs:
        if spec.role == "task" and spec.task in collection.tasks:
            channels = collection.dataset(spec.task).channels
            check_expert(spec, channels, labels if spec.labels.exclusive else None, modalities=called[spec.task],
                         ignore_card=ignore_card)  # fmt: skip
        told = {**region_parts(spec, labels.names), **regions.get(spec.name, {})}
        own = {*spec.labels.names, *(n for part in told.values() for n in part)}
        if spec.role == "external" and not own & set(labels.names):
            logger.warning("expert %r knows none of %s: it is not asked", spec.name, few(labels.names))
            continue
        check_voxels(spec, [d for d in collection.datasets if (spec.role == "task" and d.name == spec.task) or any(
            reads(spec, d.channels, m, ignore_card=ignore_card) for m in called[d.name])],
            ignore_card=ignore_card)  # fmt: skip
        judge = judge_of(spec, labels.names, regions.get(spec.name))
        strange = [n for n in spec.labels.names if spec.labels.exclusive and n not in judge.known]
        if strange:
            logger.warning(
                "expert %r: %s: the student does not learn them, they are background", spec.name, few(strange)
            )
        found.append((spec, judge))
    if not found:
        raise ConfigError("no expert knows what the student learns", where="experts", got=few(names),
                          expected=few(labels.names))  # fmt: skip
    return found


def _readable(
    spec: ExpertSpec, data: Sequence[Mapping[Hashable, Any]], collection: Collection, ignore_card: bool
) -> list[int]:
    """Positions of the cases that an expert can read."""
    channels = {d.name: d.channels for d in collection.datasets}
    kinds = [(str(case.get("task", "")), str(case.get("modality", ""))) for case in data]
    fits = {
        (task, modality): (spec.role == "task" and spec.task == task)
        or reads(spec, channels.get(task, ()), modality, ignore_card=ignore_card)
        for task, modality in dict.fromkeys(kinds)
    }
    for (task, modality), fit in fits.items():
        if fit and not (spec.role == "task" and spec.task == task):  # of its own task it was told before
            tell_doubts(spec, channels.get(task, ()), modality, task)
    if not any(fits.values()):
        told = few([f"{', '.join(channels.get(t, ()))} of {t}" for t, _ in fits])
        logger.warning("expert %r reads %s: it is not asked about %s", spec.name, ", ".join(spec.channels), told)
    return [i for i, kind in enumerate(kinds) if fits[kind]]


def _tell_left(data: Sequence[Mapping[Hashable, Any]], kept: Sequence[int]) -> None:
    left = [case_name(case) for i, case in enumerate(data) if i not in set(kept)]
    if not kept:
        raise DataError("nobody teaches anything about these scans", where="experts",
                        got=f"{len(data)} scans without label maps that no expert reads",
                        hint="compare the channels in experts.json with: python -m tools data list")  # fmt: skip
    if left:
        logger.warning("left out, as no expert reads them and no label map is used: %s", few(left))
