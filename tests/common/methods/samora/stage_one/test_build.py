"""Every network of the first stage, from settings; what is trained, what is saved, what is refused.

Also the test of ``common.methods.samora.stage_one.teachers``.
"""

import pytest
import torch

from common.errors import ConfigError, WeightError
from common.layers.lora.experts import expert_parameters
from common.layers.lora.files import base_hash, load_adapter, save_adapter
from common.methods.samora.base import frozen_encoder, hash_of
from common.methods.samora.stage_one.build import StageOne, _told, stage_one_network
from common.methods.samora.stage_one.expert import trained_parameters
from common.methods.samora.stage_one.objectives import Compared, Contrasted, Denoised, Patches, StageOneLoss
from common.methods.samora.stage_one.students import Masking, PatchDistillation, Views, regrid, tokens_of
from common.weights import load_weights

TINY = {"variant": "tiny", "image_size": 64, "projector": 16, "mask_decoder": (16, 1, 2)}
RESNET = {"sizes": {"width": 0.125, "depths": (1, 1, 1, 1), "classes": 2, "head": {"outputs": 8}}, "size": 64}
MAE = {"sizes": {"patch": 16, "width": 16, "depth": 1, "heads": 2, "decoder_width": 8, "decoder_depth": 1,
                 "decoder_heads": 2}, "size": 48}  # fmt: skip


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teachers")
    for level, sizes in (("teacher_image", RESNET), ("teacher_patch", MAE)):
        network = stage_one_network({**TINY, "level": level, "teacher": sizes})
        torch.save(dict(network.saved.state_dict()), folder / f"{level}.pt")
    return {"image": folder / "teacher_image.pt", "patch": folder / "teacher_patch.pt"}


def build(teachers, level, ssl="scratch", **settings):
    teacher = {"image": RESNET, "patch": MAE}.get(level, {}) if ssl != "scratch" else {}
    given = {**TINY, "level": level, "ssl": ssl, "teacher": teacher, **settings}
    return stage_one_network(given, teacher_weights=teachers[level] if ssl != "scratch" else None)


LEVELS = [
    ("pixel", "scratch", {}, Denoised),
    ("pixel", "scratch", {"noise_blur": 0.5, "noise_sigma": (0.08, 0.08), "pixel_loss": "dice_mse"}, Denoised),
    ("pixel", "scratch", {"base": "sam2"}, Denoised),
    ("pixel", "scratch", {"image_channels": 3}, Denoised),
    ("image", "scratch", {}, Contrasted),
    ("image", "scratch", {"image_features": "neck", "base": "sam2"}, Contrasted),
    ("image", "ts", {}, Compared),
    ("image", "ts", {"image_target": "dense"}, Compared),
    ("image", "ts", {"image_features": "neck"}, Compared),
    ("patch", "scratch", {}, Patches),
    ("patch", "scratch", {"base": "sam2"}, Patches),
    ("patch", "ts", {}, Compared),
    ("patch", "ts", {"base": "sam2", "lora": "fused", "rank": 2}, Compared),
    ("patch", "ts", {"mask_student": 0.75}, Compared),
    ("patch", "ts", {"mask_student": 0.5, "mask_loss": "hidden"}, Compared),
]


@pytest.mark.parametrize("level, ssl, settings, kind", LEVELS)
def test_only_the_expert_and_its_objective_learn(teachers, level, ssl, settings, kind):
    network = build(teachers, level, ssl, **settings)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    image = torch.rand(2, 2, settings.get("image_channels", 1), 64, 64)
    optimizer = torch.optim.Adam(trained_parameters(network), lr=0.01)
    loss = StageOneLoss(pixel_loss=settings.get("pixel_loss", "mse"))
    for _ in range(2):  # A has a gradient only after B has left zero
        optimizer.zero_grad()
        outputs = network(image)
        loss(outputs)["loss"].backward()
        optimizer.step()
    assert isinstance(outputs, kind)
    changed = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    expert = {n for n in before if ".lora_" in n}
    assert expert <= changed and all(n.startswith("objective.") and "teacher" not in n for n in changed - expert)
    assert len(expert) == len(expert_parameters(network.encoder, level))
    assert network.state_dict().keys() == {n for n, p in network.named_parameters() if p.requires_grad}
    assert not network.encoder.training and not any(m.training for n, m in network.named_modules() if "teacher" in n)


@pytest.mark.parametrize("level, ssl, settings, kind", LEVELS)
def test_what_is_saved_is_enough(teachers, level, ssl, settings, kind):
    first = build(teachers, level, ssl, **settings)
    with torch.no_grad():
        for parameter in trained_parameters(first):
            parameter.add_(torch.randn_like(parameter) * 0.1)
    second = build(teachers, level, ssl, **settings)
    assert second.load_state_dict(first.state_dict()).missing_keys == []
    third = build(teachers, level, ssl, **settings)
    assert load_weights(third, first.state_dict()).fraction == 1
    image = torch.rand(1, 2, settings.get("image_channels", 1), 64, 64)
    torch.manual_seed(0)
    expected = first(image)[0]
    for other in (second, third):
        torch.manual_seed(0)
        assert torch.equal(other(image)[0], expected)
    with pytest.raises(RuntimeError, match="Missing"):
        second.load_state_dict({k: v for k, v in first.state_dict().items() if "lora_A" not in k})


