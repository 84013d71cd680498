"""Pictures of every kind that people have, and files that are none."""

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.intensity.unit import UnitIntensityd, picture_schemes
from common.data.io import read_volume
from common.data.pictures import is_picture, read_picture
from common.errors import ConfigError, DataError
from common.geometry import Grid

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 255, (6, 9, 3), dtype=np.uint8)  # 6 rows of 9
GREY = COLOUR[..., 0]


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".PNG"])
@pytest.mark.parametrize("array", [COLOUR, GREY], ids=["colour", "grey"])
def test_lossless_formats_are_the_same(tmp_path, suffix, array):
    found = read_picture(saved(tmp_path / f"a{suffix}", array))
    expected = np.moveaxis(np.atleast_3d(array).astype(np.float32), (0, 1, 2), (2, 1, 0))
    assert np.array_equal(found.numpy(), expected) and found.dtype == torch.float32
    assert Grid.of(found).same_as(Grid((9, 6), np.eye(3)))  # TIFF lies where PNG lies
    assert found.meta["filename_or_obj"].endswith(suffix)


def test_jpeg_is_nearly_the_same(tmp_path):
    smooth = np.repeat(np.linspace(0, 250, 16, dtype=np.uint8)[:, None], 16, 1)
    found = read_picture(saved(tmp_path / "a.jpeg", smooth))
    assert found.shape == (1, 16, 16) and np.abs(found.numpy()[0].T - smooth).max() < 8


def test_channels_that_are_wanted(tmp_path):
    grey, colour = saved(tmp_path / "g.png", GREY), saved(tmp_path / "c.png", COLOUR)
    same = saved(tmp_path / "s.png", np.stack([GREY] * 3, -1))
    assert read_volume(grey, dim=2, channels=("R", "G", "B")).shape == (3, 9, 6)
    assert read_volume(same, dim=2).shape == (1, 9, 6)
    with pytest.raises(DataError, match="too many channels"):
        read_volume(colour, dim=2)
    with pytest.raises(DataError, match="missing channel b"):
        read_volume(grey, dim=2, channels=("a", "b"))


def test_palettes_are_indices_or_colours(tmp_path):
    picture = Image.fromarray(GREY % 3, mode="P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture.save(tmp_path / "p.png")
    assert sorted(read_volume(tmp_path / "p.png", dim=2).unique().tolist()) == [0, 1, 2]
    colours = read_volume(tmp_path / "p.png", dim=2, channels=("R", "G", "B"))
    assert colours[:, 0, 0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]][GREY[0, 0] % 3]


def test_depths_and_colour_spaces(tmp_path):
    deep = (GREY.astype(np.uint16)) * 200
    assert np.array_equal(read_picture(saved(tmp_path / "d.png", deep)).numpy()[0].T, deep)
    assert read_picture(saved(tmp_path / "b.png", GREY > 100)).unique().tolist() == [0, 1]
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "c.tif")
    assert np.abs(read_picture(tmp_path / "c.tif").numpy().T - COLOUR).max() < 8
    Image.fromarray(COLOUR).convert("RGBA").save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png").numpy().transpose(2, 1, 0), COLOUR)
    Image.fromarray(GREY).convert("LA").save(tmp_path / "la.png")
    assert np.array_equal(read_picture(tmp_path / "la.png").numpy()[0].T, GREY)


def test_what_is_no_picture_is_refused_by_name(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    whole = saved(tmp_path / "whole.png", RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    saved(tmp_path / "many.tif", GREY, save_all=True, append_images=[Image.fromarray(GREY)])
    glass = np.dstack([COLOUR, np.full(GREY.shape, 100, np.uint8)])
    saved(tmp_path / "glass.png", glass)
    for name, part in (("text.png", "cannot be read"), ("cut.png", "cannot be read"), ("many.tif", "several pictures"),
                       ("glass.png", "transparent")):  # fmt: skip
        with pytest.raises(DataError, match=rf"(?s){name}.*{part}"):
            read_volume(tmp_path / name, dim=2)
    with pytest.raises(DataError, match="2-D"):
        read_volume(saved(tmp_path / "flat.png", GREY))
    assert is_picture("A.JPG") and not is_picture("a.nii.gz")


def test_eight_bits_become_0_to_1(phantom_2d_dir):
    schemes = picture_schemes(phantom_2d_dir / "phantom_2d_skin")
    change = UnitIntensityd("image", schemes)
    image = torch.tensor([0.0, 51, 255]).expand(3, 2, 3)
    assert change({"image": image, "modality": next(iter(schemes))})["image"][0, 0].tolist() == pytest.approx(
        [0, 0.2, 1]
    )
    with pytest.raises(DataError, match=r"(?s)case deep.*8 bits.*--intensity percentiles"):
        change({"image": image * 2, "modality": next(iter(schemes)), "case": "deep"})
    assert set(picture_schemes(phantom_2d_dir, "percentiles")) == {"CT slice", "T2 MR slice"}
    with pytest.raises(ConfigError, match="intensity"):
        picture_schemes(phantom_2d_dir, "auto")
