"""Whole scans answered by prompts: those of a user, or clicks and boxes simulated from the annotation."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from ...data.prompts.click_protocol import ClickProtocol, click_protocol
from ...data.prompts.clicks import click_generator
from ...errors import ConfigError, DataError, PromptError
from ...literals import disk_name, file_name
from ...plain_json import parse_object
from ...prompts import boxes_from_label
from .page import write_session_page
from .promptable import Promptable
from .rehearse import rehearse
from .session import Session

__all__ = ["PromptedVolume"]

logger = logging.getLogger(__name__)
SOURCES = ("user", "gt")


class PromptedVolume(nn.Module):
    """A label map for a scan, one object after the other, on the scan's own grid.

    Prompts of a user are ``{name: {"inside": [[x, y, z], ...], "outside": [...], "box": [[...], [...]]}}`` in voxels of
    the scan (in mm where ``"space": "world"``): first the box, then the clicks inside, then those outside. Names that
    the network's label space does not have get the numbers behind it, in order, and are logged.

    Asked again about the same scan it keeps the embeddings, and the answers as far as the prompts are the same: a
    further click costs a decoder. Where ``image.meta["answer"]`` is ``mask`` the answer is 1 in the object and 0
    elsewhere, where it is ``labels`` a label map as ever; both are all 0 as long as there are no prompts.

    Args:
        network: also a mixture; None where it is set before the first scan comes.
        structures: names of the label space, 1 .. K.
        source: ``user``, or ``gt``: clicks (or a box) simulated from the label map, an *oracle* that is to be reported
            as such.
        prompt: of ``gt``: ``points`` or ``box``.
        protocol: of ``gt``: name or rules of the clicks.
        follow: windows follow objects that are larger than a crop.
        spacing: mm of the network's grid.
        seed: of simulated clicks.
        cache: embeddings to keep per scan.
        pages: folder that gets an HTML page of each scan's session; None writes none.
        reuse_margin: see :class:`.session.Session`; 0.5 lets no object begin in another one's crop, so that an
            answer depends on its own prompts alone, whatever was asked before.

    Raises:
        ConfigError: for an unknown choice.
    """

    def __init__(
        self, *, network: Promptable | None, structures: Sequence[str], source: str = "user", prompt: str = "points",
        protocol: ClickProtocol | str = "evaluation", follow: bool = False, spacing: float = 1.5, seed: int = 0,
        cache: int = 8, pages: str | Path | None = None, reuse_margin: float = 0.25,
    ) -> None:  # fmt: skip
        super().__init__()
        if source not in SOURCES:
            raise ConfigError("unknown choice", where="prompt_source", got=source, expected=", ".join(SOURCES))
        if prompt not in ("points", "box"):
            raise ConfigError("unknown choice", where="prompt", got=prompt, expected="points, box")
        self.network, self.structures = network, tuple(structures)
        self.source, self.prompt, self.follow, self.spacing = source, prompt, follow, spacing
        self.protocol = click_protocol(protocol) if isinstance(protocol, str) else protocol
        self.seed, self.cache, self.pages, self.reuse_margin = seed, cache, pages, reuse_margin
        self.session: Session | None = None
        self._mark: tuple[Any, ...] = ()
        self._told: list[_Prompt] = []
        self._paged: dict[str, str] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Names behind the numbers of the last answer, 1 first."""
        others = () if self.session is None else tuple(n for n in self.session.objects if n not in self.structures)
        return (*self.structures, *others)

    @torch.no_grad()
    def forward(self, image: Tensor, label: Tensor | None = None, case: Sequence[str] | str = "") -> Tensor:
        """Label map ``[1, 1, X, Y, Z]`` of a scan.

        Args:
            image: ``[1, 1, X, Y, Z]`` on the scan's own grid; a user's prompts are in its ``meta``, as
                :class:`~common.data.prompts.targets.UserPromptsd` puts them there.
            label: the same of its annotation, for ``gt``.
            case: its name.

        Raises:
            DataError: for another layout, or simulation without an annotation.
            PromptError: for prompts that cannot be meant.
        """
        if not isinstance(image, MetaTensor) or image.ndim != 5 or tuple(image.shape[:2]) != (1, 1):
            got = tuple(image.shape)
            expected = "MetaTensor [1, 1, X, Y, Z]"
            raise DataError("prompts are answered for one scan of one channel at a time", got=got, expected=expected)
        name = case if isinstance(case, str) else str(case[0])
        scan = MetaTensor(image.as_tensor()[0].cpu(), affine=torch.as_tensor(image.affine).reshape(-1, 4, 4)[0].cpu())
        self.session = self._opened(scan, image.device, name)
        if isinstance(label, MetaTensor):
            label = label.as_tensor()  # its affine is that of a batch
        if self.source == "gt":
            self._simulate(self.session, label, name)
        else:
            self._follow_user(self.session, _told(image.meta.get("prompts")), name, "answer" in image.meta)
        if self.pages is not None:
            self._write_page(self.session, label, name)
        return self._label_map(self.session, image)

    def _opened(self, scan: MetaTensor, device: torch.device, name: str) -> Session:
        """A session on a scan: the last one where it is the same scan and network, with its embeddings."""
        assert self.network is not None
        mark = _mark(scan, self.network)
        session = self.session
        if session is None or mark != self._mark:
            session = Session(network=self.network, image=scan, follow=self.follow, clicks=self.protocol.clicks,
                              spacing=self.spacing, cache=self.cache, device=device, where=name,
                              reuse_margin=self.reuse_margin)  # fmt: skip
            self._told = []
        elif self.source == "gt":
            session.events.clear()
        self._mark, session.where = mark, name
        return session

    def _simulate(self, session: Session, label: Tensor | None, case: str) -> None:
        if label is None:
            hint = "give --prompt_source user with prompts of your own"
            raise DataError("simulated prompts need an annotation", where=case, expected="a label map", hint=hint)
        for name in self.structures:
            target = self._target(session, label, name)
            if not bool(target.any()):
                continue
            if self.prompt == "box":
                box = boxes_from_label(target.as_tensor(), 1)[0]
                session.box(name, _extended(box, target.shape[1:]))
            else:
                rehearse(session, name, target, self.protocol, generator=click_generator(self.seed, case, name))

    def _target(self, session: Session, label: Tensor, name: str) -> MetaTensor:
        """The mask ``[1, X, Y, Z]`` of a structure on the scan's grid."""
        affine = torch.from_numpy(session.volume.given.affine.copy())
        return MetaTensor((label[0].cpu() == self.structures.index(name) + 1).float(), affine=affine)

    def _follow_user(self, session: Session, prompts: Mapping[str, Any], case: str, quiet: bool) -> None:
        if not prompts and not quiet:
            expected = "points or a box, such as --points \"{'liver': [[120, 80, 40]]}\""
            raise PromptError("a promptable network needs prompts", where=case, got="none", expected=expected)
        wanted = [step for name, own in prompts.items() for step in _steps(name, own, case)]
        same = 0
        while same < min(len(wanted), len(self._told)) and wanted[same] == self._told[same]:
            same += 1
        self._told, session.events = self._told[:same], session.events[:same]
        for step in wanted[same:]:
            if step.kind == "box":
                session.box(step.name, step.place, space=step.space)
            else:
                session.click(step.name, step.place, inside=step.kind == "inside", space=step.space)
            self._told.append(step)

    def _write_page(self, session: Session, label: Tensor | None, case: str) -> None:
        if not session.objects:
            return
        known = [n for n in session.objects if n in self.structures]
        truth = {} if label is None else {n: self._target(session, label, n) for n in known}
        experts = getattr(self.network, "names", None)
        write_session_page(
            Path(str(self.pages)) / f"{self._page_name(case)}.html", session, targets=truth, title=case,
            experts=None if experts is None else ("general", *experts),
        )  # fmt: skip

    def _page_name(self, case: str) -> str:
        """A page of its own for each scan, where scans of several tasks have one name, too."""
        name, scan = file_name(case), hashlib.sha256(repr(self._mark[:4]).encode()).hexdigest()[:8]
        return name if self._paged.setdefault(disk_name(name), scan) == scan else f"{name}_{scan}"

    def _label_map(self, session: Session, image: MetaTensor) -> Tensor:
        found = torch.zeros(1, *image.shape[2:])
        if session.objects:
            order = session.label_map().as_tensor()
            for number, name in enumerate(session.objects, start=1):
                found[order == number] = self.names.index(name) + 1
        if image.meta.get("answer") == "mask":
            found = (found > 0).to(found)
        for name in session.objects:
            if name not in self.structures:
                logger.warning("%s is number %d of the label map", name, self.names.index(name) + 1)
        answer: Tensor = MetaTensor(found[None].to(image.device)).copy_meta_from(image)
        return answer


