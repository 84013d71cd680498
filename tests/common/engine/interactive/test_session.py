"""Sessions on scans of any grid: what is encoded, what comes back, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from common.data.io import write_volume
from common.engine.interactive.session import Session
from common.errors import ConfigError, DataError, PromptError

Build = Callable[..., Any]
OBLIQUE = np.array(
    [[0.0, -1.6, 0.2, 40.0], [1.1, 0.05, 0.1, -30.0], [0.03, 0.25, 2.4, 10.0], [0.0, 0.0, 0.0, 1.0]]
)  # rows mixed, one axis flipped, a few degrees off


def orthogonal(affine: np.ndarray) -> np.ndarray:
    """The same voxel sizes with axes at right angles."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    q, r = np.linalg.qr(affine[:3, :3] / sizes)
    result = affine.copy()
    result[:3, :3] = q * np.sign(np.diag(r)) * sizes
    return result


GRIDS = {
    "own": (np.diag([1.5, 1.5, 1.5, 1.0]), (48, 48, 48)),
    "fine LPS": (np.diag([-0.9, -0.9, 2.0, 1.0]), (76, 70, 34)),
    "swapped": (np.array([[0, 0, 1.3, -9.0], [-1.2, 0, 0, 80.0], [0, 1.7, 0, -20.0], [0, 0, 0, 1.0]]), (56, 40, 52)),
    "oblique": (orthogonal(OBLIQUE), (60, 44, 30)),
}


def scan(affine: np.ndarray, shape: tuple[int, ...], radius: float = 14.0) -> tuple[MetaTensor, Tensor, np.ndarray]:
    """A bright ball in the middle, in mm; its mask, and its centre in voxels."""
    centre = (np.array(shape) - 1) / 2
    at = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - centre
    distance = np.linalg.norm(at @ affine[:3, :3].T, axis=-1)
    ball = torch.from_numpy(distance < radius)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = (100.0 + 60.0 * ball + 3 * noise)[None].float()
    return MetaTensor(values, affine=torch.from_numpy(affine)), ball, centre


def overlap(mask: Tensor, ball: Tensor) -> float:
    a = mask.bool()
    return float(2 * (a & ball).sum() / (a.sum() + ball.sum()))


@pytest.mark.parametrize("grid", GRIDS)
def test_answers_lie_on_the_scan_whatever_its_grid(growing: Build, grid: str) -> None:
    image, ball, centre = scan(*GRIDS[grid])
    session = Session(network=growing(image_size=32), image=image)
    answer = session.click("ball", np.rint(centre))
    assert tuple(answer.mask.shape) == tuple(image.shape) and torch.equal(answer.mask.affine, image.affine)
    assert overlap(answer.mask.as_tensor()[0], ball) > 0.9
    millilitres = float(answer.mask.sum()) * abs(np.linalg.det(GRIDS[grid][0][:3, :3])) / 1000
    assert answer.volume_ml == pytest.approx(millilitres) and not answer.open_ended and answer.windows == 1
    world = image.affine.numpy()[:3, :3] @ np.rint(centre) + image.affine.numpy()[:3, 3]
    other = Session(network=growing(image_size=32), image=image).click("ball", world, space="world")
    assert torch.equal(other.mask.as_tensor(), answer.mask.as_tensor())


@pytest.mark.parametrize("grid", GRIDS)
def test_interpolation_back_to_the_scan(growing: Build, grid: str) -> None:
    """Against scipy on every voxel of the scan, without boxes around the positive part."""
    from scipy.ndimage import map_coordinates

    image, _, centre = scan(*GRIDS[grid])
    session = Session(network=growing(image_size=32), image=image)
    session.click("ball", np.rint(centre) + 3)
    block = session.windows.merged(session.events[-1].state)
    voxels = np.stack(np.meshgrid(*map(np.arange, image.shape[1:]), indexing="ij"), -1).reshape(-1, 3)
    inner = session.volume.to_inner(voxels.astype(float)) - np.array(block.start)
    plain = map_coordinates(block.values.numpy().astype(float), inner.T, order=1, mode="nearest")
    outside = ((inner < -0.5) | (inner > 31.5)).any(1)
    plain[outside] = -20
    plain = plain.reshape(image.shape[1:])
    mine = session.logits("ball").numpy()[0]
    assert ((plain > 1e-3) <= (mine > 0)).all() and ((mine > 1e-3) <= (plain > 0)).all()
    np.testing.assert_allclose(mine[plain > 0.01], plain[plain > 0.01], atol=1e-3)


def test_a_click_in_an_encoded_crop_never_encodes(growing: Build) -> None:
    image, _, centre = scan(*GRIDS["own"])
    network = growing(image_size=32)
    session = Session(network=network, image=image)
    session.click("ball", centre)
    assert session.encodings == len(network.encoded) == 1
    for shift in ((5, 0, 0), (0, -6, 2), (-15, 15, 8)):
        session.click("ball", centre + shift, inside=False)
    session.click("other", centre + 4)
    session.undo()
    session.undo("ball")
    session.click("ball", centre - 7)
    assert session.encodings == len(network.encoded) == 1 and session.objects == ("ball",)
    start = session.volume.encoded[0]
    crop = image.as_tensor()[:, start[0] : start[0] + 32, start[1] : start[1] + 32, start[2] : start[2] + 32]
    expected = (crop - crop.mean()) / crop.std()
    assert torch.allclose(network.encoded[0][0], expected, atol=1e-4)


