"""The masked autoencoder: what is hidden, what is learned, and by whom."""

from functools import partial

import pytest
import torch

from common.backbones.swin_unet.network import MirroredDecoder, SwinUnet
from common.data.slices.views import SliceViews
from common.errors import ConfigError
from common.layers.gating.mlp_mixture import MLP, MLPMixture
from common.layers.window_mask import window_mask
from common.methods.m4oe.phase_one import (
    M4oEExpertLoss,
    MaskedAutoencoder,
    MaskedVolume,
    m4oe_autoencoder,
    started_grey,
)

SIZES = {"embed": 12, "num_heads": (1, 2, 3, 6), "window": 2, "drop_path": 0.0}


def build(**options):
    torch.manual_seed(0)
    hard = partial(_mixture, experts=2, gate="none")
    return MaskedAutoencoder(
        backbone=SwinUnet(feed_forward=hard, decoder_feed_forward=MLP, **SIZES),
        decoder=MirroredDecoder(feed_forward=MLP, **SIZES),
        modalities=2,
        embed=12,
        **{"mask_side": 4, **options},
    )


def _mixture(channels, **options):
    return MLPMixture(channels=channels, **options)


def test_hidden_pixels_do_not_reach_the_prediction():
    network, modality = build().eval(), torch.tensor([0, 1])
    image = torch.randn(2, 1, 64, 64)
    hidden = window_mask(2, 16, 16, ratio=0.5, side=4)
    other = torch.where(
        hidden.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None], torch.randn(2, 1, 64, 64), image
    )
    assert not torch.equal(image, other)
    assert torch.equal(network(image, modality, hidden).prediction, network(other, modality, hidden).prediction)
    seen = torch.where(
        hidden.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None], image, torch.randn(2, 1, 64, 64)
    )
    assert not torch.equal(network(image, modality, hidden).prediction, network(seen, modality, hidden).prediction)


def test_a_modality_trains_its_own_experts_and_the_shared_rest():
    network = build()
    image = torch.randn(2, 1, 64, 64)
    M4oEExpertLoss()(network(image, torch.tensor([1, 1])), image)["loss"].backward()
    for block in network.backbone.feed_forwards()[:8]:
        assert all(not p.grad[0].any() and p.grad[1].any() for p in block.experts.parameters())
    assert network.mask_token.grad.any() and network.backbone.patch_embed.proj.weight.grad.any()
    assert all(p.grad is None for p in network.backbone.layers_up.parameters())


def test_learns_to_rebuild():
    network, loss = build(), M4oEExpertLoss()
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    image = torch.stack([x + y, x * y])[:, None]
    hidden = window_mask(2, 16, 16, ratio=0.5, side=4, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    values = []
    for _ in range(25):
        optimizer.zero_grad()
        terms = loss(network(image, torch.tensor([0, 1]), hidden), image)
        terms["loss"].backward()
        optimizer.step()
        values.append(float(terms["mse"]))
    assert values[-1] < 0.3 * values[0]


@torch.inference_mode()
def test_a_grey_volume_seen_in_three_channels_keeps_every_bit():
    torch.manual_seed(0)
    sizes = {"embed": 12, "num_heads": (1, 2, 3, 6), "window": 2}
    network = m4oe_autoencoder(modalities=("CT",), in_channels=3, mask_side=2, **sizes).eval()
    volume = torch.randn(1, 1, 64, 64, 3)
    assert (MaskedVolume(network=network)(volume) == volume).float().mean() == pytest.approx(0.25)


@torch.inference_mode()
def test_a_volume_is_rebuilt_where_it_was_hidden_and_kept_where_it_was_seen():
    torch.manual_seed(0)
    sizes = {"embed": 12, "num_heads": (1, 2, 3, 6), "window": 2}
    network = m4oe_autoencoder(modalities=("CT", "MR"), in_channels=1, mask_side=2, **sizes).eval()
    module = MaskedVolume(network=network, slices=2, seed=3)
    assert module.state_dict().keys() == network.state_dict().keys()
    volume = torch.randn(1, 1, 64, 32, 3)
    rebuilt = module(volume, torch.tensor([1]))
    assert rebuilt.shape == volume.shape and torch.equal(rebuilt, module(volume, torch.tensor([1])))
    hidden = window_mask(1, 16, 8, ratio=0.75, side=2, generator=torch.Generator().manual_seed(3))[0]
    where = hidden.repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert torch.equal(rebuilt[0, 0, ~where], volume[0, 0, ~where])
    for z in range(3):
        prediction = network(volume[..., z], torch.tensor([1]), hidden[None]).prediction[0]
        for i, j in hidden.nonzero().tolist():  # patch by patch, pixels in rows
            patch = rebuilt[0, 0, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4, z]
            torch.testing.assert_close(patch, prediction[i, j].view(4, 4), rtol=0, atol=1e-5)
    with pytest.raises(ConfigError):
        module(volume[0])
    with pytest.raises(ConfigError):
        MaskedVolume(network=network, slices=0)


def test_predictions_start_at_the_mean_grey_of_their_modality():
    torch.manual_seed(0)
    sizes = {"embed": 12, "num_heads": (1, 2, 3, 6), "window": 2}
    network = m4oe_autoencoder(modalities=("CT", "MR"), in_channels=1, mask_side=2, **sizes)
    volumes = [{"image": torch.randn(1, 64, 64, 2) + m, "modality_id": i} for i, m in ((0, -3.0), (0, -2.0), (1, 4.0))]
    started_grey(network, SliceViews(volumes, keys=("image",)))
    means = [float(v["image"].mean()) for v in volumes]
    assert network.grey.tolist() == pytest.approx([(means[0] + means[1]) / 2, means[2]], rel=1e-5)
    image, hidden = torch.randn(2, 1, 64, 64), window_mask(2, 16, 16, ratio=0.75, side=2)
    with torch.no_grad():
        both = network.eval()(image, torch.tensor([0, 1]), hidden).prediction
        network.grey.zero_()
        bare = network(image, torch.tensor([0, 1]), hidden).prediction
    for sample, mean in enumerate(((means[0] + means[1]) / 2, means[2])):
        torch.testing.assert_close(both[sample], bare[sample] + mean, rtol=0, atol=1e-5)
