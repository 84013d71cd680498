"""IC-MoE against three whole passes and against its equations."""

import copy

import pytest
import torch
from torch.nn import functional as F

from common.errors import ConfigError, DataError
from common.labels import LabelSpace
from common.methods.ic_moe.build import ic_moe_network, trained_network
from common.methods.ic_moe.encoders import EXPERTS, ExpertEncoders
from common.methods.ic_moe.loss import ICMoELoss
from common.methods.ic_moe.network import needed, with_background

SIZE = 64


def build(classes=1, seed=0, move=True, **options):
    labels = LabelSpace(tuple("abcd"[:classes]))
    network = ic_moe_network(labels=labels, variant="tiny", image_size=SIZE, **options)
    if move:  # experts that differ
        torch.manual_seed(seed)
        for name, parameter in network.named_parameters():
            if name.startswith(("encoders.semantic", "encoders.adapters")):
                parameter.data += 0.05 * torch.randn_like(parameter)
    return network


def batch(classes=1, count=3, channels=3):
    torch.manual_seed(7)
    label = torch.zeros(count, 1, SIZE, SIZE)
    for b in range(count):
        for k in range(classes):
            label[b, :, 8 * k + 4 * b : 8 * k + 20, 5:40] = k + 1
    return torch.rand(count, channels, SIZE, SIZE), label


def three_passes(network, image):
    """Each expert's embedding from a whole encoder of its own."""
    basic = copy.deepcopy(network.encoders.encoder)
    semantic = copy.deepcopy(network.encoders.encoder)
    for place, block in enumerate(network.encoders.semantic):
        semantic.blocks[network.encoders.first + place] = block
    adapters = network.encoders.adapters

    def adapted(index, tokens):
        return adapters[index](basic.blocks[index], tokens)

    return torch.stack([basic(image).embedding, semantic(image).embedding, basic(image, adapted).embedding])


def test_sharing_changes_nothing():
    network = build()
    image = torch.randn(2, 3, SIZE, SIZE)
    found, expected = network.encoders(image).embedding, three_passes(network, image)
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(found[0], found[1]) and not torch.allclose(found[0], found[2])


def test_gradients_are_those_of_three_passes():
    network = build()
    image, weight = torch.randn(2, 3, SIZE, SIZE), torch.randn(3, 2, 32, 4, 4)
    trained = [p for n, p in network.encoders.named_parameters() if not n.startswith("encoder.")]
    ours = torch.autograd.grad((network.encoders(image).embedding * weight).sum(), trained)
    theirs = torch.autograd.grad((three_passes(network, image) * weight).sum(), trained)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{"checkpointing": True}, {"cache_gb": 0.1}])
def test_less_memory_or_less_time_and_the_same_step(options):
    (image, label), losses = batch(), []
    for own in ({}, options):
        network = build(**own).train()
        for _ in range(2):  # the second time from memory
            loss = ICMoELoss()(network(image, label), {"label": label})["loss"]
            network.zero_grad()
            loss.backward()
        losses.append((loss.detach(), torch.cat([p.grad.flatten() for p in network.trainable() if p.grad is not None])))
    assert torch.allclose(losses[0][0], losses[1][0], atol=1e-6)
    assert torch.allclose(losses[0][1], losses[1][1], atol=1e-5)
    if "cache_gb" in options:
        assert len(network.encoders.cache) == 9 and network.encoders.cache.hits == 9  # three crops of three images
        network.load_state_dict(network.state_dict())
        assert len(network.encoders.cache) == 0


def naive_answer(network, experts, truth, alpha=0.5):
    """Equations 3 to 5 for one class: scores, the best candidate, the sum."""
    candidates = [experts[0], experts[1], experts.mean(0)]
    masks = [c > 0 for c in candidates]
    answer, chosen = [], []
    for b in range(experts.shape[1]):
        reference = truth[b] if truth is not None else sum(m[b].int() for m in masks) > 1
        scores = [1 - (m[b] != reference).float().mean() for m in masks]
        best = max(range(3), key=lambda e, scores=scores: scores[e])
        chosen.append(best)
        answer.append(experts[2, b] + alpha * candidates[best][b])
    return torch.stack(answer), chosen


