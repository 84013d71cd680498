"""Experts answer in the student's frame, stay frozen, and are refused when they do not fit."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.networks.nets import UNet
from monai.transforms import Orientation
from torch import nn

from common.backbones.nnunet.network import load_network, read_results_folder
from common.errors import ExpertError
from common.experts.expert_set import Expert, ExpertSet, describe_nnunet, load_experts
from common.experts.frame import Frame
from common.experts.normalise import Normalise
from common.experts.sources import Opened
from common.experts.spec import ExpertSpec, read_manifest, write_manifest
from common.experts.trust import code_hash
from common.labels import LabelSpace

LABELS = LabelSpace(("liver", "spleen"))


def stats_of(raw):
    flat = raw.flatten(2)
    quantiles = torch.quantile(flat, torch.tensor([0.005, 0.995]), dim=2)
    columns = (flat.mean(2), flat.std(2, correction=0), flat.amin(2), flat.amax(2))
    return torch.stack((*columns, *quantiles, *columns), dim=2)


def crop(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 20 + 30


def load(folder, **given):
    return load_experts([describe_nnunet(folder, name="e", task="ct", **given)]).for_task("ct")


class Ramp(nn.Module):
    """A linear map per voxel: the answer is known whatever the axes do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0, -1.0, 0.5]))
        self.register_buffer("shift", torch.tensor([1.0]))

    def forward(self, x):
        return x * self.weight.view(1, 3, 1, 1, 1) + self.shift


def ramp_expert(frame, resample=True):
    network = Ramp()
    spec = ExpertSpec("r", "nnunet", "nowhere", LABELS, ("T1",), task="ct")
    source = Opened(network, lambda x: [network(x)], frame, (Normalise("none"),), None, None)
    return Expert(spec=spec, source=source, resample=resample)


def naive_order(x, axcodes, frame):
    """The crop in the expert's frame by MONAI's orientation and numpy's transpose."""
    affine = np.eye(4)
    directions = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    affine[:3, :3] = 0
    for axis, code in enumerate(axcodes):
        world, sign = directions[code]
        affine[world, axis] = sign
    from monai.data import MetaTensor

    volume = Orientation(axcodes=frame.orientation, labels=None)(MetaTensor(x, affine=affine))
    return volume.as_tensor().permute(0, *(a + 1 for a in frame.order))


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "LIA", "SPR", "PIR"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_the_network_sees_its_own_axes_and_answers_in_the_students(axcodes, order):
    frame = Frame("RAS", order, (None, None, None), (4, 2, 1))
    raw = crop(2, 1, 5, 6, 7)
    place = frame.place(raw.shape[2:], (1, 1, 1), axcodes, resample=True)
    entered = frame.enter(raw, place)
    a, b, c = place.shape
    for i in range(2):
        torch.testing.assert_close(entered[i, :, :a, :b, :c], naive_order(raw[i], axcodes, frame))
    assert entered.shape[2] % 4 == 0 and entered.shape[3] % 2 == 0
    torch.testing.assert_close(frame.leave(entered, place), raw)
    expert = ramp_expert(frame)
    expected = raw * torch.tensor([2.0, -1.0, 0.5]).view(1, 3, 1, 1, 1) + 1
    torch.testing.assert_close(expert.logits(raw, stats_of(raw), (1, 1, 1), axcodes), expected)


@pytest.mark.parametrize("axcodes", ["RAS", "LIA", "SPR"])
def test_features_come_back_unflipped(axcodes):
    frame = Frame("RAS", (2, 1, 0), (None, None, None), (1, 1, 1))
    raw = crop(1, 1, 5, 6, 7)
    (found,) = ramp_expert(frame).features(raw, stats_of(raw), (1, 1, 1), axcodes)
    torch.testing.assert_close(found, raw * torch.tensor([2.0, -1.0, 0.5]).view(1, 3, 1, 1, 1) + 1)


