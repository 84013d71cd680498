"""Click loop and session with the real network, tiny and untrained: the two agree on what a network is."""

import torch
from monai.data import MetaTensor

from common.backbones.sam3d import network as sam3d
from common.data.prompts.click_protocol import click_protocol
from common.engine.interactive.prompting import Step, click_scores, simulate
from common.engine.interactive.session import Session


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.zeros(2, 1, 32, 32, 32)
    target[0, :, 8:20, 8:20, 8:20] = 1
    target[1, :, 12:28, 4:18, 10:22] = 1
    return target + 0.1 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0)), target


def loss(step: Step, target: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(step.logits, target)


def test_training_reaches_every_part() -> None:
    network = sam3d.sam3d_network("tiny", seed=0)
    image, target = scene()
    protocol = click_protocol("training", steps=5)
    steps = simulate(network, network.encode(image), target, protocol, generator=torch.Generator())
    torch.stack([loss(step, target) for step in steps]).sum().backward()
    quiet = [n for n, p in network.named_parameters() if p.grad is None]
    unasked = ("iou", "hypernetworks", "mask_tokens", "no_mask_embed")  # other masks, and the mask is always given
    assert not [n for n in quiet if not any(part in n for part in unasked)]


def test_evaluation_and_boxes() -> None:
    network = sam3d.sam3d_network("tiny", seed=0, boxes=True).eval()
    image, target = scene()
    with torch.no_grad():
        embedding = network.encode(image)
    result = click_scores(network, embedding, target, click_protocol(steps=3))
    assert result.dice.shape == (3, 2) and result.masks.shape == target.shape
    boxes = torch.tensor([[[8.0, 8, 8], [19, 19, 19]], [[12, 4, 10], [27, 17, 21]]])
    assert click_scores(network, embedding, target, click_protocol("box"), boxes=boxes).dice.shape == (1, 2)


def test_session() -> None:
    network = sam3d.sam3d_network("tiny", seed=0, boxes=True)
    image = MetaTensor(torch.rand(1, 50, 40, 30), affine=torch.diag(torch.tensor([-1.0, 1.2, 2.0, 1.0])).double())
    session = Session(network=network, image=image, follow=True, max_windows=4)
    session.click("a", (25, 20, 15))
    answer = session.click("a", (27, 20, 15), inside=False)
    assert not network.training and answer.mask.shape == image.shape
    session.box("b", [[10, 10, 10], [20, 20, 20]])
    assert session.label_map().shape == image.shape and session.undo("b") is None
