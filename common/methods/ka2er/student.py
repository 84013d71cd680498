"""KA2ER's student: the network that is left for inference, with no expert in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segment_anything.modeling import PromptEncoder
from torch import Tensor, nn

from ...backbones.sam.prompt import prompt_encoder as build_prompt_encoder
from ...backbones.swin_unetr.network import SwinUNETR
from ...errors import ConfigError
from ...layers.attention.cross import AttentionBlock, from_tokens, to_tokens
from .experts import plain
from .head import MaskHead
from .script import ScriptableStudent

__all__ = ["LEVELS", "NNUNET", "SWIN_UNETR", "KA2ERStudent", "pretrained"]

SWIN_UNETR, NNUNET = "swin_unetr", "nnunet"
# What a student may be: this file's, or the network of an nnU-Net's plans.
LEVELS = {"bottleneck": 1, "multi": 2, "multi_eighth": 3}


class KA2ERStudent(nn.Module):
    """Swin UNETR whose deepest features pass self-attention, decoded by class tokens with optional boxes.

    ``Y = M_dec(S_dec(A(S_enc(X))), E_pro)``. Level 0 is the bottleneck at 1/32, level 1 the stage at 1/16, level 2 the
    one at 1/8; each has its own self-attention A.

    Args:
        num_structures: foreground structures K.
        in_channels: image channels.
        feature_size: Swin UNETR's width, a multiple of 12.
        depths: Swin blocks per stage.
        num_heads: Swin heads per stage.
        num_self_attention_heads: heads of A, dividing every level's width.
        levels: ``bottleneck``, ``multi`` (plus 1/16) or ``multi_eighth`` (plus 1/16 and 1/8).
        prompt_fuse: ``add_norm`` or ``concat``.
        fuse_at: ``token`` (all targets in one pass) or ``map`` (the paper's, one pass per target).
        exclusive: True gives K + 1 logits with the background's own, for softmax; False K, for sigmoid.
        prompt_encoder: SAM's, frozen; None builds one with random values.
        gradient_checkpointing: recompute Swin blocks in the backward pass to save memory.

    Raises:
        ConfigError: for unknown choices or no structure.

    Reference:
        KA2ER, section 3.3 and figure 2.
    """

    def __init__(
        self,
        *,
        num_structures: int,
        in_channels: int = 1,
        feature_size: int = 48,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        num_self_attention_heads: int = 12,
        levels: str = "bottleneck",
        prompt_fuse: str = "add_norm",
        fuse_at: str = "token",
        exclusive: bool = True,
        prompt_encoder: PromptEncoder | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if num_structures < 1:
            raise ConfigError("a student needs a structure", where="num_structures", got=num_structures)
        if levels not in LEVELS:
            raise ConfigError("unknown choice", where="levels", got=levels, expected=", ".join(LEVELS))
        self.num_structures, self.exclusive, self.levels = num_structures, exclusive, levels
        outputs = num_structures + exclusive
        self.backbone = SwinUNETR(
            in_channels=in_channels,
            out_channels=outputs,
            feature_size=feature_size,
            depths=tuple(depths),
            num_heads=tuple(num_heads),
            use_checkpoint=gradient_checkpointing,
        )
        self.level_channels = tuple(feature_size * 16 // 2**i for i in range(LEVELS[levels]))
        self.attend = nn.ModuleList(
            AttentionBlock(channels=c, heads=num_self_attention_heads, cross=False) for c in self.level_channels
        )
        self.head = MaskHead(
            channels=feature_size,
            outputs=outputs,
            encoder=build_prompt_encoder() if prompt_encoder is None else prompt_encoder,
            fuse=prompt_fuse,
            fuse_at=fuse_at,
        )

    def encode(self, image: Tensor) -> list[Tensor]:
        """``[B, C, X, Y, Z]`` -> five hidden states; each size must be a multiple of 32."""
        size = tuple(image.shape[2:])
        if image.ndim != 5 or any(n % 32 for n in size):
            raise ConfigError("each side of a window must be a multiple of 32", where="roi_size", got=size)
        if self.training and max(size) == 32:
            raise ConfigError(
                "a window of 32 voxels along every axis has one bottleneck voxel, which cannot be normalised",
                where="roi_size",
                got=size,
                expected="64 or more along one axis",
            )
        return self.backbone.hidden_states(image)

    def absorb(self, hidden: list[Tensor]) -> tuple[Tensor, ...]:
        """Hidden states -> ``f_s``: tokens ``[B, N, C]`` per level, after self-attention."""
        maps = [self.backbone.bottleneck(hidden), hidden[3], hidden[2]]
        return tuple(block(to_tokens(level)).tokens for block, level in zip(self.attend, maps, strict=False))

    def grids(self, hidden: list[Tensor]) -> tuple[tuple[int, ...], ...]:
        """Token counts along x, y, z per level."""
        return tuple(tuple(hidden[4 - i].shape[2:]) for i in range(len(self.level_channels)))

    def decode(self, image: Tensor, hidden: list[Tensor], tokens: Sequence[Tensor]) -> Tensor:
        """Decode ``f_s`` or ``f_m`` to the feature map ``[B, feature_size, X, Y, Z]``."""
        maps = [from_tokens(t, grid) for t, grid in zip(tokens, self.grids(hidden), strict=True)]
        states = list(hidden)
        for level, volume in enumerate(maps[1:], start=1):
            states[4 - level] = volume
        return self.backbone.decode(image, states, maps[0])

    def features(self, image: Tensor) -> Tensor:
        """``[B, C, X, Y, Z]`` -> ``[B, feature_size, X, Y, Z]``: all that does not depend on prompts."""
        image = plain(image)
        hidden = self.encode(image)
        return self.decode(image, hidden, self.absorb(hidden))

    def mask_head(self, features: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Feature map and boxes -> logits ``[B, K+1 or K, X, Y, Z]``."""
        logits: Tensor = self.head(features, boxes, self.backbone.out.conv.conv)
        return logits

    def forward(self, image: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Segment.

        Args:
            image: ``[B, C, X, Y, Z]``, sides multiples of 32.
            boxes: ``[B, K, 2, 3]`` corners in window voxels, NaN for structures without one; None without prompts.

        Returns:
            ``[B, K+1, X, Y, Z]`` (exclusive) or ``[B, K, X, Y, Z]`` logits.
        """
        return self.mask_head(self.features(image), boxes)

    def __prepare_scriptable__(self) -> ScriptableStudent:
        """``torch.jit.script`` asks for this: the student without boxes, in what its compiler understands."""
        return ScriptableStudent(student=self)


def pretrained(student: KA2ERStudent, swinvit: str | Path | None = None, kind: str = SWIN_UNETR) -> KA2ERStudent:
    """Give a student MONAI's self-supervised encoder before its training starts.

    Args:
        student: of feature size 48 with one input channel.
        swinvit: ``model_swinvit.pt``; None leaves the student as it is.
        kind: the knob ``student``, which is this one's only value without the overlay of the other.

    Returns:
        The same student.

    Raises:
        ConfigError: for another kind of student.
        WeightError: when the file does not hold every tensor of the encoder.
    """
    if kind != SWIN_UNETR:
        raise ConfigError("another student has another configuration", where="student", got=kind, expected=SWIN_UNETR,
                          hint="for an nnU-Net add configs/nnunet.json to --config_file")  # fmt: skip
    if swinvit is not None:
        student.backbone.load_swinvit(swinvit)
    return student
