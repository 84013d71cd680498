"""Public SAM-Med3D checkpoints for networks of any image size, with or without boxes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import WeightError
from ...weights import Coverage, load_weights
from ..sam.weights import ENCODER, read_sam

__all__ = ["load_sam_med3d", "resize_positions_3d"]

logger = logging.getLogger(__name__)

_BOXES = "prompt_encoder.box_embeddings.weight"


def load_sam_med3d(network: nn.Module, source: str | Path | Mapping[str, Tensor]) -> Coverage:
    """Fill a `Sam3D` from a SAM-Med3D checkpoint; every tensor must be found and fit.

    Position tables of another image size are resized. A network with boxes that reads a file without their two
    embeddings begins them again at the file's positive point, and says so: nothing trained them yet.

    Args:
        network: `Sam3D`.
        source: a file or a state dict, bare or inside `{"model_state_dict": ...}`, with or without `module.` before
            each name.

    Returns:
        what was loaded.

    Raises:
        WeightError: when something does not fit; nothing is changed then.
    """
    state, where = read_sam(source)
    state = resize_positions_3d(state, network.image_encoder, where=where)
    own = network.state_dict()
    bare = _BOXES in own and _BOXES not in state
    found = load_weights(network, state, where=where, allow_missing=(_BOXES,) if bare else ())
    if bare:
        prompts: Any = network.prompt_encoder
        prompts.start_boxes()
        logger.warning(
            "%s: the checkpoint was never trained on boxes; their embeddings start at the positive point's and mean "
            "nothing until they are trained",
            where,
        )
    return found


def resize_positions_3d(
    state: Mapping[str, Tensor], encoder: Any, *, where: object | None = None, prefix: str = ENCODER
) -> dict[str, Tensor]:
    """Position tables of another image size, resized for an encoder; everything else as it is.

    The position embedding [1, g, g, g, C] is resized as a volume (trilinear), the distances [2g - 1, c] of global
    blocks along their first axis (linear). Tables of windowed blocks depend on the window alone and stay as they are.

    Args:
        state: names and tensors of a checkpoint.
        encoder: `Sam3DEncoder`; which of its blocks are global decides.
        where: what a message should name.
        prefix: of the encoder's names.

    Raises:
        WeightError: for a position embedding that cannot be resized: another width, no cube.
    """
    found = dict(state)
    name = f"{prefix}pos_embed"
    table, wanted = found.get(name), encoder.pos_embed
    if table is None or table.shape == wanted.shape:
        return found
    cube = table.ndim == 5 and table.shape[0] == 1 and len(set(table.shape[1:4])) == 1 and min(table.shape) > 0
    if not cube or table.shape[-1] != wanted.shape[-1]:
        raise WeightError(
            "the position embedding cannot be resized for this network",
            where=where,
            got=f"{name} {tuple(table.shape)}",
            expected=f"[1, g, g, g, {wanted.shape[-1]}] of any g",
            hint="build the network of the variant that the file was trained with",
        )
    volume = table.permute(0, 4, 1, 2, 3).float()
    volume = F.interpolate(volume, size=tuple(wanted.shape[1:4]), mode="trilinear", align_corners=False)
    found[name] = volume.permute(0, 2, 3, 4, 1).to(table.dtype)
    for index, block in enumerate(encoder.blocks):
        for axis in ("d", "h", "w") if block.window_size == 0 else ():
            name = f"{prefix}blocks.{index}.attn.rel_pos_{axis}"
            rows, own = found.get(name), getattr(block.attn, f"rel_pos_{axis}")
            if rows is not None and rows.ndim == 2 and rows.shape[1] == own.shape[1] and rows.shape != own.shape:
                resized = F.interpolate(rows.t()[None].float(), size=own.shape[0], mode="linear", align_corners=False)
                found[name] = resized[0].t().to(rows.dtype)
    return found