class _Prompt(NamedTuple):
    name: str
    kind: str
    place: Any
    space: str


def _steps(name: str, own: Mapping[str, Any], case: str) -> list[_Prompt]:
    """An object's prompts in the order in which a session gets them."""
    unknown = sorted(set(own) - {"inside", "outside", "box", "space"})
    if unknown or not any(own.get(kind) for kind in ("inside", "outside", "box")):
        problem = "an object's prompts are not understood"
        got = ", ".join(unknown) or "nothing"
        raise PromptError(problem, where=f'{case}, object "{name}"', got=got, expected="inside, outside, box")
    space = str(own.get("space", "voxel"))
    boxes = [] if own.get("box") is None else [_Prompt(name, "box", own["box"], space)]
    return boxes + [_Prompt(name, kind, p, space) for kind in ("inside", "outside") for p in own.get(kind) or ()]


def _mark(scan: MetaTensor, network: Promptable) -> tuple[Any, ...]:
    """What tells a scan and the weights that see it from others."""
    values = scan.as_tensor().contiguous()
    digest = hashlib.blake2b(values.view(torch.uint8).numpy().data, digest_size=16).digest()
    tensors = network.parameters() if isinstance(network, nn.Module) else ()
    weights = tuple(-1 if t.is_inference() else t._version for t in tensors)
    return digest, tuple(values.shape), scan.affine.numpy().tobytes(), str(values.dtype), weights


def _extended(box: Tensor, shape: Sequence[int]) -> list[list[float]]:
    """A box with an extent of a voxel at least along every axis, within the scan."""
    low, high = box[0].clone(), box[1].clone()
    last = torch.tensor(shape, dtype=box.dtype) - 1
    flat = high <= low
    high = torch.where(flat, torch.minimum(high + 1, last), high)
    low = torch.where(high <= low, low - 1, low)
    return [low.tolist(), high.tolist()]


def _told(prompts: Any) -> dict[str, Any]:
    """The prompts of the only scan, from its meta data, where a loader makes a list of one of them."""
    text = prompts[0] if isinstance(prompts, (list, tuple)) and prompts else prompts
    return parse_object(text, error=PromptError, problem="the prompts cannot be read") if text else {}
