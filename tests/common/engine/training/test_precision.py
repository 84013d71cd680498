"""Which arithmetic a training gets on which machine, and why another is refused."""

import pytest
import torch

import common.engine.training.precision as module
from common.engine.training.precision import Numerics, cpu_flags, numerics
from common.errors import ConfigError

HAS = frozenset({"avx512_bf16"})


def gpu(monkeypatch, *, bf16):
    monkeypatch.setattr(module, "_gpu_has_bf16", lambda: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Old GPU")


def test_auto_is_what_the_machine_has(monkeypatch):
    gpu(monkeypatch, bf16=True)
    assert numerics("auto", "cuda") == Numerics(torch.bfloat16, on_gpu=True)
    gpu(monkeypatch, bf16=False)
    assert numerics("auto", "cuda:1") == Numerics(torch.float16, scaled=True, on_gpu=True)
    assert numerics("auto", "cpu", cpu_gain=2.0, flags=HAS) == Numerics(), "bf16 on a CPU is asked for by name"


def test_what_is_asked_for_is_what_is_given(monkeypatch):
    gpu(monkeypatch, bf16=True)
    for device in ("cuda", "cpu"):
        assert numerics("fp32", device) == Numerics() and Numerics().kwargs == {}
    assert numerics("fp16", "cuda").kwargs == {"dtype": torch.float16}
    on_cpu = numerics("bf16", torch.device("cpu"), cpu_gain=1.3, flags=HAS)
    assert on_cpu.kwargs == {"dtype": torch.bfloat16} and not on_cpu.on_gpu and not on_cpu.scaled


@pytest.mark.parametrize(
    ("precision", "device", "given", "words"),
    [
        ("half", "cpu", {}, r"unknown precision[\s\S]*half[\s\S]*auto, fp32, bf16, fp16"),
        ("fp16", "cpu", {}, r"need a GPU[\s\S]*--precision fp32"),
        ("bf16", "cuda", {}, r"no bf16[\s\S]*Old GPU[\s\S]*--precision fp16"),
        ("bf16", "cpu", {"cpu_gain": 2.0, "flags": frozenset()}, r"no instructions[\s\S]*none of avx512_bf16"),
        ("bf16", "cpu", {"cpu_gain": None, "flags": HAS}, r"not worth it[\s\S]*not measured"),
        ("bf16", "cpu", {"cpu_gain": 0.83, "flags": HAS}, r"not worth it[\s\S]*0\.83 times[\s\S]*at least 1\.3"),
        ("bf16", "cpu", {"cpu_gain": 1.29, "flags": HAS}, r"not worth it[\s\S]*1\.29 times"),
    ],
)
def test_what_the_machine_lacks_or_does_not_gain_by_is_refused(monkeypatch, precision, device, given, words):
    gpu(monkeypatch, bf16=False)
    with pytest.raises(ConfigError, match=words):
        numerics(precision, device, **given)


def test_3d_convolutions_are_tried_and_refused_where_the_library_computes_nonsense(monkeypatch):
    given = {"cpu_gain": 2.0, "flags": HAS, "convolutions": 3}
    monkeypatch.setattr(module, "_gradient_holds", lambda shape: shape[0] != 2)
    with pytest.raises(ConfigError, match=r"wrong gradients[\s\S]*\(2, 1, 1\)[\s\S]*--precision fp32"):
        numerics("bf16", "cpu", **given)
    assert numerics("bf16", "cpu", **{**given, "convolutions": 2}).dtype == torch.bfloat16
    monkeypatch.setattr(module, "_gradient_holds", lambda _: True)
    assert numerics("bf16", "cpu", **given).dtype == torch.bfloat16


def test_the_trial_sees_a_wrong_gradient_and_not_mere_rounding(monkeypatch):
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    real = torch.nn.functional.conv3d

    def rounded(image, weight, padding):
        return real(image.float(), weight.float(), padding=padding).to(image.dtype)

    monkeypatch.setattr(torch.nn.functional, "conv3d", rounded)
    assert all(module._gradient_holds(shape) for shape in module.MAPS)
    for wrong in (1e30, float("nan"), float("inf"), 2.0):

        def broken(image, weight, padding, wrong=wrong):
            return rounded(image, weight if weight.dtype == torch.float32 else weight * wrong, padding)

        monkeypatch.setattr(torch.nn.functional, "conv3d", broken)
        assert not module._gradient_holds((2, 2, 2))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_tile amx_bf16\n", {"avx512_bf16", "amx_bf16"}),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16x\n", set()),
        ("Features\t: fp asimd bf16 sve\n", {"bf16"}),
        ("model name\t: bf16\n", set()),
        ("", set()),
    ],
)
def test_the_processor_is_asked(tmp_path, text, flags):
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_flags(tmp_path / "cpuinfo") == flags
    assert cpu_flags(tmp_path / "none") == frozenset()


def test_what_is_gained_has_to_be_a_third():
    flags = frozenset(module.FLAGS[:1])
    assert numerics("bf16", "cpu", cpu_gain=1.3, convolutions=2, flags=flags).dtype == torch.bfloat16
    for gain in (1.29, None):
        with pytest.raises(ConfigError, match="not worth it"):
            numerics("bf16", "cpu", cpu_gain=gain, convolutions=2, flags=flags)
    with pytest.raises(ConfigError, match="no instructions"):
        numerics("bf16", "cpu", cpu_gain=9.0, convolutions=2, flags=frozenset())
