"""What of a network goes into a file that takes one image: all of it, its slices, or nothing, and then why."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from common.backbones.sam3d.network import Sam3D
from common.methods.m4oe.phase_one import MaskedVolume
from common.methods.m4oe.single import M4oEFile
from common.methods.m4oe.volume import M4oEVolume
from common.methods.sam_med3d_moe.network import SAMMed3DMoE
from common.methods.samora.stage_one.volume import ExpertVolume
from common.methods.samora.stage_two.volume import SAMoraVolume

__all__ = ["REFUSALS", "ForFile", "for_file"]

PROMPTED = (
    "the network answers prompts, and a file that takes one image gets none; its gate chooses a decoder for each prompt"
)
HIDES = "the network rebuilds what it hides at random; it shows what was learned and segments nothing"
REFUSALS: dict[type[nn.Module], str] = {
    SAMMed3DMoE: PROMPTED,
    Sam3D: PROMPTED.partition(";")[0],
    MaskedVolume: HIDES,
    ExpertVolume: "stage 2 takes LoRA adapters from the network; it segments nothing itself",
}


class ForFile(NamedTuple):
    """A network as a file can hold it.

    Args:
        module: takes one tensor and returns one.
        slices: it takes slices ``[1, C, X, Y]``, the bundle volumes of them.
        refusal: why there can be no such file; empty where there can.
        fixed: what the file is for alone, in words.
    """

    module: nn.Module
    slices: bool = False
    refusal: str = ""
    fixed: str = ""


class _Slice(nn.Module):
    def __init__(self, *, volume: SAMoraVolume) -> None:
        super().__init__()
        self.volume = volume

    def forward(self, image: Tensor) -> Tensor:
        return self.volume.segment(image)


def for_file(network: nn.Module, *, modality: int = 0, head: int = 0) -> ForFile:
    """The exportable form of a bundle's inference network.

    Args:
        network: the bundle's ``network_def``.
        modality: M4oE: index of the modality that the file is for.
        head: M4oE: index of the data set whose structures the file knows.
    """
    for kind, reason in REFUSALS.items():
        if isinstance(network, kind):
            return ForFile(network, refusal=reason)
    if isinstance(network, M4oEVolume):
        inner = network.network
        fixed = f"modality {inner.modalities[modality]!r} and data set {inner.tasks[head]!r} only"
        return ForFile(M4oEFile(network=inner, modality=modality, head=head), slices=True, fixed=fixed)
    if isinstance(network, SAMoraVolume):
        return ForFile(_Slice(volume=network), slices=True)
    return ForFile(network)