def test_embeddings_are_forgotten_oldest_first(growing: Build) -> None:
    image, *_ = scan(np.diag([1.5, 1.5, 1.5, 1.0]), (96, 40, 40))
    network = growing(image_size=32)
    session = Session(network=network, image=image, cache=2)
    for name, x in (("a", 10), ("b", 45), ("c", 85)):
        session.click(name, (x, 20, 20))
    assert session.encodings == 3 and len(session.volume.encoded) == 2
    session.click("b", (46, 20, 20))
    assert session.encodings == 3
    session.click("a", (11, 20, 20))
    assert session.encodings == 4
    session.click("c", (84, 20, 20))  # the least recently used is gone
    assert session.encodings == 5


def test_the_network_sees_voxels_of_its_crop(growing: Build) -> None:
    image, _, centre = scan(*GRIDS["own"])
    network = growing(image_size=32)
    session = Session(network=network, image=image)
    session.click("ball", (24, 23, 25))
    session.click("ball", (30, 24, 20), inside=False)
    assert session.volume.encoded == ((8, 7, 9),)
    first, second = network.asked
    assert first.points.tolist() == [[[16, 16, 16]]] and first.labels.tolist() == [[1]] and not first.masks.any()
    assert second.points.tolist() == [[[16, 16, 16], [22, 17, 11]]] and second.labels.tolist() == [[1, 0]]
    assert torch.equal(second.masks, session.events[0].state.windows[0].low_res)
    latest = Session(network=network, image=image, clicks="latest")
    latest.click("ball", centre)
    latest.click("ball", centre + 2)
    assert network.asked[-1].points.shape == (1, 1, 3)


def test_undo_gives_back_what_was(growing: Build) -> None:
    image, _, centre = scan(*GRIDS["own"])
    session = Session(network=growing(image_size=32), image=image)
    first = session.click("ball", centre)
    session.click("ball", centre + 4, inside=False)
    other = session.click("other", centre - 8)
    back = session.undo("ball")
    assert back is not None and torch.equal(back.mask.as_tensor(), first.mask.as_tensor())
    assert torch.equal(session.answer("other").mask.as_tensor(), other.mask.as_tensor())
    again = session.click("ball", centre + 4, inside=False)
    assert not torch.equal(again.mask.as_tensor(), first.mask.as_tensor())
    session.undo()
    assert session.undo("ball") is None and session.objects == ("other",)
    session.remove("other")
    assert session.objects == ()


def test_label_map_takes_the_more_certain_object(growing: Build) -> None:
    image, ball, centre = scan(*GRIDS["fine LPS"])
    session = Session(network=growing(image_size=32), image=image)
    session.click("ball", np.rint(centre))
    session.click("background", (6, 6, 6))
    maps = session.label_map()
    assert maps.dtype == torch.uint8 and set(maps.unique().tolist()) == {0, 1, 2}
    a, b = (session.logits(n).as_tensor() for n in session.objects)
    expected = torch.stack([torch.zeros_like(a), a, b]).argmax(0)
    assert torch.equal(maps.as_tensor().long(), expected) and overlap(maps.as_tensor()[0] == 1, ball) > 0.9


def test_gate_scores_are_passed_on(growing: Build) -> None:
    image, _, centre = scan(*GRIDS["own"])
    session = Session(network=growing(image_size=32, experts=3), image=image)
    answer = session.click("ball", centre)
    assert answer.scores is not None and answer.scores.shape == (4,) and answer.chosen == 3
    assert Session(network=growing(image_size=32), image=image).click("ball", centre).scores is None


def test_boxes_in_voxels_and_in_world(growing: Build) -> None:
    image, *_ = scan(*GRIDS["fine LPS"])
    session = Session(network=growing(image_size=32), image=image)
    answer = session.box("b", [[30, 25, 10], [45, 40, 20]])
    found = answer.mask.as_tensor()[0].nonzero()  # to a low-resolution voxel, 3 mm
    assert (found.amin(0) - torch.tensor([30, 25, 10])).abs().max() <= 4
    assert (found.amax(0) - torch.tensor([45, 40, 20])).abs().max() <= 4
    affine = image.affine.numpy()
    corners = np.array([[30, 25, 10], [45, 40, 20]]) @ affine[:3, :3].T + affine[:3, 3]
    other = Session(network=growing(image_size=32), image=image)
    same = other.box("b", np.sort(corners, 0).tolist(), space="world")
    assert torch.equal(same.mask.as_tensor(), answer.mask.as_tensor())
    session.click("b", (31, 26, 11), inside=False)
    last = session.windows.network.asked[-1]
    assert last.boxes is not None and last.points.shape == (1, 1, 3) and session.encodings == 1


