"""Box prompts of a volume arrive in the voxels of the image that the network sees."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Orientation, Spacing

from common.contract import Contract
from common.data.prompts.targets import BoxPromptsd, KeepTargetsd, TellUntaughtd, UserPromptsd, move_boxes
from common.errors import ConfigError, PromptError


def _volume(axcodes: str = "RAS") -> MetaTensor:
    label = torch.zeros(1, 20, 24, 16)
    label[0, 4:9, 6:15, 3:7] = 1
    affine = torch.diag(torch.tensor([2.0, 1.0, 3.0, 1.0])).double()
    affine[:3, 3] = torch.tensor([-7.0, 5.0, 11.0])
    return Orientation(axcodes=axcodes, labels=None)(MetaTensor(label, affine=affine))


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SAL", "PIR"])
def test_boxes_follow_the_structure_through_orientation_and_spacing(axcodes: str) -> None:
    label = _volume(axcodes)
    chain = Compose([Orientation(axcodes="RAS", labels=None), Spacing(pixdim=(1.0, 1.0, 1.0), mode="nearest")])
    image = chain(label)
    out = BoxPromptsd("gt", ["liver", "spleen"])({"image": image, "label": label})
    where = torch.nonzero(image[0])
    expected = torch.stack([where.amin(0), where.amax(0)]).float()
    assert (out["image"].meta["boxes"][0] - expected).abs().max() <= 2  # half a source voxel of 3 mm, rounded
    assert out["image"].meta["boxes"][1].isnan().all()


def test_moved_boxes_equal_moving_each_corner() -> None:
    generator = np.random.default_rng(0)
    source, target = (np.eye(4), np.eye(4))
    source[:3, :3] = np.linalg.qr(generator.normal(size=(3, 3)))[0] * [1.0, 2.0, 3.0]
    target[:3, :3] = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    target[:3, 3] = 4.0
    box = np.array([[1.0, 2.0, 3.0], [5.0, 9.0, 4.0]])
    points = [
        (np.linalg.inv(target) @ source @ np.array([*(box[c, a] for a, c in enumerate(corner)), 1.0]))[:3]
        for corner in itertools.product((0, 1), repeat=3)
    ]
    expected = np.stack([np.min(points, 0), np.max(points, 0)]).round()
    moved = move_boxes(torch.tensor(box)[None].float(), torch.tensor(source), torch.tensor(target))
    np.testing.assert_allclose(moved[0], expected, atol=1e-4)


def test_user_boxes_are_given_by_name_in_voxels_of_the_original_image() -> None:
    image = MetaTensor(torch.zeros(1, 8, 8, 8), affine=torch.diag(torch.tensor([1.0, 1, 1, 1])).double())
    image.meta["original_affine"] = torch.diag(torch.tensor([2.0, 2, 2, 1])).double()
    out = BoxPromptsd("user", ["liver", "spleen"])({"image": image, "boxes": {"spleen": [[0, 1, 1], [2, 3, 3]]}})
    assert out["image"].meta["boxes"][1].tolist() == [[0, 2, 2], [4, 6, 6]]
    with pytest.raises(PromptError, match="liver, spleen"):
        BoxPromptsd("user", ["liver", "spleen"])({"image": image, "boxes": {"kidney": [[0, 0, 0], [1, 1, 1]]}})


def test_no_source_leaves_the_case_alone_and_an_unknown_one_is_refused() -> None:
    image = MetaTensor(torch.zeros(1, 4, 4, 4))
    assert "boxes" not in BoxPromptsd("none", ["liver"])({"image": image})["image"].meta
    assert "boxes" not in BoxPromptsd("user", ["liver"])({"image": image})["image"].meta
    with pytest.raises(ConfigError, match="prompt_source"):
        BoxPromptsd("expert", ["liver"])
    with pytest.raises(PromptError, match="MetaTensor"):
        BoxPromptsd("gt", ["liver"])({"image": torch.zeros(1, 4, 4, 4), "label": image})


def test_only_the_targets_compete() -> None:
    logits = torch.arange(4.0)[:, None, None, None].expand(4, 2, 2, 2)
    names = ["liver", "spleen", "stomach"]
    data = {"pred": logits, "annotated": torch.tensor([True, True, False, False])}
    assert KeepTargetsd("all", names)(data)["pred"].argmax(0).unique().tolist() == [3]
    assert KeepTargetsd("task", names)(data)["pred"].argmax(0).unique().tolist() == [1]
    assert KeepTargetsd(["spleen"], names)(data)["pred"].argmax(0).unique().tolist() == [2]
    overlapping = KeepTargetsd("task", names)({**data, "pred": logits[1:]})["pred"]
    assert overlapping[0].isfinite().all() and (overlapping[1:] < -1e30).all()


def test_only_the_targets_compete_in_pictures_and_for_each_expert_that_answered() -> None:
    logits = torch.arange(4.0)[:, None, None].expand(4, 2, 2)
    data = {"pred": logits, "basic": logits + 1, "annotated": torch.tensor([True, False, True, False])}
    found = KeepTargetsd("task", ["liver", "spleen", "stomach"], ("pred", "basic", "mean"))(data)
    assert [found[k].argmax(0).unique().tolist() for k in ("pred", "basic")] == [[2], [2]] and "mean" not in found
    with pytest.raises(KeyError, match="pred"):
        KeepTargetsd("task", ["liver"], ("pred", "mean"))({"annotated": torch.ones(2)})


def test_unknown_targets_and_other_logits_are_refused() -> None:
    with pytest.raises(PromptError, match="kidney"):
        KeepTargetsd(["kidney"], ["liver"])
    with pytest.raises(PromptError, match="logits"):
        KeepTargetsd("task", ["liver"])({"pred": torch.zeros(5, 1, 1, 1), "annotated": torch.ones(2)})


def test_prompts_of_a_user_travel_in_the_image_s_meta(tmp_path) -> None:
    given = {"liver": {"inside": [[1, 2, 3]], "box": [[0, 0, 0], [4, 4, 4]]}}
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps(given))
    for prompts in (given, str(file)):
        out = UserPromptsd(prompts)({"image": _volume(), "case": "x"})
        assert json.loads(out["image"].meta["prompts"]) == given and out["case"] == "x"
    own = {"spleen": {"outside": [[5, 5, 5]], "inside": [[6, 6, 6]]}}
    out = UserPromptsd(given)({"image": _volume(), "prompts": own})
    assert json.loads(out["image"].meta["prompts"]) == own and "prompts" not in out  # a case's own go first
    for nothing in (None, {}):
        assert "prompts" not in UserPromptsd(nothing)({"image": _volume()})["image"].meta


@pytest.mark.parametrize("wrong", ["nowhere.json", ["liver"], {"liver": [[1, 2, 3]]}, 3])
def test_prompts_that_are_none_are_refused(wrong: object) -> None:
    with pytest.raises(PromptError, match=r"prompts (cannot be read|are objects by name)"):
        UserPromptsd(wrong)  # type: ignore[arg-type]


def test_prompts_need_the_image_s_grid() -> None:
    with pytest.raises(PromptError, match="MetaTensor"):
        UserPromptsd({"a": {"inside": [[1, 1, 1]]}})({"image": torch.zeros(1, 4, 4, 4)})


def test_a_prompted_structure_that_was_never_taught_is_told(caplog: pytest.LogCaptureFixture) -> None:
    known = Contract(("image",), {"CT": {}, "T2 MR": {}}, {"CT": ("liver",), "T2 MR": ("spleen",)})
    point = {"inside": [[1, 1, 1]]}

    def told(contract: Contract, *names: str, default: str | None = None, **data: Any) -> list[str]:
        case = UserPromptsd(dict.fromkeys(names, point))({"image": _volume(), "case": "x", **data})
        return list(TellUntaughtd(contract, default)(case).get("notes", []))

    (note,) = told(known, "liver", "spleen", "foot", "object 1", default="CTA")
    assert note == "never taught on CTA, the answer follows the prompt alone: spleen, foot" and note in caplog.text
    assert told(known, "liver", default="CT") == [] == told(known, "liver", "spleen")
    assert "liver" in told(known, "liver", default="CT", modality="T2 MR")[0]  # the case's own word
    assert "on CT or T2 MR" in told(known, "foot", notes=["first"])[1]
    assert told(Contract(), "foot") == [] == told(known, default="CT")


def test_a_modality_that_is_taken_for_the_models_is_told(caplog: pytest.LogCaptureFixture) -> None:
    contract = Contract(("CT",), {"CT": {"channels": ["CT"]}}, {"CT": ("liver",)})
    KeepTargetsd("all", ["liver"], contract=contract, modality="CT scan")
    assert not caplog.text
    KeepTargetsd("all", ["liver"], contract=contract, modality="CTA")
    assert "CTA is taken for CT" in caplog.text
