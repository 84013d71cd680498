"""A trained SAM-Med3D-MoE gets one more mask decoder, and the proof that nobody else's answers change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import Tensor

from common.bundle_words import shown_knob
from common.card import ModelCard, save_weights
from common.errors import ExpertError, WeightError
from common.experts.sources import hash_files
from common.labels import LabelSpace, union
from common.methods.sam_med3d_moe.network import MoELogits, SAMMed3DMoE
from common.methods.sam_med3d_moe.start import DecoderExpert, read_decoders
from common.methods.sam_med3d_moe.trained import Mixture, read_mixture

from ..terminal import console

__all__ = ["Proof", "add", "compare"]

_ROUNDING = 1e-4
_IMAGES, _PROMPTS = 2, 8


class Proof(NamedTuple):
    """Answers to random prompts before and after.

    Args:
        prompts: how many.
        general: how many of them the general decoder answered alone, before.
        identical: whether those are the same bits, and every prompt is answered by whom it was.
        largest: difference of the other answers' logits, relative to the largest of them.
    """

    prompts: int
    general: int
    identical: bool
    largest: float


def add(source: Path, expert: Path, target: Path, *, name: str | None, seed: int) -> None:
    """Append an expert to the mixture in ``source`` and write ``target``.

    Raises:
        ExpertError: for an expert of another general model, a name or a structure that is there already.
        WeightError: when ``source`` is no mixture, or an answer would change.
    """
    found, card = read_mixture(source)
    network = found.network.eval()
    new = next(iter(read_decoders([expert] if name is None else {name: expert}, network.base).values()))
    _refuse_repeated(new, found, expert)
    labels = card.labels
    if new.structures:
        labels = union(labels, LabelSpace(new.structures, exclusive=labels.exclusive))
    before = _answers(network, seed)
    old = {k: v.clone() for k, v in network.state_dict().items()}
    count = sum(p.numel() for p in network.parameters())
    network.add_expert(new.name, new.decoder)
    proof = compare(before, _answers(network, seed))
    _require(proof, _touched(old, network), target)
    save_weights(target, network.state_dict(), _card(card, labels, found, new, source))
    grown = sum(p.numel() for p in network.parameters())
    _report(network, new, (count, grown), (card.labels, labels), proof, target)


def compare(before: list[MoELogits], after: list[MoELogits]) -> Proof:
    """Two mixtures' answers to the same prompts."""
    prompts, general, identical, largest = 0, 0, True, 0.0
    for old, new in zip(before, after, strict=True):
        alone = old.chosen == 0
        identical &= torch.equal(old.chosen, new.chosen) and torch.equal(old.masks[alone], new.masks[alone])
        prompts, general = prompts + len(alone), general + int(alone.sum())
        scale = old.masks.abs().amax().clamp(min=1e-6)
        largest = max(largest, float(((new.masks - old.masks).abs() / scale).amax()))
    return Proof(prompts, general, identical, largest)


def _refuse_repeated(new: DecoderExpert, found: Mixture, path: Path) -> None:
    if new.name in found.network.names:
        problem = "the mixture has an expert of that name"
        expected = f"none of {', '.join(found.network.names)}"
        raise ExpertError(problem, where=path, got=new.name, expected=expected, hint="give another --name")
    owners = {structure: name for name, own in zip(found.network.names, found.structures) for structure in own}
    twice = [s for s in new.structures if s in owners]
    if twice:
        problem = "the mixture has an expert of that structure"
        got = ", ".join(f"{s} (of {owners[s]})" for s in twice)
        hint = "the gate would not know whom to ask"
        raise ExpertError(problem, where=path, got=got, expected="structures that no expert knows", hint=hint)


@torch.no_grad()
def _answers(network: SAMMed3DMoE, seed: int) -> list[MoELogits]:
    """To random clicks, and boxes where they are read, on noise."""
    generator = torch.Generator().manual_seed(seed)
    side = network.image_size
    found = []
    for _ in range(_IMAGES):
        embedding = network.encode(torch.randn(1, 1, side, side, side, generator=generator))
        for clicks in (1, 3):
            points = torch.rand(_PROMPTS, clicks, 3, generator=generator) * (side - 1)
            labels = torch.randint(0, 2, (_PROMPTS, clicks), generator=generator)
            found.append(network.decode(embedding, network.prompts(points=points, labels=labels)))
        if network.boxes:
            boxes = (torch.rand(_PROMPTS, 2, 3, generator=generator) * (side - 1)).sort(1).values
            found.append(network.decode(embedding, network.prompts(boxes=boxes)))
    return found


def _touched(old: Mapping[str, Tensor], network: SAMMed3DMoE) -> list[str]:
    """Tensors that were there before and are not the same bits (of the gate's last layer: its old rows)."""
    new = {k: v[: len(old[k])] if v.ndim else v for k, v in network.state_dict().items() if k in old}
    return [name for name, value in old.items() if not torch.equal(new[name], value)]


def _require(proof: Proof, touched: list[str], target: Path) -> None:
    if proof.identical and proof.largest <= _ROUNDING and not touched:
        return
    got = f"{'the same' if proof.identical else 'other'} decoders and bits, logits differ by up to {proof.largest:.3g}"
    raise WeightError("the new expert changed the others' answers; nothing was written", where=target,
                      got=f"{got}; changed: {', '.join(touched[:3]) or 'no tensor'}",
                      expected=f"rounding, at most {_ROUNDING}")  # fmt: skip


def _card(card: ModelCard, labels: LabelSpace, found: Mixture, new: DecoderExpert, source: Path) -> ModelCard:
    settings: dict[str, Any] = {
        **card.extra["settings"],
        "network": found.network.settings,
        "expert_structures": [*map(list, found.structures), list(new.structures)],
        "expert_hashes": [*found.hashes, new.sha256],
    }
    parent = {"file": source.name, "sha256": hash_files((source,)), "config_hash": card.config_hash,
              "extra": {k: v for k, v in card.extra.items() if k != "settings"}}  # fmt: skip
    known = {k: card.extra[k] for k in ("contract",) if k in card.extra}
    return replace(card, labels=labels, config_hash="",
                   extra={**known, "settings": settings, "parent": parent, "added": {"expert": new.name}})  # fmt: skip


def _report(
    network: SAMMed3DMoE, new: DecoderExpert, parameters: tuple[int, int], labels: tuple[LabelSpace, LabelSpace],
    proof: Proof, target: Path,
) -> None:  # fmt: skip
    table = Table("", "before", "after", title=str(target))
    table.add_row("experts", ", ".join(network.names[:-1]), ", ".join(network.names))
    table.add_row("structures", *(str(len(space)) for space in labels))
    table.add_row("parameters", *(f"{count:,}" for count in parameters))
    terminal = console()
    terminal.print(table)
    terminal.print(
        f"{proof.prompts} random prompts: every one is answered by whom it was; the {proof.general} that the general "
        f"decoder answers alone have the same bits, the others differ by {proof.largest:.3g} at most (rounding).\n"
        f"Nobody asks {new.name} yet. Train the gate further: python -m monai.bundle run --config_file "
        f"bundles/sam_med3d_moe/configs/train.json {shown_knob('start_from', target)}",
    )
