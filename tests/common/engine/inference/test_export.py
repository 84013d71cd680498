"""Exported files give what the network gives, and are complete or absent."""

import pytest
import torch
from torch import nn

from common.backbones.swin_unetr.network import SwinUNETR
from common.engine.inference.export import export_program, export_torchscript
from common.errors import CheckpointError, ConfigError


class Branchy(nn.Module):
    """Takes another way for other values, which a trace cannot follow and a script can."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.abs().max() > 6):
            return -x
        return x


class Unscriptable(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 1)

    def forward(self, x):
        return self.conv(**{"input": x})


def network():
    torch.manual_seed(0)
    return SwinUNETR(in_channels=1, out_channels=2, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4))


def test_swin_unetr_as_torchscript_runs_on_any_size(tmp_path):
    net = network().train()
    written = export_torchscript(net, torch.randn(1, 1, 32, 32, 64), tmp_path / "model.ts")
    assert written.method == "script" and written.difference < 1e-5 and net.training
    loaded = torch.jit.load(written.path)
    image = torch.randn(1, 1, 64, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(image), net.eval()(image))


def test_swin_unetr_as_program(tmp_path):
    net, image = network().eval(), torch.randn(1, 1, 32, 32, 64)
    written = export_program(net, image, tmp_path / "model.pt2")
    assert written.method == "program" and written.difference < 1e-5
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(written.path).module()(image), net(image), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_scripted_is_traced_and_says_why(tmp_path):
    net, image = Unscriptable(), torch.randn(1, 1, 2, 2, 2)
    written = export_torchscript(net, image, tmp_path / "model.ts")
    assert written.method == "trace" and written.reason
    with pytest.raises(CheckpointError, match="scripted"):
        export_torchscript(net, image, tmp_path / "model.ts", method="script")


def test_a_file_that_gives_something_else_is_not_written(tmp_path):
    path = tmp_path / "model.ts"
    path.write_bytes(b"before")
    with pytest.raises(CheckpointError, match="something else"):
        export_torchscript(Branchy(), torch.full((1, 1, 4, 4, 4), 0.5), path, method="trace")
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
    assert export_torchscript(Branchy(), torch.full((1, 1, 4, 4, 4), 0.5), path, method="script").difference == 0


def test_unknown_method(tmp_path):
    with pytest.raises(ConfigError, match="script"):
        export_torchscript(Branchy(), torch.zeros(1), tmp_path / "model.ts", method="onnx")