@pytest.mark.parametrize("training", [False, True])
def test_the_answer_is_the_main_expert_and_the_chosen_one(training):
    network, (image, label) = build(balance="never").train(training), batch()
    found = network(image, label)
    answer, chosen = naive_answer(network, found.experts, label.bool() if training else None)
    assert found.votes.chosen[:, 0].tolist() == chosen
    assert torch.allclose(found.logits, answer, atol=1e-6)


def test_each_expert_s_answer_is_its_decoder_s():
    network, (image, _) = build().eval(), batch()
    found = network(image)
    normal = (image - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    for expert, embedding, logits in zip(EXPERTS, three_passes(network, normal), found.experts, strict=True):
        low = network.heads[expert](embedding)
        assert torch.allclose(logits, F.interpolate(low, size=(SIZE, SIZE), mode="bilinear"), atol=1e-5)


@pytest.mark.parametrize("classes", [1, 3])
def test_at_inference_the_answer_does_not_depend_on_the_batch(classes):
    network, (image, _) = build(classes).eval(), batch(classes)
    whole = network(image)
    for b in range(len(image)):
        one = network(image[b : b + 1])
        assert torch.equal(one.votes.chosen[0], whole.votes.chosen[b])
        assert torch.allclose(one.logits[0], whole.logits[b], atol=1e-5)


def test_of_several_classes_each_votes_on_its_own():
    network, (image, label) = build(3, balance="never").train(), batch(3)
    found = network(image, label)
    candidates = torch.stack([*found.experts[:2], found.experts.mean(0)])
    for b in range(3):
        for k in range(3):
            own = found.experts[2, b, k] + 0.5 * candidates[found.votes.chosen[b, k], b, k]
            assert torch.allclose(found.logits[b, k], own, atol=1e-6)
    unknown = torch.tensor([[True, True, True, False]] * 3)
    partly = network(image, label, annotated=unknown)
    assert torch.equal(partly.votes.scores[:, :, :2], found.votes.scores[:, :, :2])
    assert not torch.equal(partly.votes.scores[:, :, 2], found.votes.scores[:, :, 2])


def test_one_class_is_binary_cross_entropy_and_dice():
    network, (image, label) = build(sgcl=0.0).train(), batch()
    found = network(image, label)
    terms = ICMoELoss(sgcl=0)(found, {"label": label})
    assert float(terms["ce"]) == pytest.approx(float(F.binary_cross_entropy_with_logits(found.logits, label)), rel=1e-5)
    p, t = found.logits.sigmoid().flatten(1), label.flatten(1)
    dice = 1 - (2 * (p * t).sum(1) + 1e-5) / (p.sum(1) + t.sum(1) + 1e-5)
    assert float(terms["dice"]) == pytest.approx(float(dice.mean()), rel=1e-4)
    assert torch.equal(with_background(found.logits)[:, 0], torch.zeros(3, SIZE, SIZE))


def test_the_loss_is_the_sum_of_its_parts():
    network, (image, label) = build().train(), batch()
    found, target = network(image, label), {"label": label}
    plain = ICMoELoss(sgcl=0)(found, target)
    assert set(plain) == {"loss", "dice", "ce"}  # what does not count is not computed, nor are its maps asked for
    assert torch.equal(ICMoELoss(sgcl=0)(found._replace(contrast=None), target)["loss"], plain["loss"])
    terms = ICMoELoss(ce=2, dice=3, sgcl=0.5, aux_expert_loss=0.25)(found, target)
    own = [ICMoELoss(sgcl=0)(found._replace(logits=e), target) for e in found.experts]
    experts = sum(2 * e["ce"] + 3 * e["dice"] for e in own)
    expected = 2 * plain["ce"] + 3 * plain["dice"] + 0.5 * terms["sgcl"] + 0.25 * experts
    assert float(terms["loss"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(terms["sgcl"]) == pytest.approx(
        float(terms["pulled"] / (terms["separated"] + terms["pushed"] + 1e-6)), rel=1e-5
    )


@pytest.mark.parametrize("features", ["embedding", "tokens"])
def test_contrast_sees_images_without_their_back_or_foreground(features):
    network, (image, label) = build(contrast_features=features).train(), batch()
    found = network(image, label).contrast
    normal = network.norm(image)
    for crop, mapped in ((normal * label, found.foreground), (normal * (1 - label), found.background)):
        own = network.encoders(crop, tokens=True)
        x = own.tokens.flatten(2, 3) if features == "tokens" else own.embedding.flatten(3).transpose(2, 3)
        expected = network.contrast.separate(torch.cat([x, x.mean(0, keepdim=True)]))
        assert torch.allclose(mapped, expected, atol=1e-4)
    assert found.pull.shape == (4, 3, 16, 32) and network.eval()(image, label).contrast is None


@pytest.mark.parametrize("fgbg_grad", [False, True])
def test_images_without_background_reach_the_experts_when_asked(fgbg_grad):
    network, (image, label) = build(fgbg_grad=fgbg_grad).train(), batch()
    network(image, label).contrast.foreground.sum().backward()
    reached = [n for n, p in network.named_parameters() if p.grad is not None]
    assert any(n.startswith("encoders.adapters") for n in reached) == fgbg_grad
    assert any(n == "contrast.separate.weight" for n in reached)


def test_what_is_trained_and_what_is_frozen():
    network, (image, label) = build().train(), batch(count=4)
    ICMoELoss(aux_expert_loss=0.5)(network(image, label), {"label": label})["loss"].backward()
    frozen = [n for n, p in network.named_parameters() if not p.requires_grad]
    assert all(n.startswith("encoders.encoder.") for n in frozen) and not any(network.trains(n) for n in frozen)
    without = {n for n, p in network.named_parameters() if p.requires_grad and p.grad is None}
    spare = (
        "point_embeddings",
        "not_a_point",
        "mask_downscaling",
        "iou_prediction_head",
        "output_hypernetworks_mlps.1",
    )
    assert all(any(s in n for s in spare) for n in without)
    assert len(network.trainable()) == sum(network.trains(n) for n, _ in network.named_parameters())


@pytest.mark.parametrize("answer", ["mean", *EXPERTS])
def test_other_answers_have_the_same_experts(answer):
    sgcl = 0.1 if answer == "mean" else 0.0
    whole, other = build(move=False, adapter_init="default"), build(move=False, answer=answer, sgcl=sgcl)
    theirs = whole.state_dict()
    other.load_state_dict({k: theirs[k] for k in other.state_dict()})
    fresh = build(move=False, answer=answer, sgcl=sgcl)
    for name, value in fresh.state_dict().items():
        if name.startswith(("heads.", "encoders.encoder.", "encoders.semantic")):
            assert torch.equal(value, theirs[name]), name
    image, _ = batch()
    found, experts = other.eval()(image), whole.eval()(image).experts
    expected = experts.mean(0) if answer == "mean" else experts[EXPERTS.index(answer)]
    assert torch.allclose(found.logits, expected, atol=1e-5) and found.votes is None
    assert needed(answer) == other.experts


def test_the_baseline_is_lora_on_the_same_encoder_and_nothing_else():
    """SAMed begins as the frozen encoder with the adaptive expert's decoder; 4 matrices a block are trained."""
    whole, samed = build(move=False), build(move=False, answer="samed", sgcl=0.0, cache_gb=1.0)
    theirs, own = whole.state_dict(), samed.state_dict()
    lora = {n for n in own if ".lora_" in n}
    assert len(lora) == 4 * len(samed.encoders.encoder.blocks)
    assert all(own[n].shape[0 if "lora_A" in n else 1] == 4 for n in lora)
    for name in set(own) - lora:
        assert torch.equal(own[name], theirs[name.replace("heads.samed.", "heads.adaptive.")]), name
    assert lora < {n for n, _ in samed.named_parameters() if samed.trains(n)}
    assert {n for n, p in samed.named_parameters() if p.requires_grad and "encoders" in n} == lora
    image, label = batch()
    assert torch.allclose(samed.eval()(image).logits, whole.eval()(image).experts[2], atol=1e-5)
    samed.train()(image, label).logits.square().sum().backward()
    grads = {n: p.grad for n, p in samed.named_parameters() if n in lora}
    assert all(g is not None and (bool(g.abs().sum()) == ("lora_B" in n)) for n, g in grads.items())
    with torch.no_grad():
        for name, p in samed.named_parameters():
            if "lora_B" in name:
                p.copy_(torch.randn_like(p))
    block = samed.encoders.encoder.blocks[0].attn.qkv
    x = torch.randn(2, 3, block.in_features)
    fused = torch.nn.functional.linear(x, theirs["encoders.encoder.blocks.0.attn.qkv.weight"])
    q, k, v = (fused + theirs["encoders.encoder.blocks.0.attn.qkv.bias"]).chunk(3, -1)
    q, v = (
        part + x @ layer.lora_A["samed"].weight.T @ layer.lora_B["samed"].weight.T
        for part, layer in ((q, block.q), (v, block.v))
    )
    assert torch.allclose(block(x), torch.cat([q, k, v], -1), atol=1e-5)
    again = build(move=False, answer="samed", sgcl=0.0)
    again.load_state_dict(samed.state_dict())
    assert torch.equal(again.eval()(image).logits, samed.eval()(image).logits)
    with pytest.raises(ConfigError, match="samed alone"):
        ExpertEncoders(encoder=whole.encoders.encoder, experts=("samed", "basic"))


def test_the_sum_of_algorithm_1():
    network, (image, _) = build(candidate_mean="sum").eval(), batch()
    found = network(image)
    assert torch.equal(found.votes.masks[2], found.experts.sum(0) > 0)


def test_grey_pictures_are_repeated_and_boxes_are_prompts():
    network, (image, _) = build().eval(), batch(channels=1)
    plain = network(image).logits
    assert torch.equal(plain, network(image.expand(-1, 3, -1, -1)).logits)
    box = torch.tensor([[[4.0, 4], [40, 50]]] * 3)
    assert not torch.allclose(plain, network(image, box=box).logits)


def test_a_network_from_its_card():
    settings = {"variant": "tiny", "image_size": SIZE, "answer": "mean", "sgcl": 0.0}
    network = trained_network(settings, LabelSpace(("lesion",)))
    assert network.answer == "mean" and network.contrast is None and network.classes == 1
    with pytest.raises(ConfigError, match="fuser"):
        trained_network({"fuser": "x"}, LabelSpace(("lesion",)))


def test_impossible_choices():
    labels = LabelSpace(("a",))
    wrong = {"answer": "best", "candidate_mean": "max", "contrast_features": "x", "normalise": "x", "fusion_alpha": -1,
             "semantic_blocks": 4, "adapter_init": "x", "image_size": 100, "variant": "x"}  # fmt: skip
    for key, value in wrong.items():
        with pytest.raises(ConfigError, match=key):
            ic_moe_network(labels=labels, **{"variant": "tiny", "image_size": SIZE, key: value})
    with pytest.raises(ConfigError, match="SgCL contrasts three experts"):
        ic_moe_network(labels=labels, variant="tiny", image_size=SIZE, answer="adaptive")
    with pytest.raises(ConfigError, match="exclude each other"):
        ic_moe_network(labels=LabelSpace(("a", "b"), exclusive=False), variant="tiny", image_size=SIZE)
    network = build(answer="mean", sgcl=0.0)
    with pytest.raises(ConfigError, match="experts"):
        ExpertEncoders(encoder=network.encoders.encoder, experts=())
    with pytest.raises(ConfigError, match="sgcl"):
        ICMoELoss()(network(*batch()), {"label": batch()[1]})
    for options in ({"ce": -1}, {"sgcl_index": "x"}):
        with pytest.raises(ConfigError):
            ICMoELoss(**options)


def test_pictures_of_another_size_or_labels_that_are_no_class():
    network, (image, label) = build().train(), batch()
    with pytest.raises(ConfigError, match="the encoder's size"):
        network(torch.rand(1, 3, 48, 64))
    with pytest.raises(DataError, match="no class"):
        network(image, label * 2)
