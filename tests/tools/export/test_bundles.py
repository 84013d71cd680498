"""Which file each stage-2 bundle's network becomes, how equal it is, and that the documents say the same."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from common.errors import CheckpointError, ConfigError
from tests.bundles import tiny
from tools.export.command import export, inference_network
from tools.export.networks import PROMPTED, REFUSALS

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = {"ka2er": "script, any window size", "m4oe": "slices, volumes of any depth",
          "samora": "slices, volumes of any depth", "ic_moe": "trace, inputs 1x1x64x64 only"}  # fmt: skip
FORMATS = ("torchscript", "program", "onnx")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


def written(bundle: str, folder: Path) -> Path:
    path = folder / f"{bundle}.pt"
    return path if path.is_file() else tiny.write(bundle, path)


@pytest.mark.slow
@pytest.mark.parametrize("bundle", SCRIPT)
def test_torchscript(bundle: str, weights: Path, tmp_path: Path) -> None:
    line = export(bundle, out=str(tmp_path / "model.ts"), weights=str(written(bundle, weights)))
    assert SCRIPT[bundle] in line
    network, example = inference_network(bundle, written(bundle, weights))
    scripted, network = torch.jit.load(tmp_path / "model.ts"), network.eval()
    other = torch.rand(2, *example.shape[1:-1], 5) if "any depth" in SCRIPT[bundle] else torch.rand_like(example)
    with torch.no_grad():
        torch.testing.assert_close(scripted(other), network(other), rtol=1e-4, atol=1e-4)


RUNTIME = find_spec("onnxruntime") is not None


@pytest.mark.slow
@pytest.mark.parametrize("format", ["program", "onnx"])
@pytest.mark.parametrize("bundle", SCRIPT)
def test_programs_and_onnx(bundle: str, format: str, weights: Path, tmp_path: Path) -> None:
    if (bundle, format) == ("ka2er", "onnx") and not RUNTIME:
        pytest.skip("volumes need onnxruntime")
    line = export(bundle, out=str(tmp_path / "model"), format=format, weights=str(written(bundle, weights)))
    assert f"{format}, inputs 1x1x64" in line and (tmp_path / "model").stat().st_size > 10_000


@pytest.mark.skipif(RUNTIME, reason="there is an ONNX Runtime")
def test_a_volume_without_onnx_runtime(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pip install onnxruntime"):
        export("ka2er", out=str(tmp_path / "model"), format="onnx", weights=str(written("ka2er", weights)))
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_m4oe_for_another_modality_and_data_set(weights: Path, tmp_path: Path) -> None:
    given = str(written("m4oe", weights))
    line = export("m4oe", out=str(tmp_path / "model.ts"), weights=given, modality=1, head=1)
    assert "modality 'T2 MR' and data set 'phantom_mr' only" in line
    network, volume = inference_network("m4oe", given)
    with torch.no_grad():
        want = network.eval()(volume, torch.tensor([1]), torch.tensor([1]))
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts")(volume), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("format", FORMATS)
def test_a_network_of_prompts_is_refused_with_the_reason(format: str, weights: Path, tmp_path: Path) -> None:
    given = str(written("sam_med3d_moe", weights))
    with pytest.raises(CheckpointError, match="answers prompts"):
        export("sam_med3d_moe", out=str(tmp_path / "model"), format=format, weights=given)
    assert not (tmp_path / "model").exists()


def test_the_refusal_is_true(weights: Path) -> None:
    """Without prompts the network itself gives no answer, and with them its answer follows them."""
    network, image = inference_network("sam_med3d_moe", written("sam_med3d_moe", weights))
    network.eval()
    points = torch.tensor([[[4.0, 4.0, 4.0]], [[28.0, 28.0, 28.0]]])
    with torch.no_grad():
        one, other = (network(image, p[None], torch.ones(1, 1)) for p in points)
        assert not torch.equal(one, other)
        with pytest.raises(Exception):  # noqa: B017
            torch.jit.trace(network, image, check_trace=False)


@pytest.mark.parametrize("bundle", [*SCRIPT, "sam_med3d_moe", "sam_med3d_moe_expert", "m4oe_expert", "samora_expert"])
def test_documents_say_so(bundle: str) -> None:
    text = (ROOT / "bundles" / bundle / "docs" / "README.md").read_text(encoding="utf-8")
    section = " ".join(text.partition("## TorchScript")[2].partition("\n## ")[0].split())
    if bundle in SCRIPT:
        assert "ONNX" in section and "torch.export" in section
    else:
        assert any(reason.partition(";")[0] in section for reason in (PROMPTED, *REFUSALS.values()))
