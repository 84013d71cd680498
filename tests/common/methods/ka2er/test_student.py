import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR

from common.errors import ConfigError, WeightError
from common.methods.ka2er.student import LEVELS, pretrained


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("size", [(32, 32, 64), (64, 32, 32)])
def test_shapes(make, levels, size):
    student = make.student(levels=levels, in_channels=2).eval()
    image = torch.randn(1, 2, *size)
    with torch.no_grad():
        hidden = student.encode(image)
        f_s = student.absorb(hidden)
        assert student.grids(hidden)[0] == tuple(n // 32 for n in size)
        assert len(f_s) == LEVELS[levels]
        assert [t.shape[2] for t in f_s] == [192, 96, 48][: LEVELS[levels]]
        assert student.decode(image, hidden, f_s).shape == (1, 12, *size)
        assert student(image).shape == (1, 4, *size)


def test_parts_make_the_whole(make):
    student, image = make.student().eval(), torch.randn(1, 1, 32, 32, 64)
    boxes = torch.full((1, 3, 2, 3), torch.nan)
    boxes[0, 1] = torch.tensor([[3.0, 4, 5], [20, 21, 40]])
    with torch.no_grad():
        hidden = student.encode(image)
        features = student.decode(image, hidden, student.absorb(hidden))
        assert torch.equal(student.mask_head(features, boxes), student(image, boxes))


def test_without_attention_and_tokens_it_is_monais_swin_unetr(make):
    """The on/off check: silence A and the mask tokens, and plain Swin UNETR is left."""
    student = make.student().eval()
    for layer in (student.attend[0].attention.out, student.attend[0].mlp.linear2, student.head.hyper[-1]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    plain = MonaiSwinUNETR(
        in_channels=1, out_channels=4, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 2, 3, 4)
    ).eval()
    plain.load_state_dict(student.backbone.state_dict())
    image = torch.randn(1, 1, 32, 64, 32)
    with torch.no_grad():
        torch.testing.assert_close(student(image), plain(image), atol=2e-5, rtol=1e-4)


def test_checkpointing_changes_nothing(make):
    student = make.student()
    saving = make.student(gradient_checkpointing=True)
    saving.load_state_dict(student.state_dict())
    image = torch.randn(1, 1, 32, 32, 64)
    losses = []
    for network in (student, saving):
        network.train()
        loss = network(image).square().mean()
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(losses[0], losses[1])
    for (name, a), b in zip(student.named_parameters(), saving.parameters(), strict=True):
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_metadata_is_left_behind(make):
    student = make.student().eval()
    image = MetaTensor(torch.randn(1, 1, 32, 32, 64))
    with torch.no_grad():
        out = student(image)
    assert not isinstance(out, MetaTensor)


@pytest.mark.parametrize("levels", LEVELS)
def test_torchscript_trace_is_equal(make, levels):
    student, image = make.student(levels=levels).eval(), torch.randn(1, 1, 32, 32, 64)
    with torch.no_grad():
        traced = torch.jit.trace(student, image, check_trace=False)
        other = torch.randn(1, 1, 32, 32, 64)
        torch.testing.assert_close(traced(other), student(other))
    assert "expert" not in str(traced.inlined_graph)


def test_torch_export_is_equal(make):
    student, image = make.student().eval(), torch.randn(1, 1, 32, 32, 64)
    with torch.no_grad():
        exported = torch.export.export(student, (image,)).module()
        other = torch.randn(1, 1, 32, 32, 64)
        torch.testing.assert_close(exported(other), student(other), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"num_structures": 0},
        {"levels": "all"},
        {"prompt_fuse": "sum"},
        {"fuse_at": "image"},
        {"num_self_attention_heads": 7},
    ],
)
def test_bad_options(make, options):
    with pytest.raises(ConfigError):
        make.student(**options)


@pytest.mark.parametrize("size", [(32, 32, 48), (30, 32, 32)])
def test_window_size(make, size):
    with pytest.raises(ConfigError, match="multiple of 32"):
        make.student()(torch.zeros(1, 1, *size))


def test_a_single_bottleneck_voxel_is_refused_in_training_only(make):
    student = make.student().train()
    with pytest.raises(ConfigError, match="64 or more"):
        student(torch.zeros(1, 1, 32, 32, 32))
    student.eval()(torch.zeros(1, 1, 32, 32, 32))


def test_pretrained_encoder_is_loaded_into_the_student_or_refused(make, tmp_path):
    student = make.student()
    assert pretrained(student) is student
    encoder = {f"module.{k}": torch.full_like(v, 0.5) for k, v in student.backbone.swinViT.state_dict().items()}
    public = {k.replace("linear1", "fc1").replace("linear2", "fc2"): v for k, v in encoder.items()}
    torch.save({"state_dict": public}, tmp_path / "model_swinvit.pt")
    pretrained(student, tmp_path / "model_swinvit.pt")
    assert (student.backbone.swinViT.layers1[0].blocks[0].mlp.linear1.weight == 0.5).all()
    torch.save({"state_dict": dict(list(public.items())[:3])}, tmp_path / "part.pt")
    with pytest.raises(WeightError, match=r"part\.pt"):
        pretrained(student, tmp_path / "part.pt")
