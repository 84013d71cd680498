import numpy as np
import pytest
import torch
from monai.data.utils import set_rnd
from scipy.ndimage import map_coordinates

from common.data.store.entry import read_entry, write_entry
from common.data.store.layout import Reading
from common.data.transforms.crops import RandomCropsd, flippable
from common.data.transforms.positions import ForegroundPositionsd
from common.errors import ConfigError, DataError
from common.labels import LabelSpace


@pytest.fixture
def case():
    rng = torch.Generator().manual_seed(0)
    image = torch.rand((2, 40, 36, 30), generator=rng)
    label = torch.zeros(1, 40, 36, 30)
    label[0, 5:25, 5:25, 5:20] = 1
    label[0, 30:32, 30:32, 25:27] = 2
    return ForegroundPositionsd()({"image": image, "label": label, "case": "c", "task_id": 3})


def drawn(transform, case, seed):
    set_rnd(transform, seed)
    return transform(case)


def test_a_crop_is_a_part_of_the_volume(case):
    transform = RandomCropsd(["image", "label"], (16, 12, 10), prob=0.0, num_samples=3)
    for seed in range(10):
        for crop in drawn(transform, case, seed):
            assert crop["image"].shape == (2, 16, 12, 10) and crop["task_id"] == 3 and "positions" not in crop
            ((x, y, z),) = (case["image"] == crop["image"][:, :1, :1, :1]).all(0).nonzero().tolist()
            assert torch.equal(crop["image"], case["image"][:, x : x + 16, y : y + 12, z : z + 10])
            assert torch.equal(crop["label"], case["label"][:, x : x + 16, y : y + 12, z : z + 10])


@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_crops_of_the_store_are_crops_of_memory(case, tmp_path, prob):
    write_entry(tmp_path / "e", case, Reading.crops(16), {})
    stored = read_entry(tmp_path / "e")
    transform = RandomCropsd(["image", "label"], (16, 16, 16), prob=prob)
    for seed in range(12):
        (wanted,), (found,) = drawn(transform, case, seed), drawn(transform, stored, seed)
        assert torch.equal(found["label"], wanted["label"])
        assert torch.allclose(found["image"], wanted["image"], atol=2**-15, rtol=0)


def test_small_structures_are_met_as_often_as_large_ones(case):
    transform = RandomCropsd(["label"], (5, 5, 5), pos=1, neg=0, prob=0.0)
    middles = [float(drawn(transform, case, s)[0]["label"][0, 2, 2, 2]) for s in range(400)]
    assert abs(middles.count(2.0) / 400 - 0.5) < 0.1 and abs(middles.count(1.0) / 400 - 0.5) < 0.1
    transform = RandomCropsd(["label"], (5, 5, 5), pos=1, neg=1, prob=0.0)
    middles = [float(drawn(transform, case, s)[0]["label"][0, 2, 2, 2]) for s in range(400)]
    assert abs(middles.count(0.0) / 400 - 0.5) < 0.1


def naive(volume, size, middle, turn, order):
    index = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in size], indexing="ij"))
    where = np.tensordot(turn, index, 1) + np.array(middle).reshape(-1, *[1] * len(size))
    return map_coordinates(volume, where, order=order, mode="nearest")


def test_a_turned_crop_against_its_naive_twin(case):
    transform = RandomCropsd(["image", "label"], (12, 11, 10), prob=1.0, pos=1, neg=0)
    for seed in range(6):
        set_rnd(transform, seed)
        middle, turn = transform._middle(case), transform._turn()
        low = transform._within(middle - np.array((12, 11, 10)) // 2, np.array((40, 36, 30)))
        centre = np.array(low) + (np.array((12, 11, 10)) - 1) / 2
        (crop,) = drawn(transform, case, seed)
        for channel in range(2):
            wanted = naive(case["image"][channel].numpy(), (12, 11, 10), centre, turn, 1)
            assert np.abs(crop["image"][channel].numpy() - wanted).max() < 1e-3
        wanted = naive(case["label"][0].numpy(), (12, 11, 10), centre, turn, 0)
        assert (crop["label"][0].numpy() != wanted).mean() < 0.02 and set(crop["label"].unique().tolist()) <= {0, 1, 2}


def test_angles_and_factors_stay_within_their_bounds():
    transform = RandomCropsd(["image"], (8, 8, 8), prob=1.0)
    factors = []
    for seed in range(300):
        transform.set_random_state(seed)
        factors.append(abs(np.linalg.det(transform._turn())) ** (-1 / 3))
    assert min(factors) >= 0.7 and max(factors) <= 1.4 and 0.4 < np.mean(np.array(factors) > 1) < 0.6
    transform = RandomCropsd(["image"], (8, 8, 8), prob=0.2)
    straight = []
    for seed in range(400):
        transform.set_random_state(seed)
        straight.append(transform._turn() is None)
    assert abs(np.mean(straight) - 0.64) < 0.08


def test_a_volume_that_is_too_small_lies_in_the_middle(case):
    (crop,) = drawn(RandomCropsd(["image", "label"], (50, 36, 30), prob=0.0), case, 0)
    assert torch.equal(crop["image"][:, 5:45], case["image"]) and not crop["image"][:, :5].any()


def test_two_dimensions():
    image, label = torch.rand((2, 1, 30, 20), generator=torch.Generator().manual_seed(0))
    case = ForegroundPositionsd()({"image": image, "label": (label > 0.9).float()})
    size = np.array((9, 8))
    for prob in (0.0, 1.0):
        transform = RandomCropsd(["image", "label"], (9, 8), prob=prob)
        for seed in range(6):
            set_rnd(transform, seed)
            middle, turn = transform._middle(case), transform._turn()
            centre = np.array(transform._within(middle - size // 2, np.array((30, 20)))) + (size - 1) / 2
            (crop,) = drawn(transform, case, seed)
            assert crop["image"].shape == crop["label"].shape == (1, 9, 8) and (turn is None) == (prob == 0)
            turn = np.eye(2) if turn is None else turn
            wanted = naive(case["image"][0].numpy(), (9, 8), centre, turn, 1)
            assert np.abs(crop["image"][0].numpy() - wanted).max() < 1e-3
            assert np.array_equal(crop["label"][0].numpy(), naive(case["label"][0].numpy(), (9, 8), centre, turn, 0))


def test_flips_that_would_swap_names_are_left_out():
    assert flippable(LabelSpace(["liver", "upright"])) == (0, 1, 2)
    assert flippable(LabelSpace(["left kidney", "liver"])) == (1, 2)
    assert flippable(LabelSpace(["kidney_R"]), "PIR") == (0, 1)
    assert flippable(LabelSpace(["right lung"]), None) == () and flippable(LabelSpace(["liver"]), None) == (0, 1, 2)


def test_impossible_settings_are_refused(case):
    for options in ({"num_samples": 0}, {"pos": 0, "neg": 0}, {"scale": (0, 1)}, {"prob": 2}, {"rotate": -1}):
        with pytest.raises(ConfigError):
            RandomCropsd(["image"], (8, 8, 8), **options)
    with pytest.raises(DataError, match=r"case c.*no positions"):
        RandomCropsd(["image"], (8, 8, 8))({k: v for k, v in case.items() if k != "positions"})
