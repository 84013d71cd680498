"""What gates choose, recorded inside a real evaluator and compared with a slow computation."""

import csv
import json
import logging

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from monai.transforms import Compose, Orientationd, Resized
from PIL import Image

from common.errors import ConfigError, DataError
from common.literals import file_name
from common.methods.m4oe.gate_maps import GateMaps
from common.methods.m4oe.network import M4oE, swin_unet_with_experts
from common.methods.m4oe.volume import M4oEVolume

NAMES = ("CT", "MR")
AFFINE = torch.diag(torch.tensor([-1.0, 2.0, 3.0, 1.0]))
PREPROCESSING = Compose(
    [
        Orientationd(keys="image", axcodes="RAS", labels=None),
        Resized(keys="image", spatial_size=(64, 64, 4), mode="bilinear"),
    ]
)


def build(**options):
    torch.manual_seed(0)
    sizes = {"embed": 12, "num_heads": (1, 2, 3, 6), "window": 2, "depths": (1, 1, 1, 1)}
    backbone = swin_unet_with_experts(experts=2, **sizes, **options)
    network = M4oE(backbone=backbone, modalities=NAMES, classes={"a": (0, 1, 2)}, total=3, embed=12)
    for name, parameter in network.named_parameters():
        if ".gate.weight" in name:
            torch.nn.init.normal_(parameter, std=1.0)
    return M4oEVolume(network=network, slices=3).eval()


def data(modalities=("CT", "MR", "CT")):
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "image": MetaTensor(torch.rand(1, 64, 32, 4, generator=generator), affine=AFFINE),
            "case": f"c/{i}",
            "task": "t k",
            "modality": m,
        }
        for i, m in enumerate(modalities)
    ]


def prepare(batch, device=None, non_blocking=False, **_):
    number = torch.tensor([NAMES.index(m) for m in batch["modality"]])
    return batch["image"], None, (number,), {}


def evaluate(network, folder, items=None, transform=PREPROCESSING, **options):
    handler = GateMaps(network=network, output_dir=folder, modalities=NAMES, transform=transform, **options)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items or data(), PREPROCESSING), batch_size=1),
        network=network,
        inferer=SimpleInferer(),
        prepare_batch=prepare,
        val_handlers=[handler],
    )
    evaluator.run()
    return handler


def hooks(network):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


@torch.no_grad()
def naive(network, block, modality):
    """Mean weights of one block by slices, tokens and experts, one at a time."""
    total, asked, tokens = [0.0, 0.0], [0, 0], 0
    for item in data():
        if item["modality"] != modality:
            continue
        image = PREPROCESSING(item)["image"]
        for z in range(image.shape[3]):
            routing = network.network(
                image[None, ..., z].as_tensor(), torch.tensor([NAMES.index(modality)]), torch.tensor([0])
            ).routings[block]
            weights = routing.weights[0].reshape(2, -1)
            tokens += weights.shape[1]
            for e in range(2):
                for value in weights[e].tolist():
                    total[e] += value
                    asked[e] += value > 0
    return [t / tokens for t in total], [a / tokens for a in asked], tokens


def table(folder):
    with (folder / "evaluation" / "gate_usage.csv").open() as stream:
        return {(r["modality"], r["block"], r["expert"]): r for r in csv.DictReader(stream)}


@pytest.mark.parametrize("options", [{}, {"top_k": 1}])
def test_the_table_equals_a_slow_count(tmp_path, options):
    network = build(**options)
    handler = evaluate(network, tmp_path)
    rows = table(tmp_path)
    names = list(dict.fromkeys(b for _, b, _ in rows))
    blocks = [f"encoder {i}.0" for i in range(4)] + [f"decoder {i}.0" for i in (1, 2, 3)]
    assert names == ["all", "encoder", "decoder", *blocks] and handler.learned
    for modality, cases in (("CT", 2), ("MR", 1)):
        means = []
        for number, block in enumerate(blocks):
            mean, asked, tokens = naive(network, number, modality)
            means.append(mean)
            for e, expert in enumerate(NAMES):
                row = rows[modality, block, expert]
                assert float(row["mean_weight"]) == pytest.approx(mean[e], abs=1e-4)
                assert float(row["asked"]) == pytest.approx(asked[e], abs=1e-3)
                assert int(row["cases"]) == cases and int(row["tokens"]) == tokens
        for block, part in (("all", means), ("encoder", means[:4]), ("decoder", means[4:])):
            for e, expert in enumerate(NAMES):
                expected = np.mean([m[e] for m in part])
                assert float(rows[modality, block, expert]["mean_weight"]) == pytest.approx(expected, abs=1e-4)
    summary = json.loads((tmp_path / "evaluation" / "gate_usage.json").read_text())
    assert summary["mean_weight"]["MR"]["CT"] == pytest.approx(float(rows["MR", "all", "CT"]["mean_weight"]), abs=1e-5)
    assert summary["learned"] and summary["cases"] == {"CT": 2, "MR": 1}


