"""Scans answered by prompts: the very session that a user would have had, as one label map."""

import json
import logging

import pytest
import torch
from monai.data import DataLoader, MetaTensor

from common.data.prompts.click_protocol import click_protocol
from common.data.prompts.clicks import click_generator
from common.data.prompts.targets import UserPromptsd
from common.engine.interactive.rehearse import rehearse
from common.engine.interactive.session import Session
from common.engine.interactive.volume import PromptedVolume, _mark
from common.errors import ConfigError, DataError, PromptError
from common.literals import file_name
from common.overlap import dice_of_each

AFFINE = torch.tensor([[-1.8, 0.0, 0.0, 30.0], [0.0, 1.2, 0.0, -9.0], [0.0, 0.0, 2.4, 4.0], [0.0, 0.0, 0.0, 1.0]])
SHAPE = (30, 40, 20)
RULES = click_protocol(steps=3)


def scan():
    """Two bright blocks, A larger than B, on a grid of its own."""
    label = torch.zeros(1, 1, *SHAPE)
    label[..., 5:12, 8:18, 4:10] = 1
    label[..., 18:26, 24:34, 9:15] = 2
    image = torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(1)) * 0.2 + (label == 1) + 2 * (label == 2)
    return MetaTensor(image, affine=AFFINE.double()), label


def told(prompts):
    image, _ = scan()
    image.meta["prompts"] = json.dumps(prompts)
    return image


def asked(network, **options):
    return PromptedVolume(network=network, structures=["a", "b"], spacing=1.5, protocol=RULES, **options)


def test_prompts_of_a_user_are_a_session(growing):
    network = growing()
    prompts = {"b": {"inside": [[21, 28, 12]]}, "a": {"inside": [[8, 12, 7], [9, 14, 6]], "outside": [[14, 14, 6]]}}
    found = asked(network)(told(prompts), case=["x"])
    session = Session(network=growing(), image=MetaTensor(scan()[0][0], affine=AFFINE.double()), spacing=1.5)
    session.click("b", [21, 28, 12])
    for point, inside in (([8, 12, 7], True), ([9, 14, 6], True), ([14, 14, 6], False)):
        session.click("a", point, inside=inside)
    b, a = (session.label_map().as_tensor()[0] == number for number in (1, 2))
    expected = torch.zeros(SHAPE)
    expected[a], expected[b] = 1, 2  # by the label space, in whatever order they were asked for
    assert found.shape == (1, 1, *SHAPE) and torch.equal(found.as_tensor()[0, 0], expected)
    assert torch.allclose(torch.as_tensor(found.affine).reshape(-1, 4, 4)[0], AFFINE.double())
    assert a.any() and b.any()


def test_a_box_comes_before_clicks(growing):
    network = growing()
    prompts = {"a": {"inside": [[8, 12, 7]], "box": [[5, 8, 4], [11, 17, 9]]}}
    asked(network)(told(prompts))
    assert network.asked[0].points is None and network.asked[0].boxes is not None
    assert network.asked[-1].points is not None and network.asked[-1].boxes is not None


def test_other_names_are_numbered_behind_and_logged(growing, caplog):
    built = asked(growing())
    with caplog.at_level(logging.INFO):
        found = built(told({"stone": {"inside": [[21, 28, 12]]}, "b": {"inside": [[8, 12, 7]]}}))
    assert built.names == ("a", "b", "stone") and set(found.unique().tolist()) == {0, 2, 3}
    assert "stone is number 3" in caplog.text and float(found[0, 0, 21, 28, 12]) == 3


def test_simulated_clicks_are_a_rehearsal(growing):
    image, label = scan()
    found = asked(growing(), source="gt", seed=5)(image, label, case="c1").as_tensor()
    session = Session(network=growing(), image=MetaTensor(image[0], affine=AFFINE.double()), spacing=1.5)
    for index, name in ((1, "a"), (2, "b")):
        target = MetaTensor((label[0] == index).float(), affine=AFFINE.double())
        rehearse(session, name, target, RULES, generator=click_generator(5, "c1", name))
    assert torch.equal(found[0], session.label_map().as_tensor().float())
    for index in (1, 2):
        assert float(dice_of_each(found == index, label == index)) > 0.7
    assert not torch.equal(found, asked(growing(), source="gt", seed=6)(image, label, case="c1").as_tensor())


