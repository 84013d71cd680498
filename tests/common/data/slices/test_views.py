import pickle

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.data.utils import set_rnd
from monai.transforms import Compose, RandFlipd
from monai.utils import set_determinism

from common.data.slices.views import SliceViews, StoredSlices
from common.data.store.place import Store
from common.errors import ConfigError, DataError


class Volumes(list):
    """Volumes that count how often they are loaded."""

    loads = 0

    def __getitem__(self, i):
        self.loads += 1
        return super().__getitem__(i)


class Known:
    """Makes the volume of a case that is named; larger than what is kept in the text."""

    def __call__(self, item):
        volume = next(dict(v) for v in volumes() if v["case"] == item["case"])
        return {**volume, "image": volume["image"].repeat(400, 1, 1, 1)[:800]}


def volumes():
    result = []
    for i, depth in enumerate((3, 5)):
        image = torch.arange(2 * 4 * 5 * depth, dtype=torch.float32).reshape(2, 4, 5, depth) + 1000 * i
        label = torch.zeros(1, 4, 5, depth)
        label[0, 1:3, 1:3, 1] = 1 if i == 0 else 0
        result.append({"image": MetaTensor(image), "label": label, "case": f"c{i}"})
    return Volumes(result)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_equals_naive_slicing(axis):
    data = volumes()
    views = SliceViews(data, axis=axis)
    naive = [(i, k) for i in range(2) for k in range(data[i]["image"].shape[axis + 1])]
    assert len(views) == len(naive)
    for item, (i, k) in zip((views[n] for n in range(len(views))), naive, strict=True):
        for key in ("image", "label"):
            expected = np.take(np.asarray(list.__getitem__(data, i)[key]), k, axis=axis + 1)
            assert np.array_equal(item[key], expected)
        assert (item["case"], item["slice"]) == (f"c{i}", k)


def test_annotated_only_keeps_a_middle_slice_of_empty_volumes():
    assert SliceViews(volumes(), annotated_only=True).index == [(0, 1), (1, 2)]


def test_a_volume_in_a_row_is_loaded_once():
    data = volumes()
    views = SliceViews(data)
    data.loads = 0
    for n in range(len(views)):
        views[n]
    assert data.loads == 2


def double(item):
    return {**item, "image": item["image"] * 2}


def test_transform_and_pickle():
    views = SliceViews(volumes(), transform=double)
    plain = SliceViews(volumes())
    again = pickle.loads(pickle.dumps(views))
    assert torch.equal(again[4]["image"], plain[4]["image"] * 2)


def test_every_slice_draws_its_own_random_parts_in_a_seeded_run():
    flip = Compose([RandFlipd(["image", "label"], prob=0.5, spatial_axis=a) for a in (0, 1)])
    views, drawn = SliceViews(volumes(), transform=flip), []
    set_determinism(seed=9)
    try:
        for seed in (1, 1, 2):
            set_rnd(views, seed)
            drawn.append([[t._do_transform for t in flip.transforms] for n in range(len(views)) if views[n]])
    finally:
        set_determinism(seed=None)
    assert drawn[0] == drawn[1] != drawn[2] and len({tuple(d) for d in drawn[0]}) > 1


def test_slices_do_not_share_memory_with_the_volume():
    views = SliceViews(volumes())
    views[0]["image"].zero_()
    assert views[0]["image"].abs().sum() > 0


def test_refusals():
    with pytest.raises(ConfigError, match="axis"):
        SliceViews(volumes(), axis=3)
    with pytest.raises(DataError, match="volumes of one size"):
        SliceViews([{"image": torch.zeros(1, 4, 4)}])
    with pytest.raises(DataError, match="c7"):
        SliceViews([{"image": torch.zeros(1, 4, 4, 4), "label": torch.zeros(1, 4, 4, 5), "case": "c7"}])


@pytest.mark.parametrize(("axis", "kept"), [(2, "memory"), (2, "disk"), (0, "disk")])
def test_stored_slices_equal_slices_of_preprocessed_volumes(axis, kept, tmp_path):
    chain, files = Compose([Known(), double]), [{"case": v["case"]} for v in volumes()]
    wanted = SliceViews([chain(f) for f in files], axis=axis, transform=lambda d: d["image"] + 1)
    store = None if kept == "memory" else Store(store_dir=tmp_path)
    found = StoredSlices(files, chain, lambda d: d["image"] + 1, store=store, axis=axis)
    assert len(found) == len(wanted) and len(found.data) == 2 and found.item_of(0)["case"] == "c0"
    assert all(torch.equal(found[i], wanted[i]) for i in range(len(wanted)))
    annotated = StoredSlices(files, chain, store=store, axis=axis, annotated_only=True)
    assert annotated.index == SliceViews(volumes(), axis=axis, annotated_only=True).index
    with pytest.raises(DataError, match="no volumes"):
        StoredSlices([], Compose([double]))


def test_a_damaged_volume_is_prepared_again(tmp_path):
    files, store = [{"case": f"c{i}"} for i in range(2)], Store(store_dir=tmp_path)
    found = StoredSlices(files, Known(), store=store, keys=["image"])
    wanted = [found[i]["image"] for i in range(len(found))]
    for file in tmp_path.rglob("*.b2nd"):
        file.write_bytes(b"\0" * file.stat().st_size)
    assert all(torch.equal(found[i]["image"], w) for i, w in enumerate(wanted))
