"""A training step of every bundle in bf16, as a GPU takes it: the same weights give the loss of 32 bits, nearly."""

import pytest
import torch
from monai.utils import set_determinism

from common.engine.training import precision
from common.errors import ConfigError
from tests.bundles.commands import ROOT, parsed
from tests.bundles.test_samora import write_experts

STEPS = {
    "ka2er": (("train", "smoke", "alone"), "phantom"),
    "ka2er_expert": (("train", "smoke"), "phantom_ct"),
    "m4oe": (("train", "smoke"), "phantom"),
    "m4oe_expert": (("train", "smoke"), "phantom"),
    "samora": (("train", "smoke"), "phantom"),
    "samora_expert": (("train", "pixel", "smoke"), "phantom"),
    "sam_med3d_moe_expert": (("train", "general", "smoke", "tiny_general", "boxes"), "phantom"),
    "sam_med3d_moe": (("train", "smoke", "boxes"), "phantom"),
    "ic_moe": (("train", "smoke"), "phantom_2d"),
}


@pytest.fixture
def given(phantom_dir, phantom_2d_dir, sam3d_files, tmp_path, monkeypatch):
    """Data, folders and what a second stage takes of the first."""
    monkeypatch.chdir(ROOT)
    data = {"phantom": phantom_dir, "phantom_2d": phantom_2d_dir, "phantom_ct": phantom_dir / "phantom_ct"}

    def of(bundle):
        known = {"dataset_dir": data[STEPS[bundle][1]], "output_dir": tmp_path, "ckpt_dir": tmp_path}
        if bundle == "samora":
            known |= write_experts(tmp_path)
        if bundle == "sam_med3d_moe":
            general = sam3d_files.general()
            runs = [("tumour", "liver tumour"), ("gall", "gallbladder")]
            experts = [str(sam3d_files.expert(n, s, of=general, seed=i).parent) for i, (n, s) in enumerate(runs)]
            known |= {"general": str(general), "experts": experts}
        return {**known, "device": torch.device("cpu")}

    return of


def one_step(trainer, step, batch, dtype):
    """The loss and all gradients."""
    step.dtype = dtype
    set_determinism(3)
    found = step(trainer, batch)
    gradients = [p.grad.flatten().clone() for p in trainer.network.parameters() if p.grad is not None]
    return float((found[0] if isinstance(found, list) else found)["loss"]), torch.cat(gradients)


def loss_alone(trainer, step, batch, dtype):
    step.dtype = dtype
    set_determinism(3)
    image, target, args, named = trainer.prepare_batch(batch, torch.device("cpu"), False)
    return float(step._forward(trainer, (image, target, args, named))[1]["loss"])


@pytest.mark.parametrize("bundle", STEPS)
def test_a_step_in_16_bits_is_nearly_one_in_32(bundle, given):
    set_determinism(0)
    parser = parsed(bundle, STEPS[bundle][0], **given(bundle))
    trainer, step = (parser.get_parsed_content(f"train::trainer{k}") for k in ("", "::iteration_update"))
    assert step.dtype is None and not trainer.amp, "a CPU's own default is 32 bits"
    batch = next(iter(trainer.data_loader))
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    if parser["numerics"].get("convolutions") == 3:  # a CPU's gradients of these are not to be relied on
        wide, narrow = (loss_alone(trainer, step, batch, d) for d in (None, torch.bfloat16))
    else:
        (wide, gradients), (narrow, rounded) = (one_step(trainer, step, batch, d) for d in (None, torch.bfloat16))
        assert torch.nn.functional.cosine_similarity(gradients, rounded, dim=0) > 0.97
    assert narrow != wide and narrow == pytest.approx(wide, rel=0.03)


@pytest.mark.parametrize(
    ("configs", "first"), [(("train",), ()), (("train", "multi_gpu_train"), ("$@distributed",))], ids=["one", "several"]
)
@pytest.mark.parametrize("bundle", STEPS)
def test_the_arithmetic_is_looked_at_before_the_data(bundle, configs, first):
    steps = [*first, "$@start", "$@numerics"]
    assert parsed(bundle, configs).get()["run"][: len(steps)] == steps


def test_bf16_on_a_cpu_is_open_to_presets_that_gain_by_it_alone(monkeypatch):
    monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    monkeypatch.setattr(precision, "_gradient_holds", lambda _: False)
    taken = set()
    for path in sorted(ROOT.glob("bundles/*/configs/*.json")):
        if "cpu_gain" not in path.read_text() or path.stem == "train":
            continue
        bundle = path.parents[1].name
        given = parsed(bundle, ("train", path.stem), precision="bf16", device="cpu")
        try:
            taken.add((bundle, path.stem, given.get_parsed_content("numerics").dtype))
        except RuntimeError as error:
            assert isinstance(error.__cause__, ConfigError)
            assert any(words in str(error.__cause__) for words in ("times as fast", "wrong gradients"))
    assert taken == {("samora", "laptop", torch.bfloat16)}
