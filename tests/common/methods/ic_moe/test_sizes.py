"""Parameters and multiply-adds of Table 6, counted as the paper counts them."""

import math
from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from common.backbones.sam.network import sam_decoder
from common.labels import LabelSpace
from common.layers.sam_adapters import BlockAdapter
from common.methods.ic_moe.build import ic_moe_network

LESION = LabelSpace(("lesion",))
PADDED = 28 * 28  # tokens of 16 x 16 in windows of 14


def network(**options):
    with torch.device("meta"):
        return ic_moe_network(labels=LESION, base_seed=None, **options)


def millions(count):
    return round(count / 1e6, 3)


def test_parameters_are_table_6_s():
    found = network().sizes()
    assert (millions(found.published), millions(found.trained)) == (279.060, 33.226)
    assert millions(found.stored) == 119.898  # what is equal in three networks is there once


def test_the_parts_are_table_6_s():
    own = network()
    parts = {
        "semantic": own.encoders.semantic, "adapters": own.encoders.adapters, "maps": own.contrast,
        "prompts": nn.ModuleList([h.prompt_encoder for h in own.heads.values()]),
        "decoders": nn.ModuleList([h.mask_decoder for h in own.heads.values()]),
    }  # fmt: skip
    counts = {name: millions(sum(p.numel() for p in part.parameters())) for name, part in parts.items()}
    assert counts == {"semantic": 14.183, "adapters": 7.101, "maps": 0.590, "prompts": 0.019, "decoders": 11.333}
    assert sum(p.numel() for p in own.contrast.parameters()) == 589_824


def test_rows_of_one_expert():
    """MedSAM 90.46 / 3.78 M, Medical SAM Adapter 97.56 / 10.88 M."""
    for answer, whole, trained in (("basic", 90.46, 3.78), ("adaptive", 97.56, 10.88)):
        found = network(answer=answer, sgcl=0.0).sizes()
        assert (round(found.published / 1e6, 2), math.floor(found.trained / 1e4) / 100) == (whole, trained)
        assert found.stored == found.published


def test_the_baselines_lora_has_147456_parameters():
    """SAMed on ViT-B: 12 blocks, q and v, (768 + 768) x 4 each."""
    found, basic = network(answer="samed", sgcl=0.0).sizes(), network(answer="basic", sgcl=0.0).sizes()
    assert found.trained - basic.trained == found.stored - basic.stored == 12 * 2 * 1536 * 4 == 147_456


def test_the_other_reading_of_the_maps_has_as_many_parameters():
    assert network(contrast_features="tokens").sizes() == network().sizes()


def counted(module, run):
    """Multiply-adds as THOP counts them: a transposed convolution by its output, four per normed value."""
    total = []

    def hear(layer, inputs, output):
        if isinstance(layer, nn.Linear):
            total.append(layer.in_features * output.numel())
        elif isinstance(layer, nn.LayerNorm):
            total.append(4 * output.numel())
        else:
            total.append(output.numel() * layer.in_channels // layer.groups * math.prod(layer.kernel_size))

    kinds = (nn.Linear, nn.LayerNorm, nn.Conv2d, nn.ConvTranspose2d)
    hooks = [m.register_forward_hook(hear) for m in module.modules() if isinstance(m, kinds)]
    run()
    for hook in hooks:
        hook.remove()
    return sum(total)


def test_multiply_adds_are_table_6_s():
    """MedSAM 32.27, Medical SAM Adapter 35.33, IC-MoE 99.88: padded windows count, attention products do not."""
    with torch.device("meta"):
        encoder = ImageEncoderViT(
            img_size=256, embed_dim=768, depth=12, num_heads=12, norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True, window_size=14, global_attn_indexes=(2, 5, 8, 11),
        )  # fmt: skip
        _prompts, decoder = sam_decoder("vit_b", image_size=256, classes=2)
        whole = nn.ModuleList([encoder, decoder])
        dense = torch.empty(1, 256, 16, 16)

        def segment():
            decoder.predict_masks(encoder(torch.empty(1, 3, 256, 256)), dense, torch.empty(1, 0, 256), dense)

        one = counted(whole, segment)
        adapter, added = BlockAdapter(channels=768), 0
        for block in encoder.blocks:
            tokens = PADDED if block.window_size else 256
            added += counted(adapter.space, lambda n=tokens: adapter.space(torch.empty(n, 768)))
            added += counted(adapter.mlp, lambda: adapter.mlp(torch.empty(256, 768)))
    assert (round(one / 1e9, 2), round(added / 1e9, 2)) == (32.27, 3.06)
    assert round((one + added) / 1e9, 2) == 35.33
    assert round((3 * one + added) / 1e9, 2) == 99.88
    assert round(3 * 32.27 + 3.06, 2) == 99.87  # the sum of the rounded rows
