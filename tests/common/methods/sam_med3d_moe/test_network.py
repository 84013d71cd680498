"""The mixture of mask decoders: who is asked, how answers are fused, and that nothing is forgotten."""

import copy

import pytest
import torch

from common.backbones.sam3d.network import sam3d_network
from common.backbones.sam3d.prompt import Prompts
from common.errors import ConfigError, ExpertError
from common.layers.gating.prompt_gate import PromptGate
from common.layers.gating.routing import Routing
from common.methods.sam_med3d_moe.network import SAMMed3DMoE, fuse


def network(experts=2, **options):
    base = sam3d_network("tiny", seed=0, boxes=True)
    torch.manual_seed(3)
    decoders = {}
    for i in range(experts):
        decoder = copy.deepcopy(base.mask_decoder)
        for parameter in decoder.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
        decoders[f"expert {i}"] = decoder
    general = options.pop("general", True)
    gate = PromptGate(channels=48, experts=experts, hidden=16, general=general)
    return SAMMed3DMoE(base=base, experts=decoders, gate=gate, **options).eval()


def asked(moe, batch=4):
    torch.manual_seed(5)
    image = torch.randn(batch, 1, 32, 32, 32)
    prompts = moe.prompts(points=torch.randint(0, 32, (batch, 2, 3)).float(), labels=torch.ones(batch, 2).long())
    with torch.no_grad():
        return moe.encode(image), prompts


def scored(weights):
    weights = torch.tensor(weights)
    return Routing(weights, weights.log())


def every_decoder(moe, embedding, prompts, routing):
    """The published computation: all decoders on all samples, then the choice, sample by sample."""
    general = moe.base.decode(embedding, prompts).masks
    answers = [moe.base.decode(embedding, prompts, decoder=d).masks for d in moe.experts]
    found = []
    for b, score in enumerate(routing.weights):
        specific = score[1:] if moe.gate.general else score
        best = max(range(len(answers)), key=lambda e: float(specific[e]))
        if float(specific[best]) <= moe.tau:
            found.append(general[b])
            continue
        s, g, e = specific[best], general[b], answers[best][b]
        if moe.fusion == "weighted":
            found.append((1 - s) * g + s * e)
        elif moe.fusion == "avg":
            found.append(0.5 * g + 0.5 * e)
        else:
            found.append((g.exp() * g + e.exp() * e) / (g.exp() + e.exp()))
    return torch.stack(found)


@pytest.mark.parametrize("fusion", ["weighted", "avg", "aft_weight"])
@pytest.mark.parametrize("tau", [0.0, 0.5, 0.7])
@pytest.mark.parametrize("general", [True, False])
@torch.no_grad()
def test_only_what_is_chosen_is_run_and_the_answer_is_that_of_all(fusion, tau, general):
    moe = network(fusion=fusion, tau=tau, general=general)
    embedding, prompts = asked(moe)
    weights = [[0.1, 0.8, 0.1], [0.9, 0.05, 0.05], [0.1, 0.3, 0.6], [0.2, 0.72, 0.08]]
    routing = scored(weights if general else [w[1:] for w in weights])
    answer = moe.decode(embedding, prompts, routing=routing)
    torch.testing.assert_close(answer.masks, every_decoder(moe, embedding, prompts, routing), rtol=1e-5, atol=1e-5)
    wanted = {0.0: [1, 1, 2, 1], 0.5: [1, 0, 2, 1], 0.7: [1, 0, 0, 1]}[tau]
    assert answer.chosen.tolist() == wanted and answer.scores.shape == (4, 3)


@torch.no_grad()
def test_below_the_threshold_it_is_the_general_decoder_bit_for_bit():
    moe = network()
    embedding, prompts = asked(moe)
    general = moe.base.decode(embedding, prompts).masks
    unsure = moe.decode(embedding, prompts, routing=scored([[0.4, 0.5, 0.1]] * 4))
    assert torch.equal(unsure.masks, general) and unsure.chosen.tolist() == [0, 0, 0, 0]
    mixed = moe.decode(embedding, prompts, routing=scored([[0.4, 0.5, 0.1], [0.1, 0.8, 0.1]] * 2))
    assert torch.equal(mixed.masks[::2], general[::2]) and not torch.equal(mixed.masks[1::2], general[1::2])


@torch.no_grad()
def test_one_expert_can_fall_back_because_the_general_one_has_a_logit():
    moe = network(experts=1)
    embedding, prompts = asked(moe)
    assert moe.decode(embedding, prompts).scores.shape == (4, 2)
    literal = network(experts=1, general=False)
    answer = literal.decode(*asked(literal))
    assert answer.chosen.tolist() == [1] * 4 and answer.scores[:, 1].tolist() == [1.0] * 4


@torch.no_grad()
def test_decoders_that_nobody_chose_do_not_run(monkeypatch):
    moe = network()
    embedding, prompts = asked(moe)
    calls = []
    decode = type(moe.base).decode
    monkeypatch.setattr(
        type(moe.base), "decode", lambda self, *a, **k: calls.append(k.get("decoder")) or decode(self, *a, **k)
    )
    moe.decode(embedding, prompts, routing=scored([[0.9, 0.05, 0.05]] * 4))
    assert calls == [None]
    moe.decode(embedding, prompts, routing=scored([[0.1, 0.8, 0.1]] * 4))
    assert calls == [None, None, moe.experts[0]]


