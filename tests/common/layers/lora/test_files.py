"""Adapters as PEFT's files: PEFT reads ours, we read PEFT's, and nothing half-fitting is accepted."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from common.backbones.sam.network import sam_encoder
from common.errors import CheckpointError, WeightError
from common.integrity import seal
from common.layers.lora.experts import add_experts, expert_names, expert_parameters, set_expert
from common.layers.lora.files import CONFIG, PREFIX, WEIGHTS, load_adapter, save_adapter
from common.layers.lora.qkv import split_qkv

IMAGE = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def fresh():
    return sam_encoder("tiny", image_size=64, seed=0)


def with_experts(target="qv", **options):
    encoder = fresh()
    add_experts(encoder, target=target, **options)
    torch.manual_seed(3)
    for level in expert_names(encoder):
        for parameter in expert_parameters(encoder, level).values():
            nn.init.normal_(parameter, std=0.3)
    return encoder


def state(encoder):
    return {k: v.clone() for k, v in encoder.state_dict().items()}


@pytest.fixture
def folder(tmp_path):
    return save_adapter(with_experts(), "patch", tmp_path / "ädapter dir")


def edit(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    seal(folder / WEIGHTS)


def edit_config(folder, **changes):
    config = json.loads((folder / CONFIG).read_text()) | changes
    (folder / CONFIG).write_text(json.dumps(config))


@pytest.mark.parametrize("options", [{}, {"target": "fused"}, {"rank": 2}, {"alpha": 16}], ids=str)
def test_there_and_back_again_and_through_peft(tmp_path, options):
    encoder = with_experts(**options)
    save_adapter(encoder, "patch", tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [CONFIG, WEIGHTS, f"{WEIGHTS}.sha256"]
    set_expert(encoder, "patch")
    expected = encoder(IMAGE).tokens

    loaded = fresh()
    coverage = load_adapter(loaded, "other name", tmp_path)
    set_expert(loaded, "other name")
    torch.testing.assert_close(loaded(IMAGE).tokens, expected)
    assert coverage.fraction == 1.0
    assert not any(p.requires_grad for p in loaded.parameters())

    theirs = fresh()
    if options.get("target") != "fused":
        split_qkv(theirs)
    wrapped = PeftModel.from_pretrained(theirs, tmp_path)
    torch.testing.assert_close(wrapped(IMAGE).tokens, expected)


def test_an_adapter_that_peft_trained_and_saved_loads(tmp_path):
    theirs = fresh()
    split_qkv(theirs)
    wrapped = get_peft_model(theirs, LoraConfig(r=3, lora_alpha=6, target_modules=["qkv.q", "qkv.v"]))
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3)
    wrapped.save_pretrained(tmp_path)
    ours = fresh()
    load_adapter(ours, "image", tmp_path)
    torch.testing.assert_close(ours(IMAGE).tokens, wrapped(IMAGE).tokens)


def test_an_expert_that_exists_is_filled_and_stays_trainable(folder):
    encoder = with_experts()
    before = state(encoder)
    load_adapter(encoder, "image", folder)
    changed = {k for k, v in encoder.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {k for k in before if ".lora_" in k and ".image." in k}
    assert all(p.requires_grad for p in expert_parameters(encoder, "image").values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(next(iter(t))), "without weights"),
        (lambda t: t.update({PREFIX + "blocks.9.attn.qkv.q.lora_A.weight": torch.zeros(4, 32)}), "the encoder lacks"),
        (lambda t: [t.update({k.removeprefix(PREFIX): t.pop(k)}) for k in list(t)], "prefix"),
        (lambda t: t.update({next(iter(t)): torch.full_like(t[next(iter(t))], float("nan"))}), "not finite"),
        (lambda t: [t.update({k: v[:, :16].clone()}) for k, v in list(t.items()) if "_A" in k], "another width"),
        (lambda t: [t.update({k: v[:2].clone()}) for k, v in list(t.items()) if "_A" in k], "another rank"),
        (lambda t: t.update({k: v[0].clone() for k, v in t.items()}), "another shape"),
    ],
    ids=["unset", "unused", "prefix", "nan", "width", "rank", "shape"],
)
def test_tensors_that_do_not_fit_are_refused_and_nothing_changes(folder, change, message):
    edit(folder, change)
    for encoder in (fresh(), with_experts()):
        before, names = state(encoder), expert_names(encoder)
        with pytest.raises(WeightError, match=message):
            load_adapter(encoder, "image", folder)
        assert expert_names(encoder) == names
        assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "plain LoRA"),
        ({"use_dora": True}, "plain LoRA"),
        ({"use_rslora": True}, "plain LoRA"),
        ({"rank_pattern": {"q": 3}}, "plain LoRA"),
        ({"r": 0}, "plain LoRA"),
        ({"r": 5}, "another rank"),
        ({"r": "many"}, "cannot be read"),
        ({"r": float("inf")}, "cannot be read"),
        ({"r": 4.5}, "cannot be read"),
        ({"r": True}, "cannot be read"),
        ({"lora_alpha": float("inf")}, "cannot be read"),
        ({"lora_alpha": [1]}, "cannot be read"),
        ({"target_modules": ["proj"]}, "other layers"),
        ({"target_modules": ["q", 1]}, "other layers"),
        ({"target_modules": 5}, "other layers"),
        ({"target_modules": ["attn.qkv"]}, "encoder lacks|adapts another part"),
    ],
    ids=str,
)
def test_configurations_that_do_not_fit_are_refused(folder, changes, message):
    edit_config(folder, **changes)
    for encoder in (fresh(), with_experts()):
        with pytest.raises(WeightError, match=message):
            load_adapter(encoder, "image", folder)


def test_a_rank_other_than_the_experts_is_refused(folder):
    with pytest.raises(WeightError, match="another rank"):
        load_adapter(with_experts(rank=2), "image", folder)


def test_half_an_adapter_and_damaged_files_are_refused(folder):
    config, weights = (folder / CONFIG).read_text(), (folder / WEIGHTS).read_bytes()
    (folder / CONFIG).write_text(config[:50])
    with pytest.raises(WeightError, match="cannot be read"):
        load_adapter(fresh(), "image", folder)
    (folder / CONFIG).write_text(config)
    (folder / WEIGHTS).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(WeightError, match="damaged"):
        load_adapter(fresh(), "image", folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(WeightError, match=f"no {WEIGHTS}"):
        load_adapter(fresh(), "image", folder)
    with pytest.raises(WeightError, match=f"no {CONFIG} and no {WEIGHTS}"):
        load_adapter(fresh(), "image", folder / "nowhere")


def test_the_same_expert_gives_the_same_bytes(tmp_path):
    first, second = (save_adapter(with_experts(), "image", tmp_path / name) for name in "ab")
    for name in (CONFIG, WEIGHTS):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_loading_and_saving_again_gives_the_same_bytes(tmp_path, folder):
    encoder = fresh()
    load_adapter(encoder, "other", folder)
    again = save_adapter(encoder, "other", tmp_path / "again")
    for name in (CONFIG, WEIGHTS):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_failed_write_leaves_the_earlier_expert(folder, monkeypatch):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(CheckpointError, match="disk is full"):
        save_adapter(with_experts(), "image", folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
