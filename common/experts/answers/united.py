"""A student's label map with the word of the experts that stay beside it.

Each expert that stays decides about structures of its own, the student about all others. Where the expert says one of
its structures, it is there. Where it does not, these structures are left out and the student's best other class is
taken: the marginal rule, for an expert's "none of mine" says nothing about which of the others it is. So the map is the
student's to the last voxel where no such structure is in question. Where two experts that stay claim a voxel for
different structures, the map that explains both best decides (:mod:`.joint`).
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from torch import Tensor

from ...command_words import shown_option
from ...contract import Contract
from ...data.datasets.dataset_json import case_name
from ...data.transforms.loading import LoadCased
from ...errors import DataError, ExpertError, GeometryError
from ...geometry import Grid
from ...losses.marginal import terms
from ...plain_json import parse_object
from ..fit import reads, tell_doubts
from .ask import AskExpertd
from .beside import ALONE, Kept, refusal
from .saved import answer_file, read_answer
from .teaching import Judge
from .together import one_map

__all__ = ["AskKeptd", "LeaveToKeptd", "UniteKeptd"]

_SAID, _BY = "kept", "kept_by"


class AskKeptd(Transform):
    """Ask the experts that stay about a scan that they read, before anything is done to it.

    What they say is the entry ``kept`` ``[1, X, Y, Z]`` of the student's indices on the scan's own grid, 0 where they
    say none of the structures that they decide about; ``kept_by`` is a text with ``{expert: its structures}``. A scan
    that none of them reads gets neither.

    Args:
        kept: the experts; without any, nothing is done.
        structures: the student's K names.
        contract: of the student, which says what a modality's channels are.
        modality: what all scans are, whatever they say; what each says when None.
        targets: only these of the student's structures are asked about; all unless it is a list of names.
        trust: open the code of MONAI bundles: a file beside the weights is not enough to run it.
        answers: folder in which their answers about scans lie already, as :mod:`.saved` has them; others are asked for.
        device: where the experts compute.

    Raises:
        ExpertError: for an expert whose files are missing or others, or a MONAI bundle that nobody trusts.
    """

    def __init__(
        self,
        kept: Sequence[Kept],
        structures: Sequence[str],
        contract: Contract,
        *,
        modality: str | None = None,
        targets: str | Sequence[str] = "all",
        trust: bool = False,
        answers: str | Path | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.structures, self.contract, self.modality = tuple(structures), contract, modality
        self.answers = None if answers is None else Path(answers)
        asked = [k._replace(decides=tuple(n for n in k.decides if isinstance(targets, str) or n in targets))
                 for k in kept]  # fmt: skip
        self.kept = [k for k in asked if k.decides]
        self.asks = [_ask(k, trust, device) for k in self.kept]
        self.load = LoadCased(keys="image")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with what the experts say of the scan, where one reads it.

        Raises:
            DataError: when nobody says what the scan is, and it decides whether an expert reads it.
        """
        result = dict(data)
        heard = [(k, ask) for k, ask in zip(self.kept, self.asks, strict=True) if self._reads(k, data)]
        if not heard:
            return result
        image: MetaTensor = self.load({k: data[k] for k in ("image", "case") if k in data})["image"]
        answers = [self._answer(k, ask, image, data) for k, ask in heard]
        decided = [n for n in self.structures if any(n in k.decides for k, _ in heard)]
        said = one_map(answers, [_judge(k, decided) for k, _ in heard], decided).classes
        own = torch.tensor([0, *(self.structures.index(n) + 1 for n in decided)], dtype=torch.int16)
        result[_SAID] = own[said][None]
        result[_BY] = json.dumps({k.spec.name: list(k.decides) for k, _ in heard})
        return result

    def _answer(self, kept: Kept, ask: AskExpertd, image: MetaTensor, data: Mapping[Hashable, Any]) -> Tensor:
        grid = Grid.of(image)
        if self.answers is not None:
            file = answer_file(self.answers, kept.spec.name, str(data.get("task", "")), case_name(data))
            if (found := read_answer(file, grid.shape)) is not None:
                return found
        asked: Tensor = ask({"image": image, "grid": {"shape": grid.shape, "affine": grid.affine.tolist()}})["answer"]
        return asked

    def _reads(self, kept: Kept, data: Mapping[Hashable, Any]) -> bool:
        """Whether an expert reads a scan, for each of the modalities that the scan can be."""
        told = self.modality or data.get("modality")
        known = self.contract.modalities
        names = self.contract.fit(None, str(told), ignore=True).modalities if told else ()
        names = names or tuple(known) or ("",)
        channels = {n: known.get(n, {}).get("channels") or self.contract.channels for n in names}
        found = [(n, reads(kept.spec, channels[n], n)) for n in names]
        for name in (n for n, one in found if one):
            tell_doubts(kept.spec, channels[name], name)
        if len({one for _, one in found}) > 1:
            own = " or ".join(n for n, one in found if one)
            raise DataError("nobody says what the scan is, and an expert that stays reads it or does not",
                            where=f"case {case_name(data)}, expert {kept.spec.name!r}", got=" or ".join(names),
                            expected=f"a modality; the expert reads {own}",
                            hint=f"add {shown_option('modality', found[0][0])}, for example; or {ALONE}")  # fmt: skip
        return found[0][1]


