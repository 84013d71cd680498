"""What an expert makes of volumes, and its scores against loops."""

import math

import pytest
import torch

from common.card import ModelCard, save_weights
from common.errors import ConfigError, WeightError
from common.labels import LabelSpace
from common.layers.window_mask import window_mask
from common.methods.samora.base import hash_of
from common.methods.samora.stage_one.build import stage_one_network
from common.methods.samora.stage_one.volume import ExpertVolume, effective_rank, load_expert, principal_colours

TINY = {"variant": "tiny", "image_size": 64, "projector": 16, "mask_decoder": (16, 1, 2)}
RESNET = {"sizes": {"width": 0.125, "depths": (1, 1, 1, 1), "classes": 2, "head": {"outputs": 8}}, "size": 64}
MAE = {"sizes": {"patch": 16, "width": 16, "depth": 1, "heads": 2, "decoder_width": 8, "decoder_depth": 1,
                 "decoder_heads": 2}, "size": 64}  # fmt: skip


def expert(level, **options):
    teacher = {"teacher_image": RESNET, "teacher_patch": MAE}.get(level, {})
    network = stage_one_network({**TINY, "level": level, "teacher": teacher})
    return ExpertVolume(network=network, image_size=64, slices=2, **options)


def taught(tmp_path):
    weights = tmp_path / "teacher.pt"
    torch.save(dict(stage_one_network({"level": "teacher_patch", "teacher": MAE}).saved.state_dict()), weights)
    settings = {**TINY, "level": "patch", "ssl": "ts", "teacher": MAE}
    return ExpertVolume(network=stage_one_network(settings, teacher_weights=weights), image_size=64, slices=2), weights


def test_colours_are_principal_directions():
    tokens = torch.randn(3, 4, 5, 7, dtype=torch.float64) * torch.arange(1, 8)
    found = principal_colours(tokens)
    assert found.shape == (3, 4, 5, 3) and float(found.min()) >= 0 and float(found.max()) <= 1
    flat = tokens.view(-1, 7) - tokens.view(-1, 7).mean(0)
    _, _, directions = torch.linalg.svd(flat, full_matrices=False)
    for colour in range(3):
        direction = directions[colour]
        direction = direction * direction[direction.abs().argmax()].sign()
        value = flat @ direction
        ordered = sorted(value.tolist())
        low, high = ordered[round(0.01 * 59)], ordered[round(0.99 * 59)]
        torch.testing.assert_close(found[..., colour].flatten(), ((value - low) / (high - low)).clamp(0, 1))
    assert not principal_colours(torch.ones(1, 2, 2, 4)).any()


def test_effective_rank():
    assert effective_rank(torch.tensor([[1.0, 0], [-1, 0], [2, 0], [-2, 0]])) == pytest.approx(1)
    assert effective_rank(torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])) == pytest.approx(2)
    assert effective_rank(torch.ones(4, 3)) == 0
    shares = torch.tensor([4.0, 1.0]) / 5
    found = effective_rank(torch.tensor([[2.0, 0], [-2, 0], [0, 1], [0, -1]]))
    assert found == pytest.approx(math.exp(-sum(float(s) * math.log(s) for s in shares)))


@torch.inference_mode()
@pytest.mark.parametrize("level", ["image", "patch", "teacher_image", "teacher_patch"])
def test_features_are_shown_in_three_colours(level):
    viewer = expert(level)
    volume = torch.rand(1, 1, 64, 64, 3)
    shown = viewer(volume)
    assert shown.shape == (1, 3, 64, 64, 3) and float(shown.min()) >= 0 and float(shown.max()) <= 1
    assert viewer(torch.rand(1, 1, 40, 48, 2)).shape == (1, 3, 40, 48, 2)
    tokens = viewer.network.features(volume[0].permute(3, 0, 1, 2))
    colours = principal_colours(tokens).permute(0, 3, 1, 2)
    twin = torch.nn.functional.interpolate(colours, size=(64, 64), mode="bilinear").permute(1, 2, 3, 0)
    torch.testing.assert_close(shown[0], twin, rtol=0, atol=2e-3)
    planes = viewer.show(volume[..., 0])
    assert set(planes) == {"slice", "features"} and planes["features"].shape == (1, 3, 64, 64)