def test_the_base_depends_on_its_seed_alone(teachers):
    one, two = build(teachers, "pixel"), build(teachers, "patch", "ts")
    plain = frozen_encoder(variant="tiny", image_size=64)
    assert hash_of(one) == hash_of(two) == base_hash(plain)
    assert hash_of(build(teachers, "pixel", base_seed=1)) != hash_of(one)
    assert hash_of(build(teachers, "pixel", image_size=96)) == hash_of(one)
    with torch.no_grad():
        next(iter(expert_parameters(one.encoder, "pixel").values())).add_(1)
    assert hash_of(one) == base_hash(plain)
    assert hash_of(stage_one_network({"level": "teacher_image", "teacher": RESNET})) is None


@torch.no_grad()
def test_the_second_stage_reads_the_expert(teachers, tmp_path):
    network = build(teachers, "patch", "ts")
    for parameter in expert_parameters(network.encoder, "patch").values():
        parameter.normal_()
    save_adapter(network.encoder, "patch", tmp_path)
    encoder = frozen_encoder(variant="tiny", image_size=64)
    load_adapter(encoder, "patch", tmp_path)
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(encoder(image).tokens, network.encoder(image).tokens)


@torch.inference_mode()
def test_targets_and_predictions_lie_on_the_teachers_grid(teachers):
    image = torch.rand(2, 1, 1, 64, 64)
    found = build(teachers, "patch", "ts")(image)  # tokens of 16 pixels at 64, the teacher sees 48
    assert found.prediction.shape == found.target.shape == (2, 3, 3, 16)
    assert torch.allclose(found.target.mean(-1), torch.zeros(2, 3, 3), atol=1e-5)
    assert torch.allclose(found.target.var(-1, correction=0), torch.ones(2, 3, 3), atol=1e-2)
    pooled = build(teachers, "image", "ts")(image)
    assert pooled.prediction.shape == pooled.target.shape == (2, 256)
    dense = build(teachers, "image", "ts", image_target="dense")(image)
    assert dense.prediction.shape == dense.target.shape == (2, 4, 4, 128)


@torch.inference_mode()
def test_a_prediction_is_what_the_formula_says(teachers):
    network = build(teachers, "patch", "ts")
    image = torch.rand(1, 1, 1, 64, 64)
    tokens = network.encoder(image[0].expand(-1, 3, -1, -1)).tokens
    twin = torch.nn.functional.interpolate(tokens.permute(0, 3, 1, 2), size=(3, 3), mode="bilinear").permute(0, 2, 3, 1)
    weight, bias = network.objective.projector.weight, network.objective.projector.bias
    torch.testing.assert_close(network(image).prediction, twin @ weight.T + bias)
    assert regrid(tokens, (4, 4)) is tokens
    views = build(teachers, "image").objective
    student = build(teachers, "image")
    pair = torch.rand(1, 2, 1, 64, 64)
    tokens = student.encoder(pair[0].expand(-1, 3, -1, -1)).tokens.flatten(1, 2)
    first, _, last = student.objective.projector
    mean = torch.stack([sum(t) / len(t) for t in tokens])
    z = torch.nn.functional.gelu(mean @ first.weight.T + first.bias) @ last.weight.T + last.bias
    found = student(pair)
    torch.testing.assert_close(torch.cat([found.first, found.second]), z, rtol=1e-4, atol=1e-5)
    assert isinstance(views, Views)


@torch.inference_mode()
def test_the_papers_teachers_are_told_by_their_widths():
    """SimCLRv2's ResNet-50 of twice the width says 4096 features, of its third stage 2048; MAE's ViT-L 1024."""
    given = [{"level": "image"}, {"level": "image", "image_target": "dense"}, {"level": "patch"}]
    assert [_told(StageOne(ssl="ts", teacher={"sizes": {}}, **g)) for g in given] == [4096, 2048, 1024]


@pytest.mark.parametrize("base", ["sam", "sam2"])
def test_hidden_patches_are_not_seen(teachers, base):
    network = build(teachers, "patch", base=base)
    assert isinstance(network.objective, Masking)
    image, hidden = torch.rand(1, 1, 64, 64), torch.zeros(1, 4, 4, dtype=torch.bool)
    hidden[0, 1:3, 1:3] = True
    pixels = torch.zeros(64, 64, dtype=torch.bool)
    border = 0 if base == "sam" else 4  # the first layer of SAM2 looks three pixels across
    pixels[16 + border : 48 - border, 16 + border : 48 - border] = True
    other = torch.where(pixels, torch.rand(64, 64), image)
    one, two = (network.objective(network.encoder, x, hidden).prediction for x in (image, other))
    assert torch.equal(one, two)
    assert not torch.equal(one, network.objective(network.encoder, image + 0.1, hidden).prediction)
    assert torch.equal(tokens_of(network.encoder, image), network.encoder(image.expand(-1, 3, -1, -1)).tokens)
    assert not any(m._forward_hooks for m in network.encoder.modules())