class LeaveToKeptd(Transform):
    """Let the structures about which the experts decide not compete in the student's logits of a scan.

    Args:
        structures: the student's K names.
        key: logits ``[K+1, ...]``.
    """

    def __init__(self, structures: Sequence[str], key: str = "pred") -> None:
        self.structures, self.key = tuple(structures), key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy; the same logits where no expert was asked."""
        keep, logits = self.competing(data), data[self.key]
        if bool(keep.all()) or not torch.is_floating_point(logits):  # or decided while the tiles were joined
            return dict(data)
        if len(logits) != len(keep):
            raise ExpertError("experts stay beside a student whose structures exclude each other", where=self.key,
                              got=len(logits), expected=len(keep))  # fmt: skip
        out, low = ~keep.to(logits.device), torch.finfo(logits.dtype).min / 4
        return {**data, self.key: logits.masked_fill(out.view(-1, *[1] * (logits.ndim - 1)), low)}

    def competing(self, data: Mapping[Hashable, Any]) -> Tensor:
        """``[K+1]`` bool: the classes about which no expert decides in a scan, background first."""
        decided = {n for names in _by(data).values() for n in names}
        return torch.tensor([True, *(n not in decided for n in self.structures)])


class UniteKeptd(Transform):
    """Put what the experts say into the student's label map, on the scan's own grid.

    ``told`` then says by case who decided about what; cases of which no expert was asked are not in it.

    Args:
        key: the label map ``[1, X, Y, Z]``.
    """

    def __init__(self, key: str = "pred") -> None:
        self.key, self.told = key, dict[str, dict[str, list[str]]]()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy with the united map; the same map where no expert was asked.

        Raises:
            GeometryError: when both lie on other grids.
        """
        found = _by(data)
        if not found:
            return dict(data)
        label, said = data[self.key], torch.as_tensor(data[_SAID])
        said = said.as_tensor() if isinstance(said, MetaTensor) else said
        if label.shape != said.shape:
            raise GeometryError("the experts that stay answered on another grid than the student's map lies on",
                                where=f"case {case_name(data)}", got=tuple(said.shape),
                                expected=tuple(label.shape))  # fmt: skip
        said = said.to(label.device)
        self.told[case_name(data)] = found
        return {**data, self.key: torch.where(said > 0, said.to(label.dtype), label)}


def _by(data: Mapping[Hashable, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = parse_object(data[_BY], error=DataError) if _BY in data else {}
    return found


def _ask(kept: Kept, trust: bool, device: torch.device | str) -> AskExpertd:
    if kept.spec.kind == "bundle" and not trust:
        raise ExpertError("an expert that stays beside the student is a MONAI bundle: asking it runs its code",
                          where=f"expert {kept.spec.name!r} ({kept.spec.path})",
                          hint=f"add --trust_kept True if you trust it, or {ALONE}")  # fmt: skip
    try:
        return AskExpertd(kept.spec, device=device)
    except ExpertError as error:
        raise refusal(kept, error) from error


def _judge(kept: Kept, structures: Sequence[str]) -> Judge:
    """An expert in the terms of what it decides about; all else that it knows belongs to its background."""
    labels = kept.spec.labels
    place = tuple(labels.names.index(n) for n in kept.decides)
    matrix = terms(kept.decides, structures)
    return Judge(kept.spec.name, len(labels), labels.exclusive, place, matrix if labels.exclusive else matrix[1:],
                 kept.decides)  # fmt: skip