def test_other_spacing_is_resampled_there_and_back():
    frame = Frame("RAS", (0, 1, 2), (2.0, 1.0, 1.0), (1, 1, 1))
    line = torch.linspace(0, 30, 16).view(1, 1, 16, 1, 1).expand(1, 1, 16, 4, 4).contiguous()
    place = frame.place(line.shape[2:], (1.0, 1.0, 1.0), "RAS", resample=True)
    assert place.resampled == (8, 4, 4)
    back = ramp_expert(frame).logits(line, stats_of(line), (1.0, 1.0, 1.0))
    expected = line * torch.tensor([2.0, -1.0, 0.5]).view(1, 3, 1, 1, 1) + 1
    torch.testing.assert_close(back[:, :, 2:-2], expected[:, :, 2:-2], atol=1e-4, rtol=0)
    assert frame.place(line.shape[2:], (1.0, 1.0, 1.0), "RAS", resample=False).resampled == (16, 4, 4)


def test_padding_leaves_two_bottleneck_voxels():
    frame = Frame(None, (0, 1, 2), (None, None, None), (8, 8, 8))
    assert frame.padded((5, 8, 3)) == (8, 16, 8)
    flat = replace(frame, divisor=(1, 8, 8), planar=True)
    assert flat.padded((3, 8, 8)) in ((3, 16, 8), (3, 8, 16))
    assert frame.padded((9, 8, 3)) == (16, 8, 8)


def test_unknown_directions_are_refused():
    frame = Frame("RAS", (0, 1, 2), (None, None, None), (1, 1, 1))
    with pytest.raises(ExpertError, match="cannot orient"):
        frame.place((4, 4, 4), (1, 1, 1), "XYZ", resample=False)


def test_logits_are_the_networks_on_its_own_grid(nnunet_folder):
    folder = nnunet_folder()
    expert, network = load(folder), load_network(read_results_folder(folder))
    raw = crop(2, 1, 16, 12, 8)
    found = expert.logits(raw, stats_of(raw), (1, 1, 1), "RAS")
    flat = raw.flatten(1)
    z = (raw - flat.mean(1).view(2, 1, 1, 1, 1)) / flat.std(1, correction=0).view(2, 1, 1, 1, 1)
    with torch.no_grad():
        expected = network(z.permute(0, 1, 4, 3, 2)).permute(0, 1, 4, 3, 2)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert expert.calls == 1 and not found.requires_grad


def test_encoder_alone_gives_the_bottleneck_bit_for_bit(nnunet_folder):
    folder = nnunet_folder(strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)))
    expert, network = load(folder), load_network(read_results_folder(folder))
    raw = crop(1, 1, 16, 16, 16)
    seen = []
    network.encoder.stages[-1].register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad():
        network(expert.normalise(raw, stats_of(raw)).permute(0, 1, 4, 3, 2))
    features = expert.features(raw, stats_of(raw), (1, 1, 1))
    assert torch.equal(features[-1], seen[0].permute(0, 1, 4, 3, 2))
    assert features[-1].shape == (1, 8, 4, 4, 8)  # z was pooled once only
    assert expert.channels_of_features == [f.shape[1] for f in features] == [4, 8, 8]


@pytest.mark.parametrize("transpose", [(1, 0, 2), (2, 0, 1)])
def test_transposed_plans(nnunet_folder, transpose):
    folder = nnunet_folder(transpose=transpose, strides=((1, 1, 1), (1, 2, 2), (1, 2, 2)))
    expert = load(folder)
    raw = crop(1, 1, 16, 16, 16)
    order = [(2, 1, 0)[i] for i in transpose]
    shape = [0, 0, 0]
    for position, axis in enumerate(order):
        shape[axis] = 16 if position == 0 else 4
    assert list(expert.features(raw, stats_of(raw), (1, 1, 1))[-1].shape[2:]) == shape
    network = load_network(read_results_folder(folder))
    with torch.no_grad():
        there = network(expert.normalise(raw, stats_of(raw)).permute(0, 1, *(a + 2 for a in order)))
    expected = there.permute(0, 1, *(order.index(a) + 2 for a in range(3)))
    torch.testing.assert_close(expert.logits(raw, stats_of(raw), (1, 1, 1)), expected, atol=1e-5, rtol=1e-5)


