"""The forgetting report: every decoder alone and the mixture, asked the same, and means written out.

Also the test of ``common.methods.sam_med3d_moe.forgetting_table``,
``common.methods.sam_med3d_moe.forgetting_picture``.
"""

import csv
import json

import pytest
import torch
from torch.utils.data import Dataset

from common.backbones.sam3d.network import sam3d_network
from common.data.prompts.click_protocol import click_protocol
from common.data.prompts.clicks import click_generator
from common.engine.interactive.prompting import click_scores
from common.errors import ConfigError
from common.methods.sam_med3d_moe.forgetting import ForgettingReport, summary
from common.methods.sam_med3d_moe.start import General, read_decoders
from common.methods.sam_med3d_moe.start import mixture as build


def rows():
    """Two structures of two experts, two without; two prompts; two objects of the liver."""
    found, value = [], 0.0
    for case, structure, expert in (("c1", "liver", "a"), ("c2", "liver", "a"), ("c1", "scar", "b"),
                                    ("c1", "aorta", ""), ("c1", "spleen", "")):  # fmt: skip
        for decoder in ("general", "a", "b", "mixture"):
            for prompt in ("1 click", "box"):
                value = (value + 0.137) % 1
                chosen = (
                    {"liver": "a", "scar": "a", "aorta": "", "spleen": "b"}[structure] if decoder == "mixture" else ""
                )
                found.append({"case": case, "task": "t", "structure": structure, "expert": expert, "decoder": decoder,
                              "prompt": prompt, "dice": value, "chosen": chosen})  # fmt: skip
    return found


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def test_summary_is_the_mean_over_structures_of_means_over_objects():
    given = rows()
    found = summary(given, ["a", "b"])
    assert found["prompts"] == ["1 click", "box"] and list(found["groups"]) == ["a", "b", "others"]

    def dice(structure, decoder, prompt):
        return mean(
            r["dice"] for r in given if (r["structure"], r["decoder"], r["prompt"]) == (structure, decoder, prompt)
        )

    for prompt in found["prompts"]:
        liver = found["structures"]["liver"]["dice"][prompt]
        assert liver["general"] == pytest.approx(dice("liver", "general", prompt))
        assert liver["experts"] == pytest.approx(dice("liver", "a", prompt))
        assert liver["mixture"] == pytest.approx(dice("liver", "mixture", prompt))
        aorta = found["structures"]["aorta"]["dice"][prompt]
        assert aorta["experts"] == pytest.approx(mean(dice("aorta", d, prompt) for d in ("a", "b")))
        others = found["groups"]["others"]["dice"][prompt]
        for model in ("general", "mixture"):
            assert others[model] == pytest.approx(mean(dice(s, model, prompt) for s in ("aorta", "spleen")))
    assert found["structures"]["liver"]["objects"] == 2 and found["groups"]["others"]["structures"] == 2
    assert found["gate_right"] == pytest.approx(3 / 5)  # liver twice and aorta


def test_groups_without_members_are_left_out():
    given = [r for r in rows() if r["structure"] == "liver"]
    assert list(summary(given, ["a", "b"])["groups"]) == ["a"]


class Objects(Dataset):
    """A block each of a structure with an expert and one without."""

    def __len__(self):
        return 2

    def __getitem__(self, i):
        torch.manual_seed(i)
        label = torch.zeros(1, 32, 32, 32)
        label[0, 6 + i : 20, 8:22, 10:20] = 1
        box = torch.tensor([[6.0 + i, 8, 10], [19, 21, 19]])
        return {"image": torch.randn(1, 32, 32, 32) + 2 * label, "label": label, "box": box, "case": f"c{i}",
                "task": "t", "name": ("liver", "aorta")[i], "expert": 1 - i}  # fmt: skip


@pytest.fixture
def network(sam3d_files):
    general = sam3d_files.general()
    base = sam3d_network("tiny", seed=0, boxes=True)
    found = read_decoders([sam3d_files.expert("a", "liver", of=general)], base)
    settings = {"variant": "tiny", "image_size": 32, "rel_pos": "intended", "boxes": True}
    return build(General(base, settings), found, hidden=16, tau=0.2).eval()


