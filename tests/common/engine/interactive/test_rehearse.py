"""A simulated user on a whole scan: clicks lie in errors of the answer on the network's grid."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.data.prompts.click_protocol import click_protocol
from common.engine.interactive.rehearse import on_network_grid, rehearse
from common.engine.interactive.session import Session
from common.errors import PromptError

Build = Callable[..., Any]


def scan(affine: np.ndarray, shape: tuple[int, ...]) -> tuple[MetaTensor, MetaTensor]:
    centre = (np.array(shape) - 1) / 2
    at = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) - centre
    ball = torch.from_numpy(np.linalg.norm(at @ affine[:3, :3].T, axis=-1) < 12)[None]
    noise = torch.randn(ball.shape, generator=torch.Generator().manual_seed(0))
    geometry = torch.from_numpy(affine)
    return MetaTensor(100 + 60.0 * ball + 3 * noise, affine=geometry), MetaTensor(ball.float(), affine=geometry)


FINE = np.diag([-0.9, 0.8, 2.0, 1.0])


@pytest.mark.parametrize("follow", [True, False])
def test_dice_after_each_click_is_that_of_the_answer(growing: Build, follow: bool) -> None:
    image, target = scan(FINE, (76, 80, 34))
    session = Session(network=growing(), image=image, follow=follow)
    dice = rehearse(session, "ball", target, click_protocol(steps=4), generator=torch.Generator().manual_seed(2))
    mask, wanted = session.answer("ball").mask.as_tensor().bool(), target.as_tensor() > 0
    assert len(dice) == 4 and dice[-1] > 0.85
    assert dice[-1] == pytest.approx(float(2 * (mask & wanted).sum() / (mask.sum() + wanted.sum())))
    assert session.events[0].kind == "inside"
    inner = on_network_grid(session, target)
    for before, event in zip([None, *session.events], session.events, strict=False):
        voxel = tuple(int(c) for c in event.state.points[-1])
        assert bool(inner[voxel]) == (event.kind == "inside")
        if before is not None:
            found = session.volume.full(session.windows.merged(before.state), -1.0)[voxel] > 0
            assert bool(found) != bool(inner[voxel])


def test_the_best_mask_is_what_the_session_answers(growing: Build) -> None:
    image, target = scan(np.diag([1.5, 1.5, 1.5, 1.0]), (48, 48, 48))
    protocol = click_protocol(steps=5, report="best")
    offsets = torch.stack(torch.meshgrid(*[torch.arange(48.0) - 23.5] * 3, indexing="ij"), -1)
    found = []
    for radius in (14, 6):  # the answer grows past a small ball
        near = (offsets**2).sum(-1).sqrt() * 1.5 < radius
        wanted = MetaTensor(target.as_tensor() * near, affine=target.affine)
        session = Session(network=growing(), image=image)
        dice = rehearse(session, "ball", wanted, protocol, generator=torch.Generator().manual_seed(2))
        mask, inside = session.answer("ball").mask.as_tensor().bool(), wanted.as_tensor() > 0
        assert float(2 * (mask & inside).sum() / (mask.sum() + inside.sum())) == pytest.approx(max(dice))
        assert len(session.events) == dice.index(max(dice)) + 1
        found.append(len(dice) - len(session.events))
    assert max(found) > 0, "no click was taken back"


def test_the_target_moves_to_the_nearest_voxel(growing: Build) -> None:
    image, target = scan(FINE, (76, 80, 34))
    session = Session(network=growing(), image=image)
    inner = on_network_grid(session, target)
    to_scan = np.linalg.inv(session.volume.given.affine) @ session.volume.inner.affine
    voxels = np.argwhere(np.ones(inner.shape))
    there = voxels @ to_scan[:3, :3].T + to_scan[:3, 3]
    near = np.rint(there).clip(0, np.array(target.shape[1:]) - 1).astype(int)
    tie = (np.abs(there - np.floor(there) - 0.5) < 1e-3).any(1)
    plain = target.numpy()[0][tuple(near.T)] > 0
    assert (plain == inner.numpy().ravel())[~tie].all() and inner.any()


def test_clicks_stay_in_the_crop(growing: Build) -> None:
    image, target = scan(np.diag([1.5, 1.5, 1.5, 1.0]), (90, 40, 40))
    target[0, 75:85, 10:30, 10:30] = 1  # a second part, out of reach
    session = Session(network=growing(), image=image)
    session.click("ball", (44, 20, 20))
    dice = rehearse(session, "ball", target, click_protocol(steps=6), generator=torch.Generator().manual_seed(0))
    assert len(dice) == 6 and session.encodings == 1


def test_it_ends_when_nothing_is_wrong(growing: Build) -> None:
    image, target = scan(np.diag([1.5, 1.5, 1.5, 1.0]), (48, 48, 48))
    session = Session(network=growing(), image=image)
    assert (
        rehearse(session, "nothing", MetaTensor(torch.zeros_like(target), affine=target.affine), click_protocol()) == []
    )
    mask = session.click("ball", (24, 24, 24)).mask
    session.undo()
    session.click("ball", (24, 24, 24))
    exact = MetaTensor(mask.as_tensor().float(), affine=mask.affine)
    assert rehearse(session, "ball", exact, click_protocol()) == []


def test_another_grid_is_refused(growing: Build) -> None:
    image, target = scan(FINE, (76, 80, 34))
    session = Session(network=growing(), image=image)
    with pytest.raises(PromptError, match="not lie on the scan's grid"):
        rehearse(session, "ball", MetaTensor(target.as_tensor()[:, 1:], affine=target.affine), click_protocol())
