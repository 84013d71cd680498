"""Single objects of labelled volumes: which there are, where their crops lie, and what is in them."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.data.utils import set_rnd
from monai.transforms import Compose, EnsureTyped, Orientationd, RandFlipd
from monai.utils import set_determinism

from common.data.prompts.crops import z_score_positive
from common.data.prompts.objects import ClampModalityd, ObjectCrops
from common.data.store.place import Store
from common.data.transforms.transforms import SafeSpacingd
from common.errors import ConfigError, DataError
from common.labels import LabelSpace
from common.prompts import boxes_from_label

LABELS = LabelSpace(("liver", "spleen", "kidney"))


def volume(name="a", shape=(30, 26, 22), affine=None):
    """A scan with a block of liver, one of spleen at the rim, and a ring of kidney around nothing."""
    random = torch.Generator().manual_seed(len(name))
    label = torch.zeros(1, *shape)
    label[0, 3:13, 4:14, 5:15] = 1
    label[0, -3:, -4:, -5:] = 2
    label[0, 16:24, 2:10, 2:10] = 3
    label[0, 18:22, 4:8, :] = 0
    image = torch.randn(1, *shape, generator=random) * 50 + 20 * label
    affine = torch.eye(4).double() if affine is None else affine
    return {"image": MetaTensor(image, affine=affine), "label": MetaTensor(label, affine=affine),
            "case": name, "task": "t", "modality": "CT"}  # fmt: skip


def crops(data=None, **options):
    data = [volume("a"), volume("bb")] if data is None else data
    return ObjectCrops(data, dict, **{"size": 16, "labels": LABELS, "min_voxels": 1, **options})


def naive_crop(array, centre, size):
    """Voxel by voxel."""
    start = [int(np.floor(c + 0.5)) - size // 2 for c in centre]
    found = np.zeros((size,) * 3)
    for i in np.ndindex(*found.shape):
        at = tuple(s + k for s, k in zip(start, i, strict=True))
        if all(0 <= a < n for a, n in zip(at, array.shape, strict=True)):
            found[i] = array[at]
    return found


def test_every_structure_of_every_volume_is_an_item():
    data = crops()
    assert len(data) == 6 and data.names == ["liver", "spleen", "kidney"] * 2
    assert [(data[i]["case"], data[i]["structure"]) for i in range(6)] == [
        (c, s) for c in ("a", "bb") for s in (1, 2, 3)
    ]


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("size", [8, 16])
def test_a_crop_is_centred_on_its_object(position, size):
    data, source = crops(size=size), volume("a")
    item, label = data[position], source["label"][0].numpy()
    where = np.argwhere(label == position + 1)
    centre = (where.min(0) + where.max(0)) / 2
    wanted = naive_crop(label == position + 1, centre, size)
    image = torch.from_numpy(naive_crop(source["image"][0].numpy(), centre, size)).float()
    assert np.array_equal(item["label"][0].numpy(), wanted) and item["label"].dtype == torch.float32
    positive = image[image > 0]
    torch.testing.assert_close(item["image"][0], (image - positive.mean()) / positive.std(), rtol=1e-5, atol=1e-5)
    inside = np.argwhere(wanted)
    assert item["box"].tolist() == [inside.min(0).tolist(), inside.max(0).tolist()]
    assert item["name"] == LABELS.names[position] and item["task"] == "t" and item["expert"] == 0


def test_a_ring_around_its_crop_moves_it_to_the_nearest_part():
    hollow = volume("a")
    hollow["label"] = MetaTensor(torch.zeros(1, 30, 26, 22), affine=torch.eye(4))
    hollow["label"][0, 2] = hollow["label"][0, 27] = 3
    data = crops([hollow], size=8)
    where = hollow["label"][0].nonzero().double()
    middle = torch.tensor([14.5, 12.5, 10.5])
    start = torch.tensor(data.index[0].start)
    centre = start + 4  # a crop of even size has its centre behind its middle
    assert float((centre - middle).norm()) == pytest.approx(float((where - middle).norm(dim=1).min()), abs=1)
    assert data[0]["label"].any() and not bool(data[0]["box"].isnan().any())


def test_structures_are_chosen_excluded_and_left_out_when_small():
    assert set(crops(structures=["spleen", "liver"]).names) == {"liver", "spleen"}
    assert set(crops(exclude=["liver"]).names) == {"spleen", "kidney"}
    assert set(crops(structures=["liver", "kidney"], exclude=["liver"]).names) == {"kidney"}
    sizes = {k: int((volume("a")["label"] == k).sum()) for k in (1, 2, 3)}
    assert sizes[2] == 60 and set(crops(min_voxels=61).names) == {"liver", "kidney"}
    assert "spleen" in crops(min_voxels=60).names
    for options in ({"structures": ["lung"]}, {"exclude": ["lung"]}):
        with pytest.raises(ConfigError, match=r"(?s)no such structures.*lung.*liver, spleen, kidney"):
            crops(**options)
    with pytest.raises(DataError, match=r"(?s)no object to train on.*--min_voxels"):
        crops(min_voxels=5000)


def test_experts_are_numbered_from_one():
    data = crops(experts=[["kidney", "pancreas"], ["liver"]])
    assert {data[i]["name"]: data[i]["expert"] for i in range(3)} == {"liver": 2, "spleen": 0, "kidney": 1}
    with pytest.raises(ConfigError, match="two experts"):
        crops(experts=[["liver"], ["spleen", "liver"]])


def test_an_expert_of_nothing_in_the_data_is_named(caplog):
    crops(experts=[["liver"]])
    assert "expert" not in caplog.text
    data = crops(experts=[["liver"], ["left lung"]])
    assert "expert 2 knows left lung, which these data lack" in caplog.text
    assert {item["expert"] for item in data} <= {0, 1}


def test_weights_balance_structures():
    data = crops([volume("a"), volume("bb"), {**volume("c"), "label": volume()["label"] * (volume()["label"] == 1)}])
    total = dict.fromkeys(LABELS.names, 0.0)
    for name, weight in zip(data.names, data.weights.tolist(), strict=True):
        total[name] += weight
    assert list(total.values()) == pytest.approx([1.0, 1.0, 1.0]) and data.names.count("liver") == 3


def test_random_parts_come_before_box_and_z_score():
    flip = Compose([RandFlipd(["image", "label"], prob=1.0, spatial_axis=0)])
    plain, turned = crops()[1], crops(transform=flip)[1]
    assert torch.equal(turned["label"], plain["label"].flip(1))
    torch.testing.assert_close(turned["image"], plain["image"].flip(1))
    assert torch.equal(turned["box"], boxes_from_label(turned["label"], 1)[0])
    assert not isinstance(turned["image"], MetaTensor)


def test_random_parts_follow_a_seed():
    """As :class:`~common.engine.run.seeding.SeedEachEpoch` seeds a data set, in a run that is seeded as a whole."""
    maybe = Compose([RandFlipd(["image", "label"], prob=0.5, spatial_axis=a) for a in range(3)])
    data, drawn = crops(transform=maybe), []
    set_determinism(seed=99)
    try:
        for seed in (3, 3, 4):
            set_rnd(data, seed)
            drawn.append([])
            for i in range(6):
                data[i]
                drawn[-1].append([t._do_transform for t in maybe.transforms])
    finally:
        set_determinism(seed=None)
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({tuple(flips) for flips in drawn[0]}) > 2  # every item draws its own


class Prepared:
    """Gives the volume of a case that is named, and counts."""

    def __init__(self, log):
        self.log = log

    def chain_identity(self):
        return {}

    def __call__(self, item):
        with self.log.open("a") as file:
            file.write(item["case"])
        return {**item, **volume(item["case"])}


def test_crops_of_the_store_are_those_of_memory_and_volumes_are_prepared_once(tmp_path):
    items, chain = [{"case": "a"}, {"case": "bb"}], Prepared(tmp_path / "log")
    options = {"size": 16, "labels": LABELS, "min_voxels": 1}
    wanted = ObjectCrops([volume("a"), volume("bb")], dict, **options)
    for _ in range(2):
        found = ObjectCrops(items, chain, store=Store(store_dir=tmp_path / "s"), **options)
        assert found.index == wanted.index and found.item_of(0)["case"] == wanted[0]["case"]
        for one, other in zip(found, wanted):
            assert torch.equal(one["label"], other["label"]) and torch.equal(one["box"], other["box"])
            assert torch.allclose(one["image"], other["image"], atol=2e-3)
    assert sorted((tmp_path / "log").read_text()) == ["a", "b", "b"]
    for file in (tmp_path / "s").rglob("*.b2nd"):
        file.write_bytes(b"\0" * file.stat().st_size)
    assert torch.equal(found[len(found) - 1]["label"], wanted[len(wanted) - 1]["label"])


def test_only_one_channel(tmp_path):
    two = volume("a")
    two["image"] = torch.cat([two["image"]] * 2)
    with pytest.raises(DataError, match=r"(?s)one channel.*2 channels"):
        crops([two])


def test_a_session_encodes_the_very_crop_that_was_trained_on():
    """Training and inference prepare images in one way, on an oblique grid too."""
    from common.engine.interactive.encoded_volume import EncodedVolume

    turn = torch.eye(4).double()
    turn[:3, :3] = torch.tensor([[-0.96, 0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.3]], dtype=torch.float64)
    scan = volume("a", affine=turn)
    chain = Compose([
        ClampModalityd("image", {"CT": [-30, 60]}),
        Orientationd(["image", "label"], axcodes="RAS", labels=None),
        SafeSpacingd(["image", "label"], pixdim=[1.5] * 3, mode=["bilinear", "nearest"]),
        EnsureTyped(["image", "label"]),
    ])  # fmt: skip
    data = ObjectCrops([scan], chain, size=16, labels=LABELS, min_voxels=1)

    class Network:
        image_size, boxes = 16, False

        def encode(self, image):
            return image

    session = EncodedVolume(network=Network(), image=scan["image"], spacing=1.5, clip=[-30, 60])
    for i in range(len(data)):
        torch.testing.assert_close(session.embedding(data.index[i].start)[0], data[i]["image"], rtol=1e-5, atol=1e-5)


def test_z_score_of_positive_voxels_is_the_crop_s_own():
    crop = torch.tensor([[[[-5.0, 1.0], [3.0, 0.0]]]])
    expected = (crop - 2.0) / torch.tensor([1.0, 3.0]).std()
    torch.testing.assert_close(z_score_positive(crop), expected)


def test_clipping_by_modality():
    image = torch.tensor([[[[-2000.0, 3000.0]]]])
    clip = ClampModalityd("image", {"CT": [-1000, 1000], "LGE": [0, 5]})
    assert clip({"image": image, "modality": "CT"})["image"].flatten().tolist() == [-1000, 1000]
    assert clip({"image": image, "modality": "T2"})["image"] is image
    assert clip({"image": image})["image"] is image
    known = ClampModalityd("image", {"CT": [-1000, 1000]}, default="CT")
    assert known({"image": image})["image"].max() == 1000
    assert known({"image": image, "modality": "T2"})["image"].max() == 3000
    for pair in ([5, 5], [1, 0], [1]):
        with pytest.raises(ConfigError, match=r"(?s)lower and an upper bound.*CT|CT.*lower and an upper"):
            ClampModalityd("image", {"CT": pair})
