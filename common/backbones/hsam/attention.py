"""H-SAM's two-way transformers: the image is asked first, and the second one looks through the first one's masks."""

from __future__ import annotations

import math

from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock, TwoWayTransformer
from torch import Tensor, nn

__all__ = ["GuidedAttention", "GuidedBlock", "GuidedTransformer", "ImageFirstBlock", "ImageFirstTransformer"]


class GuidedAttention(Attention):
    """Multi-head attention whose weights are multiplied by a mask after the softmax.

    ``out = (softmax(q kᵀ / √d) ⊙ guide) v``, so the weights of a query no longer sum to one.

    Shapes:
        q [B,Nq,C], k and v [B,Nk,C], guide [B,Nq,Nk] in 0..1 -> [B,Nq,C].

    Reference:
        Cheng et al., H-SAM, CVPR 2024, mask-guided attention of the second decoder; the released code does so at
        224 and 512 pixels only, here at every size.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, guide: Tensor | None = None) -> Tensor:
        """Attended values; without a guide this is SAM's own attention."""
        if guide is None:
            plain: Tensor = super().forward(q, k, v)
            return plain
        queries, keys, values = (
            self._separate_heads(project(x), self.num_heads)
            for project, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        weights = (queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])).softmax(dim=-1)
        out: Tensor = self.out_proj(self._recombine_heads((weights * guide[:, None]) @ values))
        return out


class ImageFirstBlock(TwoWayAttentionBlock):
    """SAM's two-way block in H-SAM's order: token to image, among tokens, MLP, image to token.

    Parameters and names are SAM's, so that SAM's decoder weights load.

    Shapes:
        queries and query_pe [B,T,C]; keys and key_pe [B,N,C] -> the same two.
    """

    def forward(
        self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor, guide: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Updated (tokens, image)."""
        attended = self._ask(self.cross_attn_token_to_image, queries + query_pe, keys + key_pe, keys, guide)
        queries = self.norm2(queries + self._drop(attended))
        if self.skip_first_layer_pe:
            queries = self.self_attn(q=queries, k=queries, v=queries)
        else:
            placed = queries + query_pe
            queries = queries + self.self_attn(q=placed, k=placed, v=queries)
        queries = self.norm1(queries)
        queries = self.norm3(queries + self.mlp(queries))
        back = None if guide is None else guide.transpose(1, 2)
        attended = self._ask(self.cross_attn_image_to_token, keys + key_pe, queries + query_pe, queries, back)
        return queries, self.norm4(keys + attended)

    def _ask(self, attention: nn.Module, q: Tensor, k: Tensor, v: Tensor, guide: Tensor | None) -> Tensor:
        out: Tensor = attention(q=q, k=k, v=v) if guide is None else attention(q=q, k=k, v=v, guide=guide)
        return out

    def _drop(self, attended: Tensor) -> Tensor:
        return attended


class GuidedBlock(ImageFirstBlock):
    """The same block for the second decoder: both cross-attentions guided and at full width, dropout after the first.

    Args:
        embedding_dim: C.
        num_heads: of all attentions, divides C.
        mlp_dim: hidden width.
        skip_first_layer_pe: True in the first block, whose self-attention has neither residual nor positions.
        dropout: probability (0..1) on what the tokens read from the image.
    """

    def __init__(
        self, *, embedding_dim: int, num_heads: int, mlp_dim: int, skip_first_layer_pe: bool, dropout: float = 0.2
    ) -> None:
        super().__init__(embedding_dim, num_heads, mlp_dim, skip_first_layer_pe=skip_first_layer_pe)
        self.cross_attn_token_to_image = GuidedAttention(embedding_dim, num_heads)
        self.cross_attn_image_to_token = GuidedAttention(embedding_dim, num_heads)
        self.dropout = nn.Dropout(dropout)

    def _drop(self, attended: Tensor) -> Tensor:
        dropped: Tensor = self.dropout(attended)
        return dropped


class ImageFirstTransformer(TwoWayTransformer):
    """SAM's two-way transformer with blocks in H-SAM's order; same parameters and names.

    Args:
        depth: number of blocks.
        embedding_dim: C.
        num_heads: of all attentions.
        mlp_dim: hidden width of the blocks.
    """

    def __init__(self, *, depth: int, embedding_dim: int, num_heads: int, mlp_dim: int) -> None:
        super().__init__(0, embedding_dim, num_heads, mlp_dim)
        self.depth = depth
        self.layers = nn.ModuleList(
            ImageFirstBlock(embedding_dim, num_heads, mlp_dim, skip_first_layer_pe=i == 0) for i in range(depth)
        )

    def forward(
        self, image_embedding: Tensor, image_pe: Tensor, point_embedding: Tensor, guide: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Let tokens and image ask each other.

        Args:
            image_embedding: [B,C,h,w].
            image_pe: its positions, [B or 1,C,h,w].
            point_embedding: tokens [B,T,C].
            guide: None, or what each token may see, [B,T,hw] in 0..1.

        Returns:
            tokens [B,T,C] and image [B,hw,C].
        """
        keys = image_embedding.flatten(2).transpose(1, 2)
        key_pe = image_pe.flatten(2).transpose(1, 2)
        queries = point_embedding
        for layer in self.layers:
            queries, keys = layer(queries, keys, point_embedding, key_pe, guide)
        attended = self.final_attn_token_to_image(q=queries + point_embedding, k=keys + key_pe, v=keys)
        return self.norm_final_attn(queries + attended), keys


class GuidedTransformer(ImageFirstTransformer):
    """The second decoder's transformer, guided by the first decoder's masks.

    Args:
        depth: number of blocks.
        embedding_dim: C.
        num_heads: of all attentions.
        mlp_dim: hidden width of the blocks.
        dropout: probability (0..1) on what the tokens read from the image.
    """

    def __init__(self, *, depth: int, embedding_dim: int, num_heads: int, mlp_dim: int, dropout: float = 0.2) -> None:
        super().__init__(depth=0, embedding_dim=embedding_dim, num_heads=num_heads, mlp_dim=mlp_dim)
        self.depth = depth
        self.layers = nn.ModuleList(
            GuidedBlock(
                embedding_dim=embedding_dim,
                num_heads=num_heads,
                mlp_dim=mlp_dim,
                skip_first_layer_pe=i == 0,
                dropout=dropout,
            )
            for i in range(depth)
        )
