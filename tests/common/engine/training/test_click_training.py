"""Sessions as a forward pass: what is trained, which prompts are shown, and that the rest stays as it is."""

import copy

import pytest
import torch

from common.backbones.sam3d.network import sam3d_network
from common.data.prompts.click_protocol import click_protocol
from common.data.prompts.clicks import click_generator
from common.engine.interactive.prompting import click_scores, simulate
from common.engine.run.frozen import ProveFrozen
from common.engine.training.click_training import ClickTraining, ClickValidation
from common.engine.training.steps import PrepareKeys
from common.errors import AmalgamationError, ConfigError

BOXES = torch.tensor([[[8.0, 8, 8], [22, 20, 24]], [[4.0, 6, 8], [12, 14, 16]]])


def scene():
    torch.manual_seed(0)
    image, label = torch.randn(2, 1, 32, 32, 32), torch.zeros(2, 1, 32, 32, 32)
    for b, (low, high) in enumerate(BOXES.long().tolist()):
        label[b, 0, low[0] : high[0] + 1, low[1] : high[1] + 1, low[2] : high[2] + 1] = 1
    return image + 2 * label, label


def training(boxes=True, **options):
    network = sam3d_network("tiny", seed=0, boxes=boxes)
    return ClickTraining(
        network=network, **{"protocol": click_protocol("training", steps=2, mask_only=None), **options}
    )


class Mixture(torch.nn.Module):
    """Stands for a mixture: it says what it trains and hands out a question-asker per session."""

    def __init__(self):
        super().__init__()
        self.base = sam3d_network("tiny", seed=0, boxes=True)
        self.gate = torch.nn.Parameter(torch.ones(()))
        self.image_size, self.boxes, self.sessions = 32, True, []

    def trains(self, name):
        return name == "gate"

    def encode(self, image):
        return self.base.encode(image)

    def prompts(self, **given):
        return self.base.prompts(**given)

    def upsample(self, low_res):
        return self.base.upsample(low_res)

    def decode(self, embedding, prompts):
        answer = self.base.decode(embedding, prompts)
        return answer._replace(masks=answer.masks * self.gate)

    def asker(self, *, at):
        self.sessions.append(at)
        return self.decode


@pytest.mark.parametrize(
    ("train", "starts"),
    [
        ("all", ("image_encoder.", "prompt_encoder.", "mask_decoder.")),
        ("decoder", ("mask_decoder.",)),
        ("boxes", ("prompt_encoder.box_embeddings.",)),
    ],
)
@pytest.mark.parametrize("prompts", ["points", "box", "both"])
def test_what_is_trained_changes_and_nothing_else(train, starts, prompts):
    if (train, prompts) == ("boxes", "points"):
        return  # refused, see below
    built = training(train=train, prompts=prompts)
    optimizer = torch.optim.SGD(built.groups(0.1), lr=0.1)
    proof = ProveFrozen(network=built, optimizer=optimizer)
    proof.check()
    before = copy.deepcopy(built.state_dict())
    image, label = scene()
    built(image, label, BOXES).logits.square().mean().backward()
    optimizer.step()
    proof.compare()
    changed = {k.removeprefix("network.") for k, v in built.state_dict().items() if not torch.equal(v, before[k])}
    assert changed and all(name.startswith(starts) for name in changed)
    assert not any("pe_layer" in name for name in changed)
    for start in starts:
        assert any(name.startswith(start) for name in changed), start
    with torch.no_grad():
        built.network.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.add_(1)
        if train != "all":
            next(built.network.image_encoder.parameters()).add_(1)
    if train != "all":
        with pytest.raises(AmalgamationError, match="frozen"):
            proof.compare()


def test_an_optimizer_over_everything_is_refused():
    built = training(train="decoder")
    with pytest.raises(ConfigError, match=r"train::optimizer"):
        ProveFrozen(network=built, optimizer=torch.optim.SGD(built.parameters(), lr=0.1)).check()


def test_the_encoder_has_a_learning_rate_of_its_own():
    built = training(train="all")
    encoder, others = built.groups(0.01, 0.1)
    assert (encoder["lr"], others["lr"]) == (0.01, pytest.approx(0.001))
    of = {id(p): n for n, p in built.named_parameters()}
    assert all("image_encoder." in of[id(p)] for p in encoder["params"])
    assert not any("image_encoder." in of[id(p)] for p in others["params"])
    assert len(encoder["params"]) + len(others["params"]) == len(built.trainable())
    (only,) = training(train="decoder").groups(0.01)
    assert only["lr"] == 0.01 and len(only["params"]) == len(training(train="decoder").trainable())


def test_prompts_are_shown_one_kind_after_the_other(growing):
    image, label = scene()
    rules = click_protocol("training", steps=3, mask_only=None, mask_only_last=True)
    for prompts, boxed in (("points", [False] * 3), ("box", [True]), ("both", [False] * 3 + [True])):
        network = growing()
        built = ClickTraining(network=network, prompts=prompts, protocol=rules, jitter=0.0)
        found = built(image, label, BOXES)
        assert [a.boxes is not None for a in network.asked] == boxed and len(found.steps) == len(boxed)
        assert len(network.encoded) == 1 and torch.equal(found.logits, found.steps[-1].logits)
        if boxed[-1]:
            assert torch.equal(network.asked[-1].boxes, BOXES) and network.asked[-1].points is None


