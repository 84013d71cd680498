"""A session clicked by the computer: the simulated user on a whole scan, crops and windows included."""

from __future__ import annotations

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample
from torch import Tensor

from ...data.prompts.click_protocol import ClickProtocol
from ...data.prompts.clicks import NO_CLICK, Generators, next_click
from ...errors import PromptError
from ...geometry import Grid
from ...overlap import dice_of_each
from .session import Session

__all__ = ["on_network_grid", "rehearse"]


def rehearse(
    session: Session, name: str, target: MetaTensor, protocol: ClickProtocol, *, generator: Generators = None
) -> list[float]:
    """Click at a session's object until the protocol's steps are done or nothing wrong is left.

    Errors are looked for on the network's grid, and only within the object's crop when windows do not follow (the
    session would refuse other clicks). The Dice is of the answer on the scan's own grid, over the whole scan. Which
    clicks the network is shown is up to the session; mask-only steps have no counterpart here and are clicks.

    Args:
        session: on the scan.
        name: of the object, which may have prompts already.
        target: ``[1, X, Y, Z]`` on the scan's grid, inside where > 0.
        protocol: number of clicks, strategy and threshold. Where the ``best`` mask is reported, clicks after the first
            mask of the highest Dice are taken back, so that the session's answer is that mask.
        generator: see :func:`~common.data.prompts.clicks.next_click`.

    Returns:
        Dice after each click; shorter than ``steps`` when nothing wrong was left, empty for an empty target.

    Raises:
        PromptError: when the target does not lie on the scan's grid.
    """
    different = session.volume.given.difference(Grid.of(target))
    if different:
        raise PromptError(f"the target does not lie on the scan's grid: {different}", where=session.where)
    wanted = on_network_grid(session, target)
    to_scan = np.linalg.inv(session.volume.given.affine) @ session.volume.inner.affine
    dice: list[float] = []
    for step in range(protocol.steps):
        guess, seen = _guess(session, name)
        click = next_click(
            guess[None, None],
            torch.where(seen, wanted, guess > protocol.threshold)[None, None],
            strategy=protocol.strategy_at(step),
            threshold=protocol.threshold,
            generator=generator,
        )
        if int(click.labels) == NO_CLICK:
            break
        voxel = nibabel.affines.apply_affine(to_scan, click.points[0, 0].double().numpy())
        voxel = voxel.clip(0, np.array(session.volume.given.shape) - 1)  # the network's grid may end a little later
        answer = session.click(name, voxel.tolist(), inside=int(click.labels) == 1)
        dice.append(float(dice_of_each(answer.mask.as_tensor()[None], torch.as_tensor(target)[None])))
    if protocol.report == "best":
        for _ in dice[dice.index(max(dice)) + 1 :] if dice else ():
            session.undo(name)
    return dice


def on_network_grid(session: Session, target: MetaTensor) -> Tensor:
    """``[x, y, z]`` bool on the session's network grid of a mask ``[1, X, Y, Z]`` on the scan's grid (nearest)."""
    inner = session.volume.inner
    plain = MetaTensor((target.as_tensor() > 0).float(), affine=target.affine)
    moved = SpatialResample(mode="nearest", padding_mode="zeros")(
        plain, dst_affine=torch.from_numpy(inner.affine.copy()), spatial_size=inner.shape
    )
    return torch.as_tensor(moved)[0] > 0.5


def _guess(session: Session, name: str) -> tuple[Tensor, Tensor]:
    """Logits on the network's grid, and the voxels at which the session takes clicks."""
    if name not in session.objects:
        return torch.full(session.volume.shape, -1.0), torch.ones(session.volume.shape, dtype=torch.bool)
    block = session.windows.merged(session.state(name))
    guess = session.volume.full(block, -1.0)
    if session.windows.follow:
        return guess, torch.ones_like(guess, dtype=torch.bool)
    return guess, session.volume.full(block._replace(values=torch.ones_like(block.values)), 0.0) > 0
