"""What an M4oE starts its second phase from: its first phase, a Swin Transformer, or the released weights."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from ...backbones.swin_unet.weights import load_m4oe, load_swin
from ...card import ModelCard
from ...data.datasets.datalist import Collection
from ...data.starts import check_start
from ...errors import ConfigError, WeightError
from ...paths import is_there
from ...weights import load_weights, read_state_dict
from .network import M4oE

__all__ = ["started"]

_ENCODER = ("backbone.patch_embed.", "backbone.layers.", "backbone.norm.")
_LATER = ("*.gate.*", "backbone.layers_up.*", "backbone.concat_back_dim.*", "backbone.norm_up.*", "backbone.up.*",
          "heads.*")  # fmt: skip
_File = tuple[Path, dict[str, Tensor], ModelCard | None]  # weights and their card, as they were read


def started(
    network: M4oE,
    *,
    pretrained: str | Path | Sequence[str | Path] | None = None,
    swin: str | Path | None = None,
    released: str | Path | None = None,
    dataset_dir: str | Path | Sequence[str | Path] | Collection | None = None,
    ignore_card: bool = False,
) -> M4oE:
    """The network, started from one source or from nothing.

    Args:
        network: changed in place.
        pretrained: ``model.pt`` of the first phase: one file that knows every modality, or several (also separated by
            commas). Each modality's experts come from the file that was trained on it; what the experts share is the
            mean over the files. Decoder, gates and heads stay as they are.
        swin: a Swin Transformer's weights, its own or timm's; every expert gets the perceptron.
        released: a checkpoint of M4oE's released code, for ``gate='channel_official'``.
        dataset_dir: what is learned from; each modality must be what its file was taught on.
        ignore_card: warn of it only.

    Raises:
        DataError: for a first phase that was taught on something else.
        ConfigError: for more than one source.
        WeightError: for a modality that no file, or more than one, was trained on, a network without experts, or
            weights that do not fit.

    Reference:
        M4oE, section 2.1: the encoder is pre-trained, everything else is not.
    """
    if sum(source is not None for source in (pretrained, swin, released)) > 1:
        raise ConfigError("a network starts from one source", where="pretrained, swin_weights, released_weights",
                          got=[pretrained, swin, released], expected="at most one that is not None")  # fmt: skip
    if pretrained is not None:
        files = [(path, *read_state_dict(path)) for path in _paths(pretrained)]
        for path, _, card in files:
            known = [] if card is None else list((card.extra.get("settings") or {}).get("modalities") or ())
            check_start(card, path, dataset_dir, modalities=known, ignore_card=ignore_card)
        _from_experts(network, files)
    if swin is not None:
        load_swin(network.backbone, swin)
    if released is not None:
        load_m4oe(network, released)
    return network


def _paths(given: str | Path | Sequence[str | Path]) -> list[Path]:
    if isinstance(given, str):
        whole = is_there(given) and Path(given).is_file()
        given = Path(given) if whole else [part.strip() for part in given.split(",")]
    return [given] if isinstance(given, Path) else [Path(p) for p in given]


def _from_experts(network: M4oE, files: Sequence[_File]) -> None:
    own = network.state_dict()
    stacked = [k for k in own if k.startswith("backbone.layers.") and ".mlp.experts." in k]
    if not stacked:
        problem = "the network has no experts in its encoder to start"
        raise WeightError(problem, where="moe_encoder", got=False, expected=True, hint="train it without --pretrained")
    source = {name: _source(name, files) for name in network.modalities}
    encoders = [{k: v for k, v in state.items() if k.startswith(_ENCODER)} for _, state, _ in files]
    for (path, *_), state in zip(files, encoders, strict=True):
        if state.keys() != encoders[0].keys():
            different = sorted(state.keys() ^ encoders[0].keys())[:4]
            raise WeightError("the first phase's networks differ", where=path, got=different, expected=str(files[0][0]))
    merged: dict[str, Tensor] = {}
    for key in encoders[0]:
        if ".mlp.experts." in key:
            merged[key] = torch.stack([encoders[f][key][e] for f, e in (source[m] for m in network.modalities)])
        else:
            merged[key] = torch.stack([e[key].double() for e in encoders]).mean(0).to(encoders[0][key].dtype)
    allowed = [p for p in _LATER if any(fnmatchcase(n, p) for n in own)]
    load_weights(network, merged, where=", ".join(str(path) for path, *_ in files), allow_missing=allowed)


def _source(modality: str, files: Sequence[_File]) -> tuple[int, int]:
    """Number of the file that was trained on a modality, and of the expert within it."""
    found = []
    for number, (path, _, card) in enumerate(files):
        known = None if card is None else (card.extra.get("settings") or {}).get("modalities")
        if known is None:
            expected = "a model.pt of bundles/m4oe_expert"
            raise WeightError("the weights do not say which modalities they know", where=path, expected=expected)
        if modality in known:
            found.append((number, list(known).index(modality)))
    if len(found) != 1:
        problem = "each modality's experts come from one file"
        got = f"{len(found)} of {', '.join(str(f[0]) for f in files)} were trained on it"
        hint = "train the first phase on the same collection, or give one file per modality"
        raise WeightError(problem, where=modality, got=got, expected="exactly one", hint=hint)
    return found[0]