def test_two_dimensional_experts_go_slice_by_slice(nnunet_folder):
    folder = nnunet_folder(spacing=(1.0, 1.0), strides=((1, 1), (2, 2), (2, 2)))
    expert, network = load(folder), load_network(read_results_folder(folder))
    raw = crop(2, 1, 16, 12, 5)
    found = expert.logits(raw, stats_of(raw), (1, 1, 4))
    x = expert.normalise(raw, stats_of(raw))
    with torch.no_grad():
        slices = [network(x[:, :, :, :, k].transpose(2, 3)).transpose(2, 3) for k in range(5)]
    torch.testing.assert_close(found, torch.stack(slices, dim=4), atol=1e-5, rtol=1e-5)
    assert expert.features(raw, stats_of(raw), (1, 1, 4))[-1].shape == (2, 8, 4, 3, 5)


def test_regions_give_one_logit_per_structure(nnunet_folder):
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    expert = load(nnunet_folder(labels=labels, extra={"regions_class_order": [1, 2]}))
    raw = crop(1, 1, 16, 16, 16)
    assert expert.logits(raw, stats_of(raw), (1, 1, 1)).shape[1] == 2
    assert not expert.spec.labels.exclusive


@pytest.mark.parametrize(
    "norm", ["CTNormalization", "ZScoreNormalization", "RescaleTo01Normalization", "NoNormalization"]
)
def test_normalisation_is_nnunets(nnunet_folder, nnunet_plans, norm):
    from nnunetv2.preprocessing.normalization import default_normalization_schemes as schemes

    expert = load(nnunet_folder(norm=norm))
    raw = crop(1, 1, 8, 9, 10)
    known = nnunet_plans()["foreground_intensity_properties_per_channel"]["0"]
    expected = getattr(schemes, norm)(False, known).run(raw[0, 0].numpy().copy())
    np.testing.assert_allclose(expert.normalise(raw, stats_of(raw))[0, 0].numpy(), expected, atol=1e-4)


def test_masked_normalisation_keeps_zero(nnunet_folder):
    expert = load(nnunet_folder(masked=True))
    raw = crop(1, 1, 8, 8, 8)
    raw[..., :3] = 0
    inside = raw[raw != 0]
    stats = torch.tensor([[[inside.mean(), inside.std(correction=0), 0, 0, 0, 0, 7, 9, 0, 0]]])
    done = expert.normalise(raw, stats)
    assert bool((done[..., :3] == 0).all())
    torch.testing.assert_close(done[raw != 0].mean(), torch.tensor(0.0), atol=1e-4, rtol=0)


def test_zero_background_is_normalised_as_nnunet_does(nnunet_folder):
    """Without a mask the statistics are those of all voxels in the box around what is not zero."""
    from common.data.intensity.volume import volume_stats

    volume = torch.zeros(1, 20, 20, 20)
    volume[:, 4:14, 3:15, 2:18] = crop(1, 10, 12, 16).abs() + 5
    volume[:, 6:9, 3:15, 5:12] = 0  # air inside of the box
    expert = load(nnunet_folder())
    stats = torch.from_numpy(volume_stats(volume.numpy()))[None]
    found = expert.normalise(volume[None], stats)[0, 0]
    box = volume[0, 4:14, 3:15, 2:18]
    torch.testing.assert_close(
        found[4:14, 3:15, 2:18], (box - box.mean()) / box.std(correction=0), atol=1e-5, rtol=1e-4
    )
    assert float(found[7, 8, 8]) > -3  # by the statistics of what is not zero alone it would lie below


class Place(nn.Module):
    """Features: the mean place in voxels of what each of them stands for."""

    def __init__(self, stride):
        super().__init__()
        self.pool = nn.AvgPool3d(stride)

    def forward(self, x):
        axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in x.shape[2:]), indexing="ij")
        return self.pool(torch.stack(axes)[None])


