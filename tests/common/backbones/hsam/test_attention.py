"""H-SAM's transformers against segment-anything's modules and against loops."""

import math

import pytest
import torch
from segment_anything.modeling.transformer import Attention, TwoWayTransformer

from common.backbones.hsam.attention import GuidedAttention, GuidedTransformer, ImageFirstTransformer

B, T, H, W, C, HEADS = 2, 3, 4, 5, 16, 4


def looped(attention, q, k, v, guide):
    """One query, one head, one image at a time."""
    q, k, v = attention.q_proj(q), attention.k_proj(k), attention.v_proj(v)
    d = q.shape[2] // attention.num_heads
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for head in range(attention.num_heads):
            part = slice(head * d, head * d + d)
            for i in range(q.shape[1]):
                logits = torch.stack([q[b, i, part] @ k[b, j, part] / math.sqrt(d) for j in range(k.shape[1])])
                weights = torch.exp(logits - logits.max())
                weights = weights / weights.sum() * guide[b, i]
                out[b, i, part] = sum(weights[j] * v[b, j, part] for j in range(k.shape[1]))
    return attention.out_proj(out)


@pytest.fixture
def tokens():
    torch.manual_seed(0)
    return torch.randn(B, C, H, W), torch.randn(1, C, H, W), torch.randn(B, T, C), torch.rand(B, T, H * W)


def test_guided_attention_is_the_loop(tokens):
    image, _, queries, guide = tokens
    keys = image.flatten(2).transpose(1, 2)
    attention = GuidedAttention(C, HEADS)
    with torch.no_grad():
        found = attention(q=queries, k=keys, v=keys, guide=guide)
        torch.testing.assert_close(found, looped(attention, queries, keys, keys, guide))


def test_without_a_guide_it_is_sams_attention(tokens):
    image, _, queries, _ = tokens
    keys = image.flatten(2).transpose(1, 2)
    attention, plain = GuidedAttention(C, HEADS), Attention(C, HEADS)
    plain.load_state_dict(attention.state_dict())
    assert torch.equal(attention(queries, keys, keys), plain(queries, keys, keys))
    ones = torch.ones(B, T, H * W)
    torch.testing.assert_close(attention(queries, keys, keys, guide=ones), plain(queries, keys, keys))


def test_names_and_shapes_are_sams():
    ours = ImageFirstTransformer(depth=2, embedding_dim=C, num_heads=HEADS, mlp_dim=8)
    sams = TwoWayTransformer(2, C, HEADS, 8)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in sams.state_dict().items()}


def ordered(layer, queries, keys, query_pe, key_pe, first):
    """H-SAM's order from segment-anything's parts."""
    queries = layer.norm2(queries + layer.cross_attn_token_to_image(queries + query_pe, keys + key_pe, keys))
    if first:
        queries = layer.norm1(layer.self_attn(queries, queries, queries))
    else:
        placed = queries + query_pe
        queries = layer.norm1(queries + layer.self_attn(placed, placed, queries))
    queries = layer.norm3(queries + layer.mlp(queries))
    back = layer.cross_attn_image_to_token(keys + key_pe, queries + query_pe, queries)
    return queries, layer.norm4(keys + back)


def test_the_first_transformer_asks_the_image_first(tokens):
    image, positions, queries, _ = tokens
    sams = TwoWayTransformer(2, C, HEADS, 8)
    ours = ImageFirstTransformer(depth=2, embedding_dim=C, num_heads=HEADS, mlp_dim=8)
    ours.load_state_dict(sams.state_dict())
    keys, key_pe = image.flatten(2).transpose(1, 2), positions.flatten(2).transpose(1, 2)
    point = queries
    for i, layer in enumerate(sams.layers):
        point, keys = ordered(layer, point, keys, queries, key_pe, i == 0)
    point = sams.norm_final_attn(point + sams.final_attn_token_to_image(point + queries, keys + key_pe, keys))
    found = ours(image, positions, queries)
    torch.testing.assert_close(found[0], point)
    torch.testing.assert_close(found[1], keys)
    assert not torch.allclose(found[0], sams(image, positions, queries)[0])


def test_the_second_is_guided_in_both_directions(tokens):
    image, positions, queries, guide = tokens
    network = GuidedTransformer(depth=2, embedding_dim=C, num_heads=HEADS, mlp_dim=8, dropout=0.9).eval()
    keys, key_pe = image.flatten(2).transpose(1, 2), positions.flatten(2).transpose(1, 2)
    point = queries
    with torch.no_grad():
        for i, layer in enumerate(network.layers):
            heard = looped(layer.cross_attn_token_to_image, point + queries, keys + key_pe, keys, guide)
            point = layer.norm2(point + heard)
            placed = point if i == 0 else point + queries
            mixed = layer.self_attn(placed, placed, point)
            point = layer.norm1(mixed if i == 0 else point + mixed)
            point = layer.norm3(point + layer.mlp(point))
            told = looped(layer.cross_attn_image_to_token, keys + key_pe, point + queries, point, guide.transpose(1, 2))
            keys = layer.norm4(keys + told)
        last = network.final_attn_token_to_image(point + queries, keys + key_pe, keys)
        found = network(image, positions, queries, guide)
    torch.testing.assert_close(found[0], network.norm_final_attn(point + last))
    torch.testing.assert_close(found[1], keys)


def test_dropout_acts_in_training_only(tokens):
    image, positions, queries, guide = tokens
    network = GuidedTransformer(depth=1, embedding_dim=C, num_heads=HEADS, mlp_dim=8, dropout=0.5)
    assert not torch.equal(*(network.train()(image, positions, queries, guide)[0] for _ in range(2)))
    assert torch.equal(*(network.eval()(image, positions, queries, guide)[0] for _ in range(2)))


def test_full_width_in_the_second_decoder():
    network = GuidedTransformer(depth=2, embedding_dim=C, num_heads=HEADS, mlp_dim=8)
    assert network.layers[0].cross_attn_token_to_image.internal_dim == C
    assert network.final_attn_token_to_image.internal_dim == C // 2