def test_simulated_boxes(growing):
    image, label = scan()
    network = growing()
    found = asked(network, source="gt", prompt="box")(image, label)
    assert len(network.asked) == 2 and all(a.points is None for a in network.asked)
    assert float(dice_of_each(found.as_tensor() == 2, label == 2)) > 0.5


def test_structures_that_are_not_there_are_not_asked_for(growing):
    image, label = scan()
    network = growing()
    found = asked(network, source="gt")(image, label * (label == 2))
    assert set(found.unique().tolist()) == {0, 2}
    nothing = asked(growing(), source="gt")(image, torch.zeros_like(label))
    assert not nothing.any() and nothing.shape == label.shape


def test_a_flat_object_gets_a_box_with_an_extent(growing):
    image, label = scan()
    flat = torch.zeros_like(label)
    flat[..., 10, 20, 19] = 1  # one voxel, on the last slice
    network = growing()
    asked(network, source="gt", prompt="box")(image, flat)
    assert len(network.asked) == 1 and bool((network.asked[0].boxes[0, 1] >= network.asked[0].boxes[0, 0]).all())


def test_what_cannot_be_meant_is_refused_by_case_and_object(growing):
    checks = {
        "needs prompts": {},
        "outside the volume": {"a": {"inside": [[30, 0, 0]]}},
        "no extent": {"a": {"box": [[5, 5, 5], [5, 9, 9]]}},
        "corners of a box are swapped": {"a": {"box": [[9, 9, 9], [5, 5, 5]]}},
        "prompts are not understood": {"a": {"insde": [[1, 2, 3]]}},
        "object's prompts": {"a": {"inside": []}},
        "begins with a click inside": {"a": {"outside": [[1, 2, 3]]}},
    }
    for message, prompts in checks.items():
        with pytest.raises(PromptError, match=rf"(?s){message}.*scan 7|scan 7.*{message}"):
            asked(growing())(told(prompts), case=["scan 7"])
    with pytest.raises(PromptError, match=r"without box embeddings used with boxes"):
        asked(growing(boxes=False))(told({"a": {"box": [[1, 1, 1], [5, 9, 9]]}}))


def test_other_input_is_refused(growing):
    image, _ = scan()
    for wrong in (torch.zeros(1, 1, *SHAPE), image[0], torch.cat([image, image])):
        with pytest.raises(DataError, match="one scan of one channel"):
            asked(growing())(wrong)
    with pytest.raises(DataError, match=r"(?s)need an annotation.*--prompt_source user"):
        asked(growing(), source="gt")(image)
    for given, where in (({"source": "file"}, "prompt_source"), ({"prompt": "mask"}, "prompt")):
        with pytest.raises(ConfigError, match=where):
            asked(growing(), **given)


def test_prompts_survive_a_loader(growing):
    """From a data set's dictionary, through batching, to the answer."""
    image, _ = scan()
    prompts = {"b": {"inside": [[21, 28, 12]]}}
    chain = UserPromptsd(prompts)
    batch = next(iter(DataLoader([chain({"image": image[0], "case": "x"})], batch_size=1)))
    found = asked(growing())(batch["image"], case=batch["case"])
    assert torch.equal(found.as_tensor(), asked(growing())(told(prompts), case="x").as_tensor())


def test_scans_of_one_name_have_a_page_each(growing):
    network, image = growing(), scan()[0][0]
    volume = PromptedVolume(network=None, structures=("liver",))
    volume._mark = first = _mark(image, network)
    assert volume._page_name("case 1") == volume._page_name("case 1") == file_name("case 1")
    with torch.no_grad():
        network.sharp.add_(1)
    volume._mark = _mark(image, network)  # the same scan under other weights, which stand last
    assert volume._mark[:4] == first[:4] and volume._mark[4:] != first[4:]
    assert volume._page_name("case 1") == file_name("case 1")
    moved, others = MetaTensor(image.as_tensor(), affine=2 * AFFINE.double()), set()
    for scanned in (image + 1, moved, image[..., :10], image.half()):
        volume._mark = _mark(scanned, network)
        other = volume._page_name("case 1")
        assert other.startswith(file_name("case 1") + "_") and volume._page_name("case 1") == other
        others.add(other)
    assert len(others) == 4 and volume._page_name("CASE 2") == file_name("CASE 2")
