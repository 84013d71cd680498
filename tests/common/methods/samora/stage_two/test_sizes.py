"""Parameters of SAMora at its paper's sizes."""

import pytest
import torch

from common.methods.samora.stage_two.build import samora_network

CLASSES = 9  # Synapse


def parameters(**options):
    with torch.device("meta"):
        network = samora_network(classes=CLASSES, base_seed=None, **options)
    whole = sum(p.numel() for p in network.parameters())
    return whole, sum(p.numel() for p in network.trainable())


@pytest.mark.parametrize("base", ["sam", "hsam"])
def test_it_adds_9_73_million_to_one_adapter(base):
    """Table 3: SAMora - SAMed and H-SAMora - H-SAM, +9.7 M."""
    fused, _ = parameters(base=base)
    one, _ = parameters(base=base, fuser="single", levels=["image"])
    none, _ = parameters(base=base, fuser="none", levels=[])
    assert one - none == 147_456
    assert fused - one == 9_437_184 + 2 * 147_456 and round((fused - one) / 1e6, 2) == 9.73


def test_it_adds_11_3_million_to_sam2(monkeypatch):
    """Hiera cannot be built without memory; its weights are left as the memory was."""
    pytest.importorskip("sam2")
    for name in ("trunc_normal_", "kaiming_uniform_", "uniform_", "xavier_uniform_"):
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
    network = samora_network(base="sam2", classes=CLASSES, base_seed=None)
    fusers = sum(p.numel() for p in network.fusers.parameters())
    expert = sum(p.numel() for n, p in network.named_parameters() if ".lora_" in n and ".pixel." in n)
    assert (fusers, expert) == (11_010_048, 165_760) and round((fusers + 2 * expert) / 1e6, 1) == 11.3


def test_trained_are_hl_attn_and_the_decoder():
    _, trained = parameters()
    _, decoder = parameters(fuser="none", levels=[])
    assert trained - decoder == 9_437_184
    assert parameters(fuser="mole")[1] - decoder == 12 * (3 * 768 * 3 + 3)
    for fixed in ({"fuser": "lac"}, {"fuser": "lorahub"}, {"fuser": "single", "levels": ["pixel"]}):
        assert parameters(**fixed)[1] == decoder
    samed = parameters(fuser="single", levels=["image"], train_experts=True, train_prompt_encoder=True)
    assert samed[1] - decoder == 147_456 + 6_220


def test_the_whole_of_samed():
    """91.39 M at 224 with nine mask tokens, and the adapter's 0.147 M."""
    whole, _ = parameters(fuser="single", levels=["image"])
    assert round((whole - 147_456) / 1e6, 2) == 91.39
