"""The click loop: what the network is shown at each step, and what is counted."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from common.data.prompts.click_protocol import click_protocol
from common.data.prompts.clicks import click_generator, next_click
from common.engine.interactive.prompting import Step, click_scores, click_steps, simulate
from common.errors import PromptError

Build = Callable[..., Any]


def scene(batch: int = 2, size: int = 32) -> tuple[Tensor, Tensor]:
    """Bright balls on noise, and their masks."""
    random = torch.Generator().manual_seed(0)
    line = torch.arange(size, dtype=torch.float32)
    at = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1)
    centres = torch.rand(batch, 3, generator=random) * 10 + 11
    target = torch.stack([((at - c) ** 2).sum(-1) < 49 for c in centres])[:, None]
    return target * 2.0 + 0.3 * torch.randn(target.shape, generator=random), target


def mean_loss(step: Step, target: Tensor) -> Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(step.logits, target.float())


def test_a_session_improves(growing: Build) -> None:
    image, target = scene()
    network = growing()
    result = click_scores(network, network.encode(image), target, click_protocol(), generator=torch.Generator())
    assert result.dice.shape == (5, 2) and float(result.reported.min()) > 0.75
    assert torch.equal(result.reported, result.dice[-1]) and result.at.tolist() == [4, 4]
    assert result.points.shape == (2, 5, 3) and result.labels[:, 0].tolist() == [1, 1]


def naive(network: Any, embedding: Tensor, target: Tensor, protocol: Any, skip: set[int], seed: int) -> list[Tensor]:
    """The same session with lists of clicks, written out."""
    generator = torch.Generator().manual_seed(seed)
    if protocol.mask_only:  # which step goes without a point is drawn first
        torch.randint(protocol.mask_only[0], protocol.mask_only[1] + 1, (1,), generator=generator)
    mask = torch.zeros(len(target), 1, 16, 16, 16)
    guess, points, labels, found = torch.full(target.shape, -1.0), [], [], []
    for step in range(protocol.steps):
        if step in skip:
            prompts = network.prompts(masks=mask)
        else:
            way = "ritm" if protocol.strategy == "default" and len(points) < 2 else "random"
            click = next_click(guess, target, strategy=way, threshold=protocol.threshold, generator=generator)
            points, labels = [*points, click.points], [*labels, click.labels]
            shown = slice(-1, None) if protocol.clicks == "latest" else slice(None)
            prompts = network.prompts(
                points=torch.cat(points[shown], 1), labels=torch.cat(labels[shown], 1), masks=mask
            )
        mask = network.decode(embedding, prompts).masks
        guess = network.upsample(mask).detach()
        found.append(mask)
    return found


@pytest.mark.parametrize(
    ("protocol", "skip"),
    [
        (click_protocol(steps=4), set()),
        (click_protocol("tables", steps=4), set()),
        (click_protocol("training", steps=6, mask_only=(3, 3)), {3, 5}),
        (click_protocol("released", steps=5, mask_only=(2, 2), clicks="accumulate"), {2, 4}),
    ],
)
def test_against_the_session_written_out(growing: Build, protocol: Any, skip: set[int]) -> None:
    image, target = scene()
    network = growing()
    embedding = network.encode(image)
    steps = simulate(network, embedding, target, protocol, generator=torch.Generator().manual_seed(4))
    shown = list(network.asked)
    network.asked.clear()
    plain = naive(network, embedding, target, protocol, skip, 4)
    assert [s.asked for s in steps] == [i not in skip for i in range(protocol.steps)]
    for mine, theirs, one, other in zip(steps, plain, shown, network.asked, strict=True):
        assert torch.equal(mine.low_res, theirs) and torch.equal(mine.logits, network.upsample(theirs))
        assert (one.points is None) == (other.points is None)
        if one.points is not None:
            assert torch.equal(one.points, other.points) and torch.equal(one.labels, other.labels)


def test_the_mask_only_step_is_drawn_from_its_range(growing: Build) -> None:
    image, target = scene(1)
    network = growing()
    embedding = network.encode(image)
    silent = set()
    for seed in range(12):
        steps = simulate(
            network,
            embedding,
            target,
            click_protocol("training", steps=6, mask_only=(2, 3)),
            generator=torch.Generator().manual_seed(seed),
        )
        quiet = [i for i, s in enumerate(steps) if not s.asked]
        assert len(quiet) == 2 and quiet[1] == 5 and quiet[0] in (2, 3)
        silent.add(quiet[0])
        assert steps[-1].points.shape[1] == 4
    assert silent == {2, 3}


def test_first_mask_and_boxes(growing: Build) -> None:
    image, target = scene(1)
    network = growing()
    embedding = network.encode(image)
    box = torch.tensor([[[10.0, 10, 10], [22, 22, 22]]])
    steps = simulate(network, embedding, target, click_protocol("box", steps=2, first_mask="none"), boxes=box)
    first, second = network.asked
    assert first.points is None and first.masks is None and torch.equal(first.boxes, box)
    assert second.points.shape == (1, 1, 3) and second.masks is not None and torch.equal(second.boxes, box)
    assert [s.asked for s in steps] == [False, True]
    simulate(network, embedding, target, click_protocol(steps=1))
    assert network.asked[-1].masks is not None and not network.asked[-1].masks.any()


def test_gradients_flow_through_the_masks_that_are_fed_back(growing: Build) -> None:
    image, target = scene(1)
    gradients = []
    for feed in (True, False):
        network = growing()
        protocol = click_protocol("training", steps=4, feed_gradient=feed)
        generator = torch.Generator().manual_seed(0)
        steps = simulate(network, network.encode(image), target, protocol, generator=generator)
        assert len(steps) == 4
        torch.stack([mean_loss(s, target) for s in steps]).sum().backward()
        gradients.append(float(network.carry.grad))
    assert gradients[0] != gradients[1] and all(g == g for g in gradients)


def test_one_expert_in_the_place_of_the_network(growing: Build) -> None:
    image, target = scene(1)
    network, expert = growing(), growing(experts=2)
    steps = simulate(network, network.encode(image), target, click_protocol(steps=2), decode=expert.decode)
    assert steps[0].scores.shape == (1, 3) and steps[1].chosen.tolist() == [2]
    assert simulate(network, network.encode(image), target, click_protocol(steps=1))[0].scores is None


class Scripted:
    """Answers with given masks, whatever is asked."""

    image_size, boxes = 8, False

    def __init__(self, answers: list[Tensor]) -> None:
        self.answers, self.turn = answers, -1

    def prompts(self, **_: Any) -> None:
        return None

    def decode(self, _embedding: Tensor, _prompts: None) -> Any:
        self.turn += 1
        return type("Answer", (), {"masks": self.answers[self.turn]})

    def upsample(self, low_res: Tensor) -> Tensor:
        return low_res


def test_last_and_best(growing: Build) -> None:
    target = torch.zeros(2, 1, 8, 8, 8)
    target[0, ..., :4] = 1
    sizes = [(2, 8, 0), (4, 8, 1), (6, 8, 0), (4, 8, 0)]  # of the first sample's mask; voxels found in the empty one

    def answers() -> list[Tensor]:
        masks = []
        for first, _, second in sizes:
            mask = torch.full((2, 1, 8, 8, 8), -1.0)
            mask[0, ..., :first] = 1
            mask[1, ..., :second] = 1
            masks.append(mask)
        return masks

    embedding = torch.zeros(2, 1, 2, 2, 2)
    best = click_scores(Scripted(answers()), embedding, target, click_protocol(steps=4, report="best"))
    assert best.at.tolist() == [1, 0] and torch.equal(best.masks[0], target[0] > 0) and not best.masks[1].any()
    assert float(best.reported[0]) == 1 and best.reported[1].isnan()
    expected = torch.tensor([2 * 2 / 6, 1.0, 2 * 4 / 10, 1.0])
    assert torch.allclose(best.dice[:, 0], expected) and best.dice[:, 1].isnan().tolist() == [True, False, True, True]
    last = click_scores(Scripted(answers()[:3]), embedding, target, click_protocol(steps=3))
    assert last.at.tolist() == [2, 2] and torch.allclose(last.reported[0], torch.tensor(0.8))
    assert last.scores is None


def test_logits_of_the_old_code_count_above_one_half(growing: Build) -> None:
    target = torch.zeros(1, 1, 8, 8, 8)
    target[..., :4] = 1
    answers = [torch.where(target > 0, 0.3, -1.0)] * 2
    embedding = torch.zeros(1, 1, 2, 2, 2)
    labels = [
        click_scores(Scripted(answers), embedding, target, click_protocol(steps=2, legacy_logit_05=legacy)).labels
        for legacy in (False, True)
    ]
    assert [int(one[0, 1]) for one in labels] == [-1, 1]


def test_cases_do_not_depend_on_their_batch(growing: Build) -> None:
    image, target = scene(3)
    network = growing()
    together = click_scores(
        network,
        network.encode(image),
        target,
        click_protocol(steps=3),
        generator=[click_generator(1, b) for b in range(3)],
    )
    for b in range(3):
        alone = click_scores(
            network,
            network.encode(image[b : b + 1]),
            target[b : b + 1],
            click_protocol(steps=3),
            generator=click_generator(1, b),
        )
        assert torch.equal(alone.points[0], together.points[b])
        assert torch.allclose(alone.dice[:, 0], together.dice[:, b])


def test_refusals(growing: Build) -> None:
    _, target = scene(2)
    network = growing(boxes=False)
    embedding = torch.zeros(2, 64, 4, 4, 4)
    with pytest.raises(PromptError, match="one target per embedding"):
        next(click_steps(network, embedding[:1], target, click_protocol()))
    with pytest.raises(PromptError, match="not on the network's crop"):
        next(click_steps(network, embedding, target[..., :16], click_protocol()))
    with pytest.raises(PromptError, match="without box embeddings"):
        next(click_steps(network, embedding, target, click_protocol(), boxes=torch.zeros(2, 2, 3)))
