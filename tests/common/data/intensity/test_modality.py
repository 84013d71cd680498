import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.data.datasets.datalist import read_collection
from common.data.intensity.modality import NormalizeModalityd, intensities, scheme_of
from common.data.io import read_volume
from common.errors import DataError


@pytest.fixture
def both(make_dataset, tmp_path):
    make_dataset("ct", 4)
    make_dataset("mr", modality={"0": "T2 MR"})
    return tmp_path


def test_a_ct_learns_from_its_annotated_training_voxels(both):
    found = intensities(both)
    assert found["T2 MR"] == {"scheme": "ZScoreNormalization"}
    values = []
    for case in read_collection(both).dataset("ct").cases("training"):
        image, label = read_volume(case.images), read_volume(case.label)
        values += [float(v) for v, k in zip(image.flatten(), label.flatten(), strict=True) if k > 0]
    mean = sum(values) / len(values)
    assert found["CT"]["mean"] == pytest.approx(mean, rel=1e-6)
    assert found["CT"]["std"] == pytest.approx((sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5, rel=1e-5)
    ordered = sorted(values)
    place = 0.995 * (len(ordered) - 1)
    high = ordered[int(place)] + (place % 1) * (ordered[int(place) + 1] - ordered[int(place)])
    assert found["CT"]["percentile_99_5"] == pytest.approx(high, rel=1e-6)


@pytest.mark.parametrize("name", ["CTA", "NCCT", "CECT", "abdominal CT"])
def test_synonyms_of_ct_are_ct(make_dataset, name):
    found = intensities(make_dataset("a", modality={"0": name}))
    assert found[name]["scheme"] == "CTNormalization" and found[name]["percentile_00_5"] < found[name]["mean"]
    assert scheme_of(name, dim=2).__name__ == "ZScoreNormalization"  # pictures have no HU
    assert scheme_of("CT", dim=2).__name__ == "CTNormalization" and scheme_of("CT or MR").__name__.startswith("ZScore")


def test_each_case_is_normalised_by_its_modality(both):
    found = intensities(both)
    image = MetaTensor(torch.randn(1, 4, 5, 6) * 50 + 100, affine=torch.diag(torch.tensor([2.0, 2, 3, 1])))
    transform = NormalizeModalityd("image", found)
    ct = transform({"image": image, "modality": "CT"})["image"]
    own = found["CT"]
    for at in ((0, 0, 0, 0), (0, 3, 4, 5), (0, 1, 2, 3)):
        clipped = min(max(float(image[at]), own["percentile_00_5"]), own["percentile_99_5"])
        assert float(ct[at]) == pytest.approx((clipped - own["mean"]) / own["std"], abs=1e-5)
    assert torch.equal(ct.affine, image.affine) and ct.dtype == torch.float32
    mr = NormalizeModalityd("image", found, default="T2 MR")({"image": image})["image"]
    assert float(mr.mean()) == pytest.approx(0, abs=1e-5) and float(np.std(mr.numpy())) == pytest.approx(1, abs=1e-5)


def test_refusals(both, make_dataset, tmp_path):
    transform = NormalizeModalityd("image", intensities(both))
    for data in ({"image": torch.ones(1, 2, 2, 2)}, {"image": torch.ones(1, 2, 2, 2), "modality": "PET"}):
        with pytest.raises(DataError, match="no normalisation"):
            transform(data)
    with pytest.raises(DataError, match="NaN"):
        transform({"image": torch.full((1, 2, 2, 2), torch.nan), "modality": "CT"})
    empty = make_dataset("empty", labels={"background": 0, "nothing": 9})
    for file in (empty / "labels").iterdir():
        from common.data.io import write_label_map
        from common.geometry import Grid

        volume = read_volume(file)
        write_label_map(np.zeros(volume.shape[1:], np.uint8), Grid.of(volume), file, "uint8")
    with pytest.raises(DataError, match="no annotated voxel"):
        intensities(empty)


def test_statistics_of_the_same_files_are_remembered(phantom_dir, tmp_path, monkeypatch):
    from common.data.intensity import modality
    from common.data.store.place import Store

    store = Store(store_dir=tmp_path)
    wanted = modality.intensities(phantom_dir)
    assert modality.intensities(phantom_dir, store=store) == wanted
    monkeypatch.setattr(modality, "read_volume", None)
    assert modality.intensities(phantom_dir, store=store) == wanted