def test_opens_files(growing: Build, tmp_path: Path) -> None:
    image, ball, centre = scan(*GRIDS["fine LPS"])
    file = write_volume(image, tmp_path / "scan ü.nii.gz")
    answer = Session.open(file, network=growing(image_size=32), clip=(-1000, 1000)).click("ball", np.rint(centre))
    assert overlap(answer.mask.as_tensor()[0], ball) > 0.9


def test_clipping_comes_first(growing: Build) -> None:
    image, _, centre = scan(*GRIDS["own"])
    network = growing(image_size=32)
    Session(network=network, image=image, clip=(100, 130)).click("ball", centre)
    values = network.encoded[0].unique()
    assert len(values) < network.encoded[0].numel() / 2  # most of the ball and half of the rest are at the bounds


REFUSED: list[tuple[Callable[[Session], object], str]] = [
    (lambda s: s.click("x", (48, 3, 3)), "outside the volume"),
    (lambda s: s.click("x", (float("nan"), 3, 3)), "outside the volume"),
    (lambda s: s.click("x", (-300, 3, 3), space="world"), "outside the volume"),
    (lambda s: s.click("x", (3, 3)), "points are x, y, z"),
    (lambda s: s.click("x", (3, 3, 3), space="mm"), "unknown space"),
    (lambda s: s.click("x", (3, 3, 3), inside=False), "begins with a click inside"),
    (lambda s: s.undo(), "nothing to undo"),
    (lambda s: s.undo("x"), "nothing to undo"),
    (lambda s: s.answer("x"), "no object of that name"),
    (lambda s: s.remove("x"), "no object of that name"),
    (lambda s: s.label_map(), "no object yet"),
    (lambda s: s.box("x", [[3, 3, 3], [3, 9, 9]]), "no extent"),
    (lambda s: s.box("x", [[9, 9, 9], [3, 3, 3]]), "swapped"),
    (lambda s: s.box("x", [[3, 3, 3], [3, 9, 9]], space="world"), "swapped or equal"),
    (lambda s: s.box("x", [[900, 900, 900], [990, 990, 990]], space="world"), "outside the scan"),
    (lambda s: s.box("x", [[3, 3, 3], [3, 9, 99]]), "no extent|leaves the volume"),
    (lambda s: s.box("x", [[3, 3, 3]]), "two corners"),
]


@pytest.mark.parametrize(("action", "message"), REFUSED)
def test_refusals(growing: Build, action: Callable[[Session], object], message: str) -> None:
    image, *_ = scan(*GRIDS["own"])
    session = Session(network=growing(image_size=32), image=image)
    with pytest.raises(PromptError, match=message):
        action(session)
    assert session.objects == () and session.encodings == 0


def test_a_refused_prompt_changes_nothing(growing: Build) -> None:
    image, _, centre = scan(np.diag([1.5, 1.5, 1.5, 1.0]), (96, 40, 40))
    session = Session(network=growing(image_size=32, boxes=False), image=image)
    before = session.click("ball", centre)
    with pytest.raises(PromptError, match="outside the window of its object"):
        session.click("ball", (3, 20, 20))
    with pytest.raises(PromptError, match="without box embeddings"):
        session.box("ball", [[40, 10, 10], [50, 20, 20]])
    with pytest.raises(PromptError, match="no object of that name"):
        session.undo("spleen")
    assert torch.equal(session.answer("ball").mask.as_tensor(), before.mask.as_tensor())


def test_options_and_images_that_cannot_be(growing: Build) -> None:
    image, *_ = scan(*GRIDS["own"])
    network = growing()
    for options in ({"clicks": "all"}, {"max_windows": 0}, {"reuse_margin": -1}, {"cache": 0}, {"spacing": 0}):
        with pytest.raises(ConfigError):
            Session(network=network, image=image, **options)
    with pytest.raises(ConfigError, match="lower and an upper"):
        Session(network=network, image=image, clip=(3, 1))
    with pytest.raises(DataError, match="one volume with its affine"):
        Session(network=network, image=image.as_tensor())
    with pytest.raises(DataError, match="one volume"):
        Session(network=network, image=MetaTensor(torch.zeros(2, 9, 9, 9)))
    image[0, 0, 0, 0] = torch.nan
    with pytest.raises(DataError, match="NaN"):
        Session(network=network, image=image)


def test_an_object_over_many_crops_loses_none_of_them(growing: Build) -> None:
    image = MetaTensor(torch.ones(1, 64, 64, 64), affine=torch.eye(4).double() * 1.5)  # all looks like the click
    network = growing(image_size=16)
    network.reach = 1e3
    session = Session(network=network, image=image, follow=True, cache=2, max_windows=20)
    windows = session.click("all", (32, 32, 32)).windows
    assert windows == 20 and session.encodings == 20
    session.click("all", (33, 32, 32))
    session.click("all", (31, 30, 32), inside=False)
    assert session.encodings == 20