def test_the_gate_learns_through_the_score_and_nothing_else_does():
    moe = network()
    assert {n.split(".")[0] for n, p in moe.named_parameters() if p.requires_grad} == {"gate"}
    embedding, prompts = asked(moe)
    with torch.no_grad():
        moe.gate.head[-1].bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
    moe.decode(embedding, prompts).masks.sum().backward()
    assert float(moe.gate.head[-1].weight.grad.abs().sum()) > 0
    assert all(p.grad is None for n, p in moe.named_parameters() if not n.startswith("gate."))
    joint = network(train="joint")
    with torch.no_grad():
        joint.gate.head[-1].bias.copy_(torch.tensor([0.0, 9.0, 0.0]))
    joint.decode(embedding, prompts).masks.sum().backward()
    used = [any(p.grad is not None for p in e.parameters()) for e in joint.experts]
    assert used == [True, False] and all(p.grad is None for p in joint.base.parameters())


@torch.no_grad()
def test_an_embedding_serves_several_prompts():
    moe = network()
    embedding, prompts = asked(moe)
    one = embedding[:1]
    routing = scored([[0.1, 0.8, 0.1], [0.9, 0.05, 0.05], [0.1, 0.3, 0.6], [0.2, 0.72, 0.08]])
    shared = moe.decode(one, prompts, routing=routing).masks
    for b in range(4):
        own = Prompts(prompts.sparse[b : b + 1], prompts.dense[min(b, len(prompts.dense) - 1)][None])
        alone = moe.decode(one, own, routing=scored(routing.weights[b : b + 1].tolist())).masks
        torch.testing.assert_close(shared[b : b + 1], alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_session_may_keep_its_first_choice():
    moe = network()
    embedding, prompts = asked(moe)
    other = moe.prompts(points=torch.full((4, 1, 3), 3.0), labels=torch.zeros(4, 1).long())
    first, every = moe.asker(at="first"), moe.asker()
    start = first(embedding, prompts).scores
    assert torch.equal(first(embedding, other).scores, start)
    assert not torch.equal(every(embedding, other).scores, start)
    with pytest.raises(ConfigError, match="gate_at"):
        moe.asker(at="last")


@torch.no_grad()
def test_a_new_expert_changes_no_answer():
    moe = network()
    embedding, prompts = asked(moe)
    before = moe.decode(embedding, prompts, routing=None)
    assert 0 in before.chosen.tolist()
    moe.add_expert("new", copy.deepcopy(moe.base.mask_decoder))
    after = moe.decode(embedding, prompts)
    assert torch.equal(after.masks, before.masks) and torch.equal(after.chosen, before.chosen)
    assert moe.names == ("expert 0", "expert 1", "new") and after.scores.shape == (4, 4)
    with pytest.raises(ExpertError, match="already"):
        moe.add_expert("new", copy.deepcopy(moe.base.mask_decoder))


@torch.no_grad()
def test_one_decoder_alone():
    moe = network()
    embedding, prompts = asked(moe)
    assert torch.equal(
        moe.decode_with("expert 1", embedding, prompts).masks,
        moe.base.decode(embedding, prompts, decoder=moe.experts[1]).masks,
    )
    assert torch.equal(moe.decode_with(None, embedding, prompts).masks, moe.base.decode(embedding, prompts).masks)
    with pytest.raises(ExpertError, match=r"expert 0, expert 1"):
        moe.decode_with("liver", embedding, prompts)


def test_embeddings_are_kept_in_training():
    moe = network(cache_gb=0.1)
    image = torch.randn(2, 1, 32, 32, 32)
    moe.train()
    first = moe.encode(image)
    assert torch.equal(moe.encode(image), first) and (moe.kept.hits, moe.kept.misses) == (2, 2)
    moe.eval()
    moe.encode(image)
    assert moe.kept.hits == 2


def test_size_with_fifteen_experts():
    with torch.device("meta"):
        base = sam3d_network("vit_b_ori")
        experts = {str(i): copy.deepcopy(base.mask_decoder) for i in range(15)}
        moe = SAMMed3DMoE(base=base, experts=experts, gate=PromptGate(channels=384, experts=15))
    assert sum(p.numel() for p in moe.parameters()) / 1e6 == pytest.approx(217.7, abs=0.1)


def test_refusals():
    with pytest.raises(ConfigError, match="tau"):
        network(tau=1.0)
    with pytest.raises(ConfigError, match="fusion"):
        network(fusion="max")
    with pytest.raises(ConfigError, match="train"):
        network(train="all")
    with pytest.raises(ConfigError, match="fusion"):
        fuse(torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2), torch.zeros(1), "max")
    base = sam3d_network("tiny", seed=0)
    gate = PromptGate(channels=48, experts=2, hidden=8)
    with pytest.raises(ExpertError, match="another number"):
        SAMMed3DMoE(base=base, experts={"a": base.mask_decoder}, gate=gate)
    other = sam3d_network("small", seed=0).mask_decoder
    with pytest.raises(ExpertError, match="another shape"):
        SAMMed3DMoE(base=base, experts={"a": copy.deepcopy(base.mask_decoder), "b": other}, gate=gate)