@pytest.mark.parametrize("shape", [(20, 16, 24), (9, 40, 33), (8, 8, 8)])
def test_padding_leaves_features_in_their_place(shape):
    """Whoever takes a map to cover the crop evenly finds each feature where it was computed."""
    network = Place(8)
    frame = Frame("RAS", (2, 1, 0), (None, None, None), (8, 8, 8))
    spec = ExpertSpec("p", "nnunet", "nowhere", LABELS, ("T1",), task="ct")
    expert = Expert(spec=spec, source=Opened(network, lambda x: [network(x)], frame, (Normalise("none"),), None, None))
    raw = torch.zeros(1, 1, *shape)
    (found,) = expert.features(raw, stats_of(raw), (1, 1, 1))
    for axis, n in enumerate(shape):
        count = found.shape[2 + axis]
        assert count == max(1, round(n / 8))
        places = found[0, 2 - axis].movedim(axis, 0).flatten(1)[:, 0]  # the expert reads z, y, x
        wanted = (torch.arange(count) + 0.5) * n / count - 0.5
        assert (places - wanted).abs().max() < 1e-4 + (n % 8 > 0) * 2  # the last one may reach into the padding
        inner = wanted <= (-(-n // 8) * 8 - 4.5)
        torch.testing.assert_close(places[inner & (wanted >= 3.5)], wanted[inner & (wanted >= 3.5)])


def test_features_and_logits_of_one_pass_are_the_same(nnunet_folder):
    folder = nnunet_folder(transpose=(1, 2, 0))
    expert = load(folder)
    raw = crop(2, 1, 17, 12, 21)
    passes = []
    expert.network.encoder.register_forward_hook(lambda *_: passes.append(1))
    heard = expert.both(raw, stats_of(raw), (1, 1, 1))
    assert len(passes) == 1 and expert.calls == 1
    assert torch.equal(heard.logits, expert.logits(raw, stats_of(raw), (1, 1, 1)))
    for ours, theirs in zip(heard.features, expert.features(raw, stats_of(raw), (1, 1, 1)), strict=True):
        assert torch.equal(ours, theirs)


def test_a_large_crop_is_asked_about_in_windows(nnunet_folder, monkeypatch):
    import common.experts.windows as windows

    expert = load(nnunet_folder())
    raw = crop(1, 1, 36, 24, 16)
    whole = expert.both(raw, stats_of(raw), (1, 1, 1))
    sizes = []
    expert.network.encoder.register_forward_hook(lambda _, given, __: sizes.append(given[0].shape[2:]))
    monkeypatch.setattr(windows, "MOST_VOXELS", 16**3)
    found = expert.both(raw, stats_of(raw), (1, 1, 1))
    assert len(sizes) > 3 and all(s == (16, 16, 16) for s in sizes)  # the patch that it learned on
    assert [f.shape for f in found.features] == [f.shape for f in whole.features]
    assert found.logits.shape == whole.logits.shape
    middle = (found.logits - whole.logits)[..., 6:-6, 6:-6, 4:-4]
    assert float(middle.abs().mean()) < float(whole.logits.std()) / 2  # other instance statistics, the same places


def test_folds_answer_as_one(nnunet_folder):
    folder = nnunet_folder()
    nnunet_folder("Dataset901_other", seed=1).joinpath("fold_0").rename(folder / "fold_1")
    raw = crop(1, 1, 16, 16, 16)
    alone = [load(folder, fold=f).logits(raw, stats_of(raw), (1, 1, 1)) for f in (0, 1)]
    both = load(folder, fold=(0, 1))
    assert both.spec.fold == (0, 1) and not torch.allclose(*alone)
    torch.testing.assert_close(both.logits(raw, stats_of(raw), (1, 1, 1)), (alone[0] + alone[1]) / 2)
    heard = both.both(raw, stats_of(raw), (1, 1, 1))
    torch.testing.assert_close(heard.logits, (alone[0] + alone[1]) / 2)
    first = load(folder, fold=0).features(raw, stats_of(raw), (1, 1, 1))
    assert all(torch.equal(a, b) for a, b in zip(heard.features, first, strict=True))


def test_nobody_s_orientation_is_said(nnunet_folder, caplog):
    spec = describe_nnunet(nnunet_folder(reader="SimpleITKIO"), name="e", task="ct")
    load_experts([spec])
    assert "nobody says how its training scans lay" in caplog.text


def test_frozen_after_a_backward_through_the_student(nnunet_folder):
    experts = load_experts([describe_nnunet(nnunet_folder(), name="e", task="ct")])
    expert = experts.for_task("ct")
    before = experts.fingerprint()
    student = nn.Sequential(nn.Conv3d(1, 8, 4, stride=4), nn.BatchNorm3d(8)).train()
    expert.train()
    raw = crop(2, 1, 16, 16, 16)
    optimizer = torch.optim.SGD([*student.parameters(), *expert.parameters()], lr=1.0)
    loss = (student(raw) - expert.features(raw, stats_of(raw), (1, 1, 1))[-1]).square().mean()
    loss.backward()
    optimizer.step()
    assert experts.fingerprint() == before
    assert not expert.training and all(p.grad is None for p in expert.parameters())


def test_fingerprint_sees_every_buffer():
    expert = ramp_expert(Frame(None, (0, 1, 2), (None, None, None), (1, 1, 1)))
    before = ExpertSet([expert]).fingerprint()
    expert.network.shift += 1
    assert ExpertSet([expert]).fingerprint() != before


def test_manifest_round_trip_and_moved_folder(nnunet_folder, tmp_path):
    folder = nnunet_folder()
    specs = [describe_nnunet(folder, name="ct", task="ct"), describe_nnunet(folder, name="x", role="external")]
    file = write_manifest(tmp_path / "experts.json", specs)
    assert [e["path"] for e in json.loads(file.read_text())["experts"]] == [folder.relative_to(tmp_path).as_posix()] * 2
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(folder.parent, moved / folder.parent.name)
    shutil.move(file, moved / file.name)
    experts = load_experts(moved / file.name)
    assert (len(experts), experts.tasks, [e.spec.name for e in experts.external]) == (2, ("ct",), ["x"])
    assert read_manifest(moved / file.name)[0].labels == LABELS
    assert len(load_experts(moved / file.name, only=("task",))) == 1


@pytest.mark.parametrize("file", ["fold_0/checkpoint_final.pth", "plans.json", "dataset.json"])
def test_a_changed_file_is_refused(nnunet_folder, file):
    folder = nnunet_folder()
    spec = describe_nnunet(folder, name="ct", task="ct")
    with (folder / file).open("ab") as stream:
        stream.write(b" ")
    with pytest.raises(ExpertError, match=r"(?s)'ct'.*changed since they were recorded|changed since"):
        load_experts([spec])


def test_missing_files_name_expert_and_command(nnunet_folder):
    folder = nnunet_folder()
    spec = describe_nnunet(folder, name="ct", task="ct")
    (folder / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(
        ExpertError, match=r"(?s)expert 'ct'.*weights are missing.*bundles/ka2er_expert/configs/train.json"
    ):
        load_experts([spec])


def test_missing_or_broken_manifest(tmp_path):
    with pytest.raises(ExpertError, match="tools chain run"):
        load_experts(tmp_path / "experts.json")
    (tmp_path / "experts.json").write_text('{"format": 7, "experts": []}')
    with pytest.raises(ExpertError, match="unknown format"):
        load_experts(tmp_path / "experts.json")


def test_channel_mismatch(nnunet_folder):
    spec = describe_nnunet(nnunet_folder(), name="ct", task="ct")
    assert len(load_experts([spec], channels=("t1",))) == 1
    assert len(load_experts([spec], channels={"ct": ("T1",)})) == 1
    with pytest.raises(ExpertError, match=r"(?s)does not read the channels.*T2"):
        load_experts([spec], channels=("T2",))
    external = replace(spec, role="external", task="")
    assert len(load_experts([external], channels=("T2",))) == 1
    for two in (("T1", "T2"), {"ct": ("T1", "T2")}):
        with pytest.raises(ExpertError, match="does not read the channels"):
            load_experts([external], channels=two)
    with pytest.raises(ExpertError, match="different image channels"):
        load_experts([replace(spec, channels=("CT",))])


def test_label_mismatch(nnunet_folder):
    spec = describe_nnunet(nnunet_folder(), name="ct", task="ct")
    assert len(load_experts([spec], labels=LabelSpace(("aorta", "spleen", "liver")))) == 1
    with pytest.raises(ExpertError, match=r"(?s)does not know.*spleen"):
        load_experts([spec], labels=LabelSpace(("liver", "aorta")))
    with pytest.raises(ExpertError, match="different structures"):
        load_experts([replace(spec, labels=LabelSpace(("liver", "aorta")))])


def test_wrong_crops_are_refused(nnunet_folder):
    expert = load(nnunet_folder())
    raw = crop(1, 2, 8, 8, 8)
    with pytest.raises(ExpertError, match="channels that this expert reads"):
        expert.features(raw, stats_of(raw), (1, 1, 1))
    with pytest.raises(ExpertError, match="statistics"):
        expert.features(raw[:, :1], torch.zeros(1, 2, 10), (1, 1, 1))


def test_specifications_are_checked():
    good = {"name": "a", "kind": "nnunet", "path": ".", "labels": LABELS.to_dict(), "channels": ["T1"], "task": "t"}
    assert ExpertSpec.from_dict(good).to_dict()["channels"] == ["T1"]
    for wrong in ({"kind": "keras"}, {"role": "boss"}, {"task": ""}, {"colour": "red"}, {"spacing": ["a"]}):
        with pytest.raises(ExpertError):
            ExpertSpec.from_dict({**good, **wrong})


def test_names_and_tasks_are_unique(nnunet_folder):
    spec = describe_nnunet(nnunet_folder(), name="ct", task="ct")
    with pytest.raises(ExpertError, match="same task"):
        load_experts([spec, replace(spec, name="other")])
    with pytest.raises(ExpertError, match="has no expert"):
        load_experts([spec]).for_task("mr")


@pytest.fixture
def bundle(tmp_path):
    """A bundle as the model zoo has them."""
    root = tmp_path / "zoo"
    for sub in ("configs", "models"):
        (root / sub).mkdir(parents=True)
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8, 8], "strides": [2, 2]}
    config = {
        "bundle_root": ".",
        "network_def": {"_target_": "UNet", **arguments},
        "network": "$@network_def.to('cpu')",
    }
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    metadata = {
        "network_data_format": {
            "inputs": {"image": {"num_channels": 1, "channel_def": {"0": "T1"}}},
            "outputs": {"pred": {"channel_def": {"0": "background", "1": "liver", "2": "spleen"}}},
        }
    }
    (root / "configs" / "metadata.json").write_text(json.dumps(metadata))
    torch.manual_seed(0)
    network = UNet(**arguments).eval()
    torch.save(network.state_dict(), root / "models" / "model.pt")
    return root, network


@pytest.mark.parametrize("role", ["task", "external"])
def test_zoo_bundles_are_experts(bundle, role):
    root, network = bundle
    extra = {"normalise": {"scheme": "range", "low": 0.0, "high": 100.0}, "divisor": 4}
    path = "model.1.submodule.1.submodule"
    task = "ct" if role == "task" else ""
    spec = ExpertSpec("zoo", "bundle", root, LABELS, ("T1",), role=role, task=task, features=path, extra=extra,
                      trusted=code_hash(root))  # fmt: skip
    experts = load_experts([spec], channels=("T1",), labels=LABELS)
    expert = experts.for_task("ct") if role == "task" else experts.external[0]
    raw = crop(1, 1, 16, 16, 16)
    seen = []
    network.get_submodule(path).register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad():
        expected = network(raw.clamp(0, 100) / 100)
    assert torch.equal(expert.logits(raw, stats_of(raw), (1, 1, 1)), expected)
    assert torch.equal(expert.features(raw, stats_of(raw), (1, 1, 1))[0], seen[0])
    assert expert.channels_of_features == [8]


def test_wrong_feature_module_is_refused_with_a_suggestion(bundle):
    root, _ = bundle
    spec = ExpertSpec("zoo", "bundle", root, LABELS, ("T1",), task="ct", features="model.1.submodul",
                      extra={"divisor": 4}, trusted=code_hash(root))  # fmt: skip
    with pytest.raises(ExpertError, match=r"(?s)no module of this name.*model\.1\.submodule"):
        load_experts([spec])
    with pytest.raises(ExpertError, match=r"(?s)no `features`.*model"):
        load_experts([replace(spec, features=None)])


def test_bundle_problems_name_the_expert(bundle):
    root, _ = bundle
    spec = ExpertSpec("zoo", "bundle", root, LABELS, ("T1",), task="ct", features="model.0", extra={"divisor": 4},
                      trusted=code_hash(root))  # fmt: skip
    with pytest.raises(ExpertError, match=r"(?s)expert 'zoo': unknown normalisation.*magic"):
        load_experts([replace(spec, extra={"normalise": {"scheme": "magic"}})])
    with pytest.raises(ExpertError, match="expert 'zoo': cannot read the normalisation"):
        load_experts([replace(spec, extra={"normalise": {"scheme": "ct", "middle": 3}})])
    with pytest.raises(ExpertError, match=r"(?s)expert 'zoo': .*one normalisation per channel.*got: +2.*expected: 1"):
        load_experts([replace(spec, extra={"normalise": [{"scheme": "zscore"}] * 2})])
    (expert,) = load_experts([replace(spec, extra={"normalise": ({"scheme": "rgb"},), "divisor": 4})])
    raw = crop(1, 1, 4, 4, 4)
    assert torch.equal(expert.normalise(raw, stats_of(raw)), raw / 255)
    (root / "configs" / "inference.json").unlink()
    with pytest.raises(ExpertError, match="no MONAI bundle"):
        load_experts([spec])


@pytest.mark.parametrize(
    ("config", "got"),
    [
        ({"network_def": {"_target_": "not_installed.Net"}}, "ModuleNotFoundError: .*not_installed"),
        ({}, "KeyError: .*network"),
        ({"network_def": {"_target_": "builtins.dict"}}, "dict"),
    ],
)
def test_a_network_that_cannot_be_built_is_told(bundle, config, got):
    root, _ = bundle
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    spec = ExpertSpec("zoo", "bundle", root, LABELS, ("T1",), task="ct", features="model.0", trusted=code_hash(root))
    problem = rf"(?s)expert 'zoo' .*inference\.json.*network cannot be built.*got: +{got}.*torch\.nn\.Module.*metadata"
    with pytest.raises(ExpertError, match=problem):
        load_experts([spec])


def test_torchscript_files_are_experts(tmp_path):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Conv3d(1, 4, 2, stride=2)
            self.head = nn.ConvTranspose3d(4, 3, 2, stride=2)

        def forward(self, x):
            return self.head(self.encoder(x))

    torch.manual_seed(0)
    network = Network().eval()
    file = tmp_path / "expert.ts"
    torch.jit.script(network).save(str(file))
    spec = ExpertSpec(
        "ts", "torchscript", file, LABELS, ("T1",), role="external", features="encoder", extra={"divisor": 2}
    )
    spec = replace(spec, sha256=hash_of(file))
    expert = load_experts([spec]).external[0]
    raw = crop(1, 1, 8, 8, 8)
    x = expert.normalise(raw, stats_of(raw))
    with torch.no_grad():
        torch.testing.assert_close(expert.logits(raw, stats_of(raw), (1, 1, 1)), network(x))
        torch.testing.assert_close(expert.features(raw, stats_of(raw), (1, 1, 1))[0], network.encoder(x))
    with pytest.raises(ExpertError, match=r"(?s)no module.*encoder"):
        load_experts([replace(spec, features="encodr")])
    file.write_bytes(b"no model")
    with pytest.raises(ExpertError, match="changed"):
        load_experts([spec])
    with pytest.raises(ExpertError, match="cannot read this TorchScript file"):
        load_experts([replace(spec, sha256="")])


def hash_of(file):
    """Independent of the product's code: the hash over the one file's digest."""
    return hashlib.sha256(hashlib.sha256(file.read_bytes()).digest()).hexdigest()
