import pytest
import torch

from common.errors import ConfigError
from common.layers.gating.class_heads import ClassHeads

CLASSES = [(0, 1, 3), (0, 2), (0, 3, 1, 4)]


def build():
    torch.manual_seed(0)
    return ClassHeads(channels=4, classes=CLASSES, total=5)


def test_equals_the_loop_over_samples():
    module, features, head = build(), torch.randn(4, 4, 3, 2), torch.tensor([2, 0, 1, 2])
    logits = module(features, head)
    for b, h in enumerate(head.tolist()):
        for k in range(5):
            if k not in CLASSES[h]:
                assert (logits[b, k] == -torch.inf).all()
                continue
            row = module.outputs[h].weight[CLASSES[h].index(k), :, 0, 0]
            want = torch.stack([row @ features[b, :, i, j] for i in range(3) for j in range(2)]).view(3, 2)
            torch.testing.assert_close(logits[b, k], want)
        own = module.outputs[h](features[b : b + 1]).softmax(1)[0]
        torch.testing.assert_close(logits[b].softmax(0)[list(CLASSES[h])], own)


def test_shuffled_samples_give_shuffled_logits():
    module, features, head = build(), torch.randn(5, 4, 3, 2), torch.tensor([2, 0, 1, 2, 0])
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(module(features[order], head[order]), module(features, head)[order])


def test_gradients_stay_with_the_heads_asked():
    module, features = build(), torch.randn(2, 4, 3, 2, requires_grad=True)
    logits = module(features, torch.tensor([0, 2]))
    logits.masked_fill(logits == -torch.inf, 0).square().sum().backward()
    assert features.grad.isfinite().all() and features.grad.any()
    assert module.outputs[1].weight.grad is None and module.outputs[2].weight.grad.any()


def test_append_leaves_the_others():
    module, features, head = build(), torch.randn(3, 4, 3, 2), torch.tensor([2, 0, 1])
    before = module(features, head)
    module.append((0, 5), total=6)
    after = module(features, head)
    assert torch.equal(after[:, :5], before) and (after[:, 5] == -torch.inf).all()
    assert module(features, torch.tensor([3, 3, 3]))[:, [0, 5]].isfinite().all()


@pytest.mark.parametrize("classes", [(), (1, 2), (0, 1, 1), (0, 5), (0, -1)])
def test_wrong_classes_are_refused(classes):
    with pytest.raises(ConfigError):
        ClassHeads(channels=4, classes=[classes], total=5)


@pytest.mark.parametrize(
    "head", [torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.tensor([0]), torch.tensor([0.0, 1.0])]
)
def test_wrong_heads_are_refused(head):
    with pytest.raises(ConfigError):
        build()(torch.randn(2, 4, 3, 2), head)