def test_pictures_and_their_captions(tmp_path):
    network = build(moe_decoder=False)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "captions.json").write_text('{"other.png": "kept", "gate_t_old.png": "old"}')
    (tmp_path / "pictures" / "gate_t_old.png").write_bytes(b"")
    handler = evaluate(network, tmp_path, cases=1)
    captions = json.loads((tmp_path / "pictures" / "captions.json").read_text())
    pictures = {p.name for p in (tmp_path / "pictures").glob("*.png")}
    assert pictures == {"gate_usage.png", *(f"gate_{file_name('t k', c)}.png" for c in "01")}
    assert set(captions) == {"other.png", *pictures}
    for name in pictures:
        with Image.open(tmp_path / "pictures" / name) as picture:
            assert min(picture.size) > 200 and np.asarray(picture.convert("L")).std() > 10
    one = handler.slices[0]
    assert list(one.maps) == ["encoder"] and one.maps["encoder"].shape == (2, 64, 64) and one.pixel == (1.0, 1.0)
    np.testing.assert_allclose(one.maps["encoder"].sum(0), 1, atol=1e-5)


def test_volumes_lie_on_the_image_and_sum_to_one(tmp_path):
    evaluate(build(), tmp_path, every=2, cases=0, volumes=True)
    folder = tmp_path / "evaluation" / "gate_maps" / "t_k_fd4d09f6"
    assert {p.name for p in folder.iterdir()} == {
        f"{c}_expert-{e}.nii.gz" for c in (0, 1) for e in NAMES
    }  # of the two CT cases the first
    maps = [nibabel.load(folder / f"0_expert-{e}.nii.gz") for e in NAMES]
    assert maps[0].shape == (64, 32, 4) and maps[0].get_data_dtype() == np.float32
    np.testing.assert_allclose(maps[0].affine, AFFINE.numpy())
    np.testing.assert_allclose(maps[0].get_fdata() + maps[1].get_fdata(), 1, atol=1e-4)
    assert not list((tmp_path / "pictures").glob("gate_t*"))


@torch.no_grad()
def test_a_volume_is_the_mean_of_the_blocks_at_its_place(tmp_path):
    network = build()
    handler = evaluate(network, tmp_path, items=data(("CT",)), volumes=True)
    image = PREPROCESSING(data(("CT",))[0])["image"].as_tensor()
    outputs = network.network(image[None, ..., 1], torch.tensor([0]), torch.tensor([0]))
    larger = [torch.nn.functional.interpolate(r.weights, (64, 64), mode="bilinear") for r in outputs.routings]
    expected = torch.stack(larger).mean(0)[0].flip(1)  # back to L from R
    folder = tmp_path / "evaluation" / "gate_maps" / "t_k_fd4d09f6"
    found = nibabel.load(folder / "0_expert-MR.nii.gz").get_fdata()[..., 1]
    # the inverse halves the second axis again; a mean of neighbours stands for its interpolation
    halved = torch.nn.functional.interpolate(expected[None], (64, 32), mode="bilinear")[0, 1]
    np.testing.assert_allclose(found, halved, atol=1e-3)
    drawn = handler.slices[0]
    at = next(z for z in range(4) if np.allclose(drawn.image, image[0, ..., z]))
    outputs = network.network(image[None, ..., at], torch.tensor([0]), torch.tensor([0]))
    area = [(network(image[None])[0].argmax(0)[..., z] > 0).sum() for z in range(4)]
    assert area[at] == max(area) and drawn.foreground.sum() == max(area)
    decoder = [torch.nn.functional.interpolate(r.weights, (64, 64), mode="bilinear")[0] for r in outputs.routings[4:]]
    np.testing.assert_allclose(drawn.maps["decoder"], torch.stack(decoder).mean(0), atol=1e-5)


def test_without_the_transform_volumes_lie_on_the_networks_grid(tmp_path):
    network = build()
    evaluate(network, tmp_path, items=data(("CT",)), volumes=True, transform=None)
    found = nibabel.load(tmp_path / "evaluation" / "gate_maps" / "t_k_fd4d09f6" / "0_expert-CT.nii.gz")
    assert found.shape == (64, 64, 4)
    np.testing.assert_allclose(found.affine, PREPROCESSING(data(("CT",))[0])["image"].affine)


def test_hard_routing_has_a_trivial_table_and_no_maps(tmp_path, caplog):
    handler = evaluate(build(gate="none"), tmp_path, volumes=True)
    rows = table(tmp_path)
    for (modality, _, expert), row in rows.items():
        assert float(row["mean_weight"]) == float(row["asked"]) == (modality == expert)
    summary = json.loads((tmp_path / "evaluation" / "gate_usage.json").read_text())
    assert not summary["learned"] and summary["warnings"] == [] and not handler.slices
    assert rows["MR", "encoder 0.0", "MR"]["tokens"] == str(4 * 16 * 16)
    assert not (tmp_path / "evaluation" / "gate_maps").exists()