def report(network, folder, **options):
    return ForgettingReport(
        network=network, dataset=Objects(), output_dir=folder, quiet=True, **{"clicks": [2, 1], **options}
    )


def test_every_decoder_is_asked_and_answers_as_it_does_alone(network, tmp_path):
    found = report(network, tmp_path, seed=3).run()
    with (tmp_path / "evaluation" / "forgetting.csv").open() as file:
        given = list(csv.DictReader(file))
    assert {r["decoder"] for r in given} == {"general", "a", "mixture"} and len(given) == 2 * 3 * 3
    assert [r["prompt"] for r in given[:3]] == ["1 click", "2 clicks", "box"]
    assert {r["structure"]: r["expert"] for r in given} == {"liver": "a", "aorta": ""}
    item = Objects()[0]
    rules = click_protocol("evaluation", steps=2)
    draws = [click_generator(3, "c0", "liver")]
    alone = click_scores(network, network.encode(item["image"][None]), item["label"][None], rules, generator=draws,
                         decode=lambda e, p: network.decode_with("a", e, p))  # fmt: skip
    own = [float(r["dice"]) for r in given if (r["structure"], r["decoder"]) == ("liver", "a")]
    assert own[:2] == pytest.approx(alone.dice[:, 0].tolist())
    boxed = click_scores(network.base, network.encode(item["image"][None]), item["label"][None], click_protocol("box"),
                         boxes=item["box"][None])  # fmt: skip
    assert float(given[2]["dice"]) == pytest.approx(float(boxed.dice[0, 0]))
    assert json.loads((tmp_path / "evaluation" / "forgetting.json").read_text()) == json.loads(json.dumps(found))
    assert (tmp_path / "pictures" / "forgetting.png").stat().st_size > 5000
    assert "forgetting.png" in json.loads((tmp_path / "pictures" / "captions.json").read_text())


def test_whom_the_gate_asked_is_told(network, tmp_path):
    for bias, chosen in (((0.0, 50.0), "a"), ((50.0, 0.0), "")):
        with torch.no_grad():
            network.gate.head[-1].weight.zero_()
            network.gate.head[-1].bias.copy_(torch.tensor(bias))
        found = report(network, tmp_path, boxes=False).run()
        with (tmp_path / "evaluation" / "forgetting.csv").open() as file:
            given = [r for r in csv.DictReader(file) if r["decoder"] == "mixture"]
        assert {r["chosen"] for r in given} == {chosen} and found["gate_right"] == 0.5
        same = "experts" if chosen else "general"  # sure of it: that decoder's answer
        for own in found["structures"].values():
            for dice in own["dice"].values():
                assert dice["mixture"] == pytest.approx(dice[same], abs=1e-3)


def test_a_box_is_a_session_of_its_own(network, tmp_path, monkeypatch):
    """A gate that keeps its first choice does not answer the box by what it thought of the clicks."""
    asked = []
    score = type(network).score
    monkeypatch.setattr(type(network), "score", lambda self, *given: asked.append(given[1]) or score(self, *given))
    for gate_at, questions in (("first", 2), ("every", 3)):  # two clicks and a box, of each of two objects
        asked.clear()
        report(network, tmp_path, gate_at=gate_at).run()
        assert len(asked) == 2 * questions


def test_the_best_of_several_clicks_may_count(network, tmp_path):
    last, best = (report(network, tmp_path, clicks=[3], boxes=False, protocol=click_protocol("tables", report=r)).run()
                  for r in ("last", "best"))  # fmt: skip
    for name, own in best["structures"].items():
        for model, dice in own["dice"]["3 clicks"].items():
            assert dice >= last["structures"][name]["dice"]["3 clicks"][model] - 1e-6


def test_refusals_and_what_a_network_cannot_read(network, tmp_path):
    for clicks in ([], [0], [2, -1]):
        with pytest.raises(ConfigError, match="report_clicks"):
            report(network, tmp_path, clicks=clicks, boxes=False)
    assert report(network, tmp_path, clicks=[]).boxes
    network.base.prompt_encoder.box_embeddings = None
    assert not network.boxes and not report(network, tmp_path).boxes