@torch.inference_mode()
def test_noise_is_added_and_removed():
    viewer, volume = expert("pixel", sigma=0.2, seed=3), torch.rand(1, 1, 64, 64, 3)
    assert expert("pixel").sigma == 0.1
    found = viewer(volume)
    assert found.shape == volume.shape and torch.equal(found, viewer(volume))
    random = torch.Generator().manual_seed(3)
    slices, painted = volume[0].permute(3, 0, 1, 2), []
    for part in (slices[:2], slices[2:]):
        noisy = part + 0.2 * torch.randn(part.shape, generator=random)
        painted.append(viewer.network.objective.painted(viewer.network.encoder, noisy))
    torch.testing.assert_close(found[0], torch.cat(painted).permute(1, 2, 3, 0))
    assert set(viewer.show(volume[..., 0])) == {"slice", "noisy", "denoised"}
    scores = viewer.scores(volume[0])
    mse = float((found - volume).double().square().mean())
    assert scores["mse"] == pytest.approx(mse, rel=1e-5) and scores["psnr"] == pytest.approx(
        -10 * math.log10(mse), rel=1e-5
    )
    assert scores["gain"] == pytest.approx(10 * math.log10(0.04 / mse), abs=0.2)


@torch.inference_mode()
def test_agreement_with_the_teacher(tmp_path):
    viewer, _ = taught(tmp_path)
    volume = torch.rand(1, 64, 64, 3)
    scores = viewer.scores(volume)
    found = viewer.network.objective(viewer.network.encoder, volume.permute(3, 0, 1, 2))
    said, told = found.prediction.reshape(-1, 16).double(), found.target.reshape(-1, 16).double()
    assert scores["mse"] == pytest.approx(float((said - told).square().mean()), rel=1e-4)
    spread = float((told - told.mean(0)).square().mean())
    assert scores["explained"] == pytest.approx(1 - scores["mse"] / spread, rel=1e-3, abs=1e-4)
    cosines = [float(a @ b / a.norm() / b.norm()) for a, b in zip(said, told, strict=True)]
    assert scores["cosine"] == pytest.approx(sum(cosines) / len(cosines), rel=1e-3, abs=1e-5)
    assert set(viewer.show(volume[..., 0][None])) == {"slice", "features", "teacher's features"}


@torch.inference_mode()
@pytest.mark.parametrize("level", ["patch", "teacher_patch"])
@pytest.mark.parametrize("normalise", [True, False])
def test_hidden_patches_are_scored(level, normalise):
    viewer = expert(level, normalise=normalise, seed=1)
    volume, random = torch.rand(1, 64, 64, 3), torch.Generator().manual_seed(1)
    scores = viewer.scores(volume)
    errors, count = 0.0, 0
    slices = volume.permute(3, 0, 1, 2)
    for part in (slices[:2], slices[2:]):
        hidden = window_mask(len(part), 4, 4, ratio=0.75, side=1, generator=random)
        if level == "patch":
            found = viewer.network.objective(viewer.network.encoder, part, hidden)
        else:
            found = viewer.network(part[:, None], hidden)
        for b, i, j in hidden.nonzero().tolist():
            patch = found.image[b, :, 16 * i : 16 * i + 16, 16 * j : 16 * j + 16].permute(1, 2, 0).flatten()
            if normalise:
                patch = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
            errors += float((found.prediction[b, i, j] - patch).square().mean())
            count += 1
    assert scores["mse"] == pytest.approx(errors / count, rel=1e-4) and scores["explained"] < 1 and "rank" in scores


@torch.inference_mode()
@pytest.mark.parametrize("level", ["image", "teacher_image"])
def test_retrieval_without_a_teacher(level):
    scores = expert(level).scores(torch.rand(1, 64, 64, 4))
    assert set(scores) == {"retrieval", "rank"} and scores["retrieval"] in (0, 0.25, 0.5, 0.75, 1)


def test_weights_find_their_base_and_teacher_or_are_refused(tmp_path):
    viewer, weights = taught(tmp_path)
    network = viewer.network
    assert viewer.state_dict().keys() == network.state_dict().keys()
    path = save_weights(tmp_path / "model.pt", network.state_dict(), ModelCard(LabelSpace(("x",))))
    import hashlib

    teacher = {"hash": hashlib.sha256(weights.read_bytes()).hexdigest(), "file": "teacher.pt"}
    load_expert(viewer, path, base_hash=hash_of(network), teacher=teacher, teacher_weights=weights)
    with pytest.raises(WeightError, match="another base"):
        load_expert(viewer, path, base_hash="0" * 64)
    with pytest.raises(WeightError, match="another teacher"):
        load_expert(viewer, path, teacher={"hash": "0" * 64}, teacher_weights=weights)
    for level in ("teacher_image", "teacher_patch"):
        own = expert(level)
        stored = save_weights(tmp_path / f"{level}.pt", own.network.saved.state_dict())
        assert load_expert(own, stored).fraction == 1


def test_impossible_settings():
    network = stage_one_network({**TINY, "level": "pixel"})
    for wrong in ({"slices": 0}, {"sigma": -0.1}):
        with pytest.raises(ConfigError):
            ExpertVolume(network=network, **wrong)
