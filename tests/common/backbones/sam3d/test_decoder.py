"""SAM-Med3D's decoder against its own modules run as they are, and what a batch of prompts shares."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from common.backbones.sam3d.decoder import mask_decoder_3d
from common.errors import ConfigError, PromptError


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    return mask_decoder_3d(48, hidden=32, iou_hidden=16).eval()


def inputs(batch=2, grid=2, tokens=3, seed=1):
    torch.manual_seed(seed)
    cube = (grid, grid, grid)
    return {
        "embedding": torch.randn(batch, 48, *cube), "positions": torch.randn(1, 48, *cube),
        "sparse": torch.randn(batch, tokens, 48), "dense": torch.randn(batch, 48, *cube),
    }  # fmt: skip


def plain(decoder, embedding, positions, sparse, dense, multimask):
    """Every copy made, every mask computed, transposed convolutions as modules; then what was asked for."""
    batch = max(embedding.shape[0], sparse.shape[0], dense.shape[0])
    source = embedding.expand(batch, *embedding.shape[1:]) + dense
    place = positions.repeat(batch, 1, 1, 1, 1)
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.stack([torch.cat([own, rows]) for rows in sparse.expand(batch, -1, -1)])
    answers, voxels = decoder.transformer(source.flatten(2).unsqueeze(3), place.flatten(2).unsqueeze(3), tokens)
    fine = decoder.output_upscaling(voxels.transpose(1, 2).reshape(source.shape))
    weights = torch.stack([decoder.output_hypernetworks_mlps[i](answers[:, 1 + i]) for i in range(4)], 1)
    masks = torch.einsum("btc,bcxyz->btxyz", weights, fine)
    asked = slice(1, 4) if multimask else slice(0, 1)
    return masks[:, asked], decoder.iou_prediction_head(answers[:, 0])[:, asked]


@pytest.mark.parametrize("tokens", [0, 3])
@pytest.mark.parametrize("grid", [2, 3])
@pytest.mark.parametrize("multimask", [True, False])
def test_equals_the_plain_computation_with_gradients(decoder, multimask, grid, tokens):
    decoder, given = decoder.double(), {k: v.double() for k, v in inputs(grid=grid, tokens=tokens).items()}
    given["embedding"].requires_grad_()
    got, expected = decoder(**given, multimask=multimask), plain(decoder, **given, multimask=multimask)
    assert got.masks.shape == (2, 3 if multimask else 1, *(4 * grid,) * 3)
    wanted = [given["embedding"], *decoder.parameters()]
    for mine, reference in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-12)
    sums = [sum(part.square().sum() for part in parts) for parts in (got, expected)]
    gradients = [torch.autograd.grad(total, wanted, allow_unused=True) for total in sums]
    for parameter, mine, reference in zip(wanted, *gradients, strict=True):
        zero = torch.zeros_like(parameter)  # the maps of masks that were not asked for get no gradient at all
        mine, reference = (zero if found is None else found for found in (mine, reference))
        torch.testing.assert_close(mine, reference, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("shared", [("embedding",), ("embedding", "dense"), ("sparse",), ("sparse", "dense")])
def test_what_a_batch_shares_is_not_copied_and_changes_nothing(decoder, shared):
    given = inputs(batch=3)
    for name in shared:
        given[name] = given[name][:1]
    if "dense" in shared:  # "no mask" comes as a view of one row
        given["dense"] = given["dense"][:, :, :1, :1, :1].expand(3, -1, 2, 2, 2)
    got, expected = decoder(**given), plain(decoder, **given, multimask=False)
    for mine, reference in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


def test_samples_do_not_depend_on_each_other(decoder):
    given = inputs(batch=3)
    whole = decoder(**given)
    one = decoder(**{k: v[1:2] if v.shape[0] == 3 else v for k, v in given.items()})
    torch.testing.assert_close(one.masks[0], whole.masks[1], rtol=1e-4, atol=1e-5)


def test_work_is_spared_where_nothing_was_asked(decoder):
    def cost(given, **options):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            decoder(**given, **options)
        return counter.get_total_flops()

    given = inputs()
    assert cost(given) < cost(given, multimask=True)
    alike = {**given, "dense": given["dense"][:, :, :1, :1, :1][:1].expand(2, -1, 2, 2, 2)}
    assert cost({**alike, "embedding": given["embedding"][:1]}) < cost(given)


def test_batches_that_do_not_fit_are_refused(decoder):
    given = inputs(batch=3)
    with pytest.raises(PromptError, match="different batches"):
        decoder(**{**given, "sparse": given["sparse"][:2]})


@pytest.mark.parametrize("channels", [0, 40, 384 + 16])
def test_ill_arguments(channels):
    with pytest.raises(ConfigError):
        mask_decoder_3d(channels)
