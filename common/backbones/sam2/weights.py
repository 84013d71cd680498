"""Public SAM2 and SAM2.1 checkpoints for the image path: what belongs to videos is left away, the rest must fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ...errors import WeightError
from ...layers.lora.experts import expert_names
from ...weights import Coverage, load_weights
from ..sam.weights import read_sam
from .network import Sam2

__all__ = ["load_sam2"]

# what only tracking through a video needs; the last two came with 2.1
MEMORY = (
    "memory_attention.*", "memory_encoder.*", "maskmem_tpos_enc", "no_mem_pos_enc", "no_obj_ptr", "obj_ptr_proj.*",
    "mask_downsample.*", "no_obj_embed_spatial", "obj_ptr_tpos_proj.*",
)  # fmt: skip
_DECODER = "sam_mask_decoder."
PER_TOKEN = tuple(_DECODER + p for p in ("mask_tokens.", "output_hypernetworks_mlps.", "iou_prediction_head."))
_TOKENS = _DECODER + "mask_tokens.weight"


def load_sam2(network: Sam2, source: str | Path | Mapping[str, Tensor]) -> Coverage:
    """Fill the network from a checkpoint in SAM2's layout, e.g. ``sam2.1_hiera_base_plus.pt`` or MedSAM2's.

    Positions need no surgery: SAM2 brings them to any size itself. With another number of mask tokens than the file's
    (public: 4) those tokens and their heads stay as they are.

    Args:
        network: of the same variant, with or without experts.
        source: a file or state dict, with or without ``{"model": ...}`` and ``module.``.

    Raises:
        WeightError: unless every other tensor is found with its shape and nothing but the memory is left over.
    """
    state, where = read_sam(source)
    if not any(name.startswith("image_encoder.trunk.") for name in state):
        raise WeightError(
            "this is no SAM2 checkpoint",
            where=where,
            got=", ".join(list(state)[:3]) or "no tensors",
            expected="keys that start with image_encoder.trunk., as in sam2_hiera_base_plus.pt",
            hint="a SAM checkpoint (sam_vit_b_01ec64.pth) belongs to base sam or hsam",
        )
    allowed: tuple[str, ...] = ()
    tokens = state.get(_TOKENS)
    if tokens is not None and tokens.shape[0] != network.state_dict()[_TOKENS].shape[0]:
        state = {name: tensor for name, tensor in state.items() if not name.startswith(PER_TOKEN)}
        allowed = tuple(prefix + "*" for prefix in PER_TOKEN)
    wrapped = {n.replace(".base_layer.", "."): n for n in network.state_dict() if ".qkv.base_layer." in n}
    state = {wrapped.get(name, name): tensor for name, tensor in state.items()}
    if expert_names(network.image_encoder):
        allowed += ("*.lora_*",)
    return load_weights(network, state, allow_missing=allowed, allow_unexpected=MEMORY, where=where)