def test_hidden_tokens_alone_are_counted(teachers):
    network = build(teachers, "patch", "ts", mask_student=0.75, mask_loss="hidden")
    counted = network(torch.rand(2, 1, 1, 64, 64)).counted
    assert counted.shape == (2, 3, 3) and counted.any() and not counted.all()


def test_noise_has_the_level_that_was_asked_for(teachers):
    objective = build(teachers, "pixel", noise_sigma=(0.0, 0.1)).objective
    image = torch.zeros(64, 1, 64, 64)
    levels = objective.noisy(image).std((1, 2, 3))
    assert 0 <= float(levels.min()) < 0.02 and 0.08 < float(levels.max()) < 0.11
    assert float(objective.noisy(image, sigma=0.3).std()) == pytest.approx(0.3, rel=0.01)
    random = torch.Generator().manual_seed(1)
    assert torch.equal(objective.noisy(image, random), objective.noisy(image, random.manual_seed(1)))
    blurred = build(teachers, "pixel", noise_sigma=(0.0, 0.0), noise_blur=1.0).objective.noisy(torch.rand(1, 1, 64, 64))
    assert float(blurred.std()) < 0.2


WRONG = {
    "an unknown level": {"level": "voxel"},
    "an unknown ssl": {"level": "image", "ssl": "both"},
    "a pixel teacher": {"level": "pixel", "ssl": "ts"},
    "a teacher without sizes": {"level": "image", "ssl": "ts"},
    "two channels": {"level": "pixel", "image_channels": 2},
    "an unknown target": {"level": "image", "image_target": "tokens"},
    "an unknown base": {"level": "pixel", "base": "hsam"},
    "unknown features": {"level": "image", "image_features": "head"},
    "hidden tokens without any": {"level": "patch", "ssl": "ts", "teacher": MAE, "mask_loss": "hidden"},
    "no noise at all": {"level": "pixel", "noise_sigma": (0.0, 0.0)},
    "an inverted range": {"level": "pixel", "noise_sigma": (0.2, 0.1)},
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings(case):
    with pytest.raises(ConfigError):
        stage_one_network({**TINY, **WRONG[case]}, inference=True)


def test_contradictions_and_missing_weights(teachers):
    for settings in ({"level": "image"}, {"level": "teacher_image", "teacher": RESNET}):
        assert StageOne.of(settings).contrasts
        with pytest.raises(ConfigError, match="micro_batch"):
            stage_one_network({**TINY, **settings}, micro_batch=2)
        with pytest.raises(ConfigError, match="views"):
            stage_one_network({**TINY, **settings}, views=1)
    taught = {**TINY, "level": "patch", "ssl": "ts", "teacher": MAE}
    with pytest.raises(ConfigError, match="without weights"):
        stage_one_network(taught)
    alone = stage_one_network(taught, inference=True)
    assert isinstance(alone.objective, PatchDistillation)
    with pytest.raises(ConfigError, match="no teacher"):
        alone(torch.rand(1, 1, 1, 64, 64))
    with pytest.raises(WeightError):
        stage_one_network(taught, teacher_weights=teachers["image"])


@pytest.mark.parametrize("level, sizes", [("teacher_image", RESNET), ("teacher_patch", MAE)])
def test_a_teacher_learns_and_is_stored_in_its_public_layout(level, sizes, teachers):
    network = stage_one_network({**TINY, "level": level, "teacher": sizes}, teacher_weights=teachers[level[8:]])
    names = set(network.saved.state_dict())
    if level == "teacher_image":
        assert "resnet.net.1.blocks.0.net.2.main_conv.0.weight" in names and "head.layers.6.weight" in names
    else:
        assert {"cls_token", "blocks.0.attn.qkv.weight", "decoder_pred.weight", "mask_token"} <= names
    stored = torch.load(teachers[level[8:]], weights_only=True)
    assert all(torch.equal(v, stored[k]) for k, v in network.saved.state_dict().items())
    optimizer, values = torch.optim.AdamW(trained_parameters(network), lr=1e-2), []
    image = torch.rand(4, 2, 1, 64, 64)
    for _ in range(12):
        optimizer.zero_grad()
        torch.manual_seed(0)
        terms = StageOneLoss(temperature=0.5)(network(image))
        terms["loss"].backward()
        optimizer.step()
        values.append(float(terms["loss"]))
    assert values[-1] < values[0]
