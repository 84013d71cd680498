"""The export command on a bundle of its own."""

import json

import pytest
import torch

from common.backbones.swin_unetr.network import SwinUNETR
from common.errors import ConfigError
from tools.export.command import export

OPTIONS = {"in_channels": 1, "out_channels": 2, "feature_size": 12, "depths": [1] * 4, "num_heads": [1, 2, 3, 4]}


@pytest.fixture
def bundle(tmp_path):
    root = tmp_path / "a bundle"
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    config = {
        "bundle_root": ".",
        "device": "$__import__('torch').device('cuda')",
        "model_path": "$@bundle_root + '/models/model.pt'",
        "network_def": {"_target_": "common.backbones.swin_unetr.network.SwinUNETR", **OPTIONS},
        "network": "$@network_def.to(@device)",
        "weights": {"_target_": "common.weights.load_weights", "module": "@network", "source": "@model_path"},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 64]},
    }
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    torch.manual_seed(3)
    torch.save(SwinUNETR(**OPTIONS).state_dict(), root / "models" / "model.pt")
    return root


def test_torchscript_of_a_bundle(bundle):
    line = export(str(bundle))
    assert "script, any window size" in line
    network = SwinUNETR(**OPTIONS).eval()
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    image = torch.randn(1, 1, 64, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(bundle / "models" / "model.ts")(image), network(image))


def test_other_file_and_weights(bundle, tmp_path):
    moved = (bundle / "models" / "model.pt").rename(tmp_path / "weights.pt")
    line = export(str(bundle), out=str(tmp_path / "x.ts"), weights=str(moved), method="trace")
    assert "inputs 1x1x32x32x64 only" in line and (tmp_path / "x.ts").is_file()


def test_unknown_format_and_incomplete_configuration(bundle):
    with pytest.raises(ConfigError, match="torchscript"):
        export(str(bundle), format="caffe")
    (bundle / "configs" / "inference.json").write_text(json.dumps({"device": "cpu"}))
    with pytest.raises(ConfigError, match="network"):
        export(str(bundle))
