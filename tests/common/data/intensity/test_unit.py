import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.data.intensity.modality import intensities, window_of
from common.data.intensity.unit import UnitIntensityd
from common.errors import ConfigError, DataError

SCHEMES = {
    "CT": {"scheme": "CTNormalization", **window_of((-125, 275))},
    "MR": {"scheme": "ZScoreNormalization"},
    "photo": {"scheme": "RGBTo01Normalization"},
    "flat": {"scheme": "NoNormalization"},
}


def run(image, modality, **options):
    return UnitIntensityd("image", SCHEMES, **options)({"image": image, "modality": modality, "case": "c"})["image"]


def test_a_ct_has_fixed_bounds():
    image = torch.tensor([[[[-1000.0, -125.0, 75.0, 275.0, 3000.0]]]])
    assert run(image, "CT").flatten().tolist() == pytest.approx([0, 0, 0.5, 1, 1])


def test_others_have_their_own_percentiles_without_air():
    random = np.random.default_rng(0)
    values = random.normal(100, 20, 1000)
    image = torch.zeros(1, 20, 20, 10)
    image[0].view(-1)[:1000] = torch.from_numpy(values).float()
    found = run(image, "MR")
    low, high = (np.sort(values.astype(np.float32))[round(q * 999)] for q in (0.005, 0.995))
    twin = ((image.numpy().clip(low, high) - low) / (high - low)).clip(0, 1)
    assert np.abs(found.numpy() - twin).max() < 0.01 and 0 <= float(found.min()) <= float(found.max()) <= 1
    more_air = torch.cat([image, torch.zeros_like(image)], 1)
    assert torch.equal(run(more_air, "MR")[:, :20], found)


def test_pictures_and_what_is_normalised_already():
    assert run(torch.full((3, 2, 2, 1), 51.0), "photo").unique().tolist() == pytest.approx([0.2])
    assert torch.equal(run(torch.full((1, 2, 2, 1), 0.3), "flat"), torch.full((1, 2, 2, 1), 0.3))
    assert not run(torch.full((1, 2, 2, 1), 7.0), "MR").any()


def test_geometry_stays():
    affine = torch.diag(torch.tensor([2.0, 3, 4, 1]))
    found = run(MetaTensor(torch.rand(1, 3, 3, 3), affine=affine), "MR")
    assert isinstance(found, MetaTensor) and torch.equal(found.affine, affine.double()) and found.dtype == torch.float32


def test_what_cannot_be_normalised():
    with pytest.raises(DataError, match="PET"):
        run(torch.rand(1, 2, 2, 2), "PET")
    with pytest.raises(DataError, match="NaN"):
        run(torch.full((1, 2, 2, 2), torch.nan), "CT")
    with pytest.raises(ConfigError, match="PET"):
        UnitIntensityd("image", SCHEMES, default="PET")
    image = torch.zeros(1, 1, 1, 1)
    result = UnitIntensityd("image", SCHEMES, default="CT")({"image": image})
    assert float(result["image"]) == pytest.approx(125 / 400) and result["modality"] == "CT"


def test_a_window_takes_the_place_of_labels(make_dataset, tmp_path):
    make_dataset("ct", 3)
    found = intensities(tmp_path, ct_window=(-125, 275))["CT"]
    assert (found["percentile_00_5"], found["percentile_99_5"], found["mean"]) == (-125, 275, 75)
    for wrong in ((5, 5), (1, 0), (1,)):
        with pytest.raises(ConfigError, match="window"):
            window_of(wrong)
    with pytest.raises(ConfigError, match="window"):
        intensities(tmp_path, ct_window=[])