def test_it_is_the_loop_over_clicks(growing):
    image, label = scene()
    network = growing()
    torch.manual_seed(3)
    found = ClickTraining(network=network, protocol="training")(image, label)
    torch.manual_seed(3)
    plain = simulate(network, network.encode(image), label, click_protocol("training"))
    assert len(found.steps) == 11
    assert all(torch.equal(a.logits, b.logits) for a, b in zip(found.steps, plain, strict=True))


def test_boxes_are_jittered_within_the_crop(growing):
    image, label = scene()
    network = growing()
    built = ClickTraining(network=network, prompts="box", jitter=3.0)
    for seed in range(5):
        torch.manual_seed(seed)
        built(image, label, BOXES)
    moved = torch.stack([a.boxes for a in network.asked]) - BOXES
    assert 0.5 < float(moved.abs().max()) <= 3.0 and not torch.equal(moved[0], moved[1])
    with pytest.raises(ConfigError, match="box prompts need boxes"):
        built(image, label)


@pytest.mark.parametrize("gate_at", ["every", "first"])
def test_a_mixture_says_itself_what_it_trains(gate_at):
    network = Mixture()
    built = ClickTraining(network=network, train=None, prompts="both", gate_at=gate_at,
                          protocol=click_protocol("training", steps=2, mask_only=None))  # fmt: skip
    assert [n for n, p in built.named_parameters() if p.requires_grad] == ["network.gate"]
    image, label = scene()
    built(image, label, BOXES).logits.sum().backward()
    built(image, label, BOXES)
    assert network.sessions == [gate_at, gate_at]  # one asker per session
    assert network.gate.grad is not None and all(p.grad is None for p in network.base.parameters())


@pytest.mark.parametrize("gate_at", ["every", "first"])
def test_validation_asks_a_mixture_as_its_training_does(gate_at):
    network = Mixture()
    image, label = scene()
    rules = click_protocol(steps=2)
    ClickValidation(network=network, protocol=rules, gate_at=gate_at)(image, label, case=["a", "b"], name=["x"] * 2)
    assert network.sessions == [gate_at]


def test_wrong_choices_are_refused():
    for given, where in (({"prompts": "mask"}, "prompts"), ({"train": "encoder"}, "train_what")):
        with pytest.raises(ConfigError, match=f"(?s)unknown choice.*{where}|{where}.*unknown choice"):
            training(**given)
    with pytest.raises(ConfigError, match=r"(?s)without box embeddings.*--boxes True"):
        training(boxes=False, prompts="both")
    with pytest.raises(ConfigError, match=r"nothing to train"):
        training(boxes=False, train="boxes")
    with pytest.raises(ConfigError, match=r"(?s)nothing to train.*--prompts box"):
        training(train="boxes", prompts="points")  # no prompt would show them


def test_validation_counts_the_mask_of_the_protocol(growing):
    image, label = scene()
    network = growing()
    rules = click_protocol(steps=3)
    found = ClickValidation(network=network, protocol=rules, seed=4)(image, label, case=["a", "b"], name=["x", "y"])
    draws = [click_generator(4, c, n) for c, n in (("a", "x"), ("b", "y"))]
    told = click_scores(network, network.encode(image), label, rules, generator=draws)
    assert torch.equal(found, told.masks.float()) and set(found.unique().tolist()) <= {0.0, 1.0}


def test_validation_depends_on_case_structure_and_seed_alone(growing):
    image, label = scene()
    built = ClickValidation(network=growing(), protocol=click_protocol(steps=3))
    both = built(image, label, case=["a", "b"], name=["x", "x"])
    torch.rand(5)
    alone = built(image[1:], label[1:], case=["b"], name=["x"])
    assert torch.equal(both[1:], alone)
    points = [a.points for a in built.network.asked[-3:]]
    ClickValidation(network=built.network, protocol=click_protocol(steps=3), seed=1)(
        image[1:], label[1:], case=["b"], name=["x"]
    )
    assert not torch.equal(points[-1], built.network.asked[-1].points)


def test_validation_with_boxes(growing):
    image, label = scene()
    network = growing()
    found = ClickValidation(network=network, prompts="box")(image, label, case=["a", "b"], name=["x"] * 2, box=BOXES)
    assert torch.equal(network.asked[-1].boxes, BOXES) and found.shape == label.shape
    assert len(network.asked) == 1


def test_a_trainer_hands_it_what_it_needs(growing):
    image, label = scene()
    prepare = PrepareKeys(image="image", kwargs=["label", "box"], targets=["expert"])
    batch = {"image": image, "label": label, "box": BOXES, "expert": torch.tensor([0, 1]), "case": ["a", "b"]}
    first, target, _, named = prepare(batch, torch.device("cpu"), False)
    found = ClickTraining(network=growing(), prompts="box")(first, **named)
    assert found.logits.shape == label.shape and target["expert"].tolist() == [0, 1]