def test_one_choice_per_image_has_a_table_and_no_maps(tmp_path):
    handler = evaluate(build(gate_input="image_mean"), tmp_path)
    rows = table(tmp_path)
    assert handler.learned and not handler.slices
    assert rows["CT", "encoder 0.0", "MR"]["tokens"] == str(2 * 4 * 16 * 16)
    means = [float(rows["CT", "encoder 0.0", e]["mean_weight"]) for e in NAMES]
    assert sum(means) == pytest.approx(1, abs=1e-5)
    assert means == pytest.approx(naive(build(gate_input="image_mean"), 0, "CT")[0], abs=1e-4)


@pytest.mark.parametrize("options", [{"gate": "channel_official"}, {"moe_encoder": False, "moe_decoder": False}])
def test_without_a_choice_there_is_one_line_and_nothing_else(tmp_path, caplog, options):
    with caplog.at_level(logging.INFO, "common.methods.m4oe.gate_maps"):
        evaluate(build(**options), tmp_path)
    assert [r.message for r in caplog.records if "gates" in r.message] == [
        "the network has no gates that choose between experts: there is nothing to record"
    ]
    assert not list(tmp_path.iterdir())


def test_an_unasked_expert_is_named(tmp_path, caplog):
    network = build()
    for name, parameter in network.named_parameters():
        if ".gate." in name:
            torch.nn.init.zeros_(parameter)
            if name.endswith("bias"):
                parameter.data[1] = -10.0
    evaluate(network, tmp_path, data(("CT", "MR")))
    (entry,) = json.loads((tmp_path / "evaluation" / "gate_usage.json").read_text())["warnings"]
    assert entry["expert"] == "MR" and entry["kind"] == "idle"
    assert [r.levelname for r in caplog.records if r.getMessage() == entry["message"]] == ["WARNING"]


def test_hooks_are_there_only_during_the_run(tmp_path):
    network, seen = build(), []
    handler = GateMaps(network=network, output_dir=tmp_path, modalities=NAMES)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data(), PREPROCESSING), batch_size=1),
        network=network,
        prepare_batch=prepare,
        val_handlers=[handler],
    )
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda _: seen.append(hooks(network)))
    evaluator.run()
    assert seen == [8, 8, 8] and hooks(network) == 0  # seven blocks and the input


def test_an_error_goes_on_and_leaves_no_hooks(tmp_path):
    network = build()

    def broken(_module, inputs):
        raise RuntimeError("no memory")

    handle = network.network.heads.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="no memory"):
        evaluate(network, tmp_path)
    handle.remove()
    assert hooks(network) == 0 and not (tmp_path / "evaluation").exists()
    handler = evaluate(network, tmp_path)
    assert len(handler.uses) == 3


def test_an_earlier_evaluation_is_removed_when_a_run_starts(tmp_path):
    network = build()
    evaluate(network, tmp_path, volumes=True)
    with pytest.raises(DataError, match="does not say its modality"):
        evaluate(network, tmp_path, [{k: v for k, v in data()[0].items() if k != "modality"}])
    assert not list((tmp_path / "pictures").glob("*.png"))
    assert not list((tmp_path / "evaluation").iterdir())
    assert json.loads((tmp_path / "pictures" / "captions.json").read_text()) == {}


def test_windows_have_no_maps(tmp_path, caplog):
    class Twice(SimpleInferer):
        def __call__(self, inputs, network, *args, **kwargs):
            super().__call__(inputs, network, *args, **kwargs)
            return super().__call__(inputs, network, *args, **kwargs)

    network = build()
    handler = GateMaps(network=network, output_dir=tmp_path, modalities=NAMES)
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data(), PREPROCESSING), batch_size=1),
        network=network,
        inferer=Twice(),
        prepare_batch=prepare,
        val_handlers=[handler],
    ).run()
    assert not handler.slices and len(handler.uses) == 3
    assert len([r for r in caplog.records if "no gate maps" in r.message]) == 1


@pytest.mark.parametrize("options", [{"every": 0}, {"cases": -1}])
def test_counts_are_refused(tmp_path, options):
    with pytest.raises(ConfigError, match="counted from the first"):
        GateMaps(network=build(), output_dir=tmp_path, modalities=NAMES, **options)


def test_networks_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no Swin-Unet"):
        GateMaps(network=torch.nn.Conv2d(1, 1, 1), output_dir=tmp_path, modalities=NAMES)
    handler = GateMaps(network=build(), output_dir=tmp_path, modalities=("CT",))
    with pytest.raises(ConfigError, match="one name per expert"):
        handler.start(None)


def test_batches_are_refused(tmp_path):
    network = build()
    handler = GateMaps(network=network, output_dir=tmp_path, modalities=NAMES)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data(), PREPROCESSING), batch_size=2),
        network=network,
        prepare_batch=prepare,
        val_handlers=[handler],
    )
    with pytest.raises(ConfigError, match="one volume at a time"):
        evaluator.run()
    assert hooks(network) == 0
