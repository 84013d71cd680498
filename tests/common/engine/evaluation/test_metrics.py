"""The evaluator handlers: validation Dice over annotated classes, and the files of an evaluation."""

import json
import math

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted, Compose

from common.engine.evaluation.metrics import AnnotatedDice, CaseMetrics, metric_word, metric_words
from common.engine.evaluation.score_summary import read_case_csv
from common.engine.evaluation.scores import case_metrics
from common.errors import DataError, GeometryError, LabelError
from common.labels import LabelSpace

LABELS = LabelSpace(("liver", "left kidney"))
AFFINE = torch.diag(torch.tensor([-1.5, 2.0, 3.0, 1.0], dtype=torch.float64))


def shapes(shift=0):
    volume = torch.zeros(1, 24, 20, 12)
    volume[0, 2 + shift : 14, 4:16, 2:10] = 1
    volume[0, 18:22, 6 + shift : 12, 3:8] = 2
    return volume


def item(case, shift=0, annotated=(True, True, True), task="ct", **more):
    label, pred = (MetaTensor(shapes(s), affine=AFFINE) for s in (0, shift))
    return {"label": label, "pred": pred, "case": case, "task": task, "annotated": torch.tensor(annotated)} | more


def run(handler, items, **attach):
    """Feed one-item batches as a MONAI evaluator would leave them."""

    def step(engine, batch):
        engine.state.batch = [{k: v for k, v in batch.items() if k not in ("pred", "label")}]
        return [{k: batch[k] for k in ("pred", "label")}]

    engine = Engine(step)
    handler.attach(engine, **attach)
    engine.run(items, 1)
    return engine


def test_annotated_dice_equals_naive_mean_over_annotated():
    items = [item("a"), item("b", 2), item("c", 3, (True, False, True)), item("d", 1, (True, True, False))]
    engine = run(AnnotatedDice(labels=LABELS), items, name="val_dice")
    expected = {n: [] for n in LABELS.names}
    for i in items:
        for row in case_metrics(i["pred"], i["label"], LABELS, i["annotated"]):
            expected[row["structure"]].append(row["dice"])
    means = [np.mean(v) for v in expected.values()]
    assert engine.state.metrics["val_dice"] == pytest.approx(np.mean(means))
    assert engine.state.metrics["val_dice_left_kidney"] == pytest.approx(means[1])


@pytest.mark.parametrize("form", ["index", "logits", "one_hot"])
def test_annotated_dice_takes_maps_logits_and_one_hot(form):
    one = item("a", 2)
    index = one["pred"][0].long()
    hot = torch.nn.functional.one_hot(index, 3).permute(3, 0, 1, 2).float()
    one["pred"] = {"index": one["pred"], "logits": hot * 3 - 1, "one_hot": hot}[form]
    expected = np.mean([r["dice"] for r in case_metrics(index, one["label"], LABELS)])
    engine = run(AnnotatedDice(labels=LABELS.to_dict(), per_class=False), [one], name="d")
    assert engine.state.metrics == {"d": pytest.approx(expected)}


def test_annotated_dice_overlapping_structures():
    space = LabelSpace(("a", "b"), exclusive=False)
    label = torch.zeros(2, 4, 4, 4)
    label[0, :2], label[1] = 1, 1
    metric = AnnotatedDice(labels=space)
    metric.update({"pred": label * 2 - 1, "label": label, "case": "x"})
    assert metric.compute() == 1.0


def test_annotated_dice_skips_empty_and_counts_false_positives():
    empty = torch.zeros(1, 6, 6, 6)
    metric = AnnotatedDice(labels=LABELS)
    metric.update({"pred": empty, "label": empty})
    with pytest.raises(Exception, match="no validated case"):
        metric.compute()
    found = empty.clone()
    found[0, 2] = 1
    metric.update({"pred": found, "label": empty})
    assert metric.compute() == 0.0


def test_annotated_dice_refuses():
    metric = AnnotatedDice(labels=LABELS)
    with pytest.raises(DataError, match="NaN"):
        metric.update({"pred": torch.full((3, 4, 4, 4), math.nan), "label": torch.zeros(1, 4, 4, 4)})
    with pytest.raises(DataError, match="shape"):
        metric.update({"pred": torch.zeros(1, 4, 4, 4), "label": torch.zeros(1, 4, 4, 5)})
    with pytest.raises(LabelError, match="channels"):
        metric.update({"pred": torch.zeros(2, 4, 4, 4), "label": torch.zeros(1, 4, 4, 4)})


def test_annotated_dice_takes_a_class_that_is_ruled_out_and_nothing_else_that_is_infinite():
    logits, label = torch.zeros(3, 4, 4, 4), torch.ones(1, 4, 4, 4)
    logits[1, :, :, :2], logits[2] = 5.0, -torch.inf
    metric = AnnotatedDice(labels=LABELS)
    metric.update({"pred": logits, "label": label})
    assert metric.compute() == pytest.approx(2 / 3)  # half of the voxels
    for value in (torch.inf, -torch.inf, torch.nan):
        broken = logits.clone()
        broken[0, 0, 0, 0] = value
        with pytest.raises(DataError, match="infinite"):
            metric.update({"pred": broken, "label": label})
    with pytest.raises(DataError, match="infinite"):
        metric.update({"pred": torch.full((3, 4, 4, 4), -torch.inf), "label": label})


def test_annotated_dice_is_an_evaluators_key_metric():
    """Through MONAI's own evaluator, with decollation and a batch of two."""
    data = [{"image": shapes(s), "label": shapes(), "annotated": torch.tensor([True, True, s == 0])} for s in (0, 2)]
    network = torch.nn.Identity()
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data), batch_size=2),
        network=network,
        key_val_metric={"val_dice": AnnotatedDice(labels=LABELS)},
        postprocessing=Compose([AsDiscreted(keys="pred", rounding="torchrounding")]),
    )
    evaluator.run()
    liver = case_metrics(shapes(2), shapes(), LABELS)[0]["dice"]
    assert evaluator.state.best_metric == pytest.approx(((1 + liver) / 2 + 1) / 2)


def test_case_metrics_writes_tables_pictures_and_summary(tmp_path):
    image = MetaTensor(torch.rand(1, 12, 10, 6), affine=AFFINE @ torch.diag(torch.tensor([2.0, 2, 2, 1]).double()))
    items = [item(f"c{s}", s, (True, True, s != 1), "mr" if s % 2 else "ct", image=image) for s in range(5)]
    for i, found in enumerate(items):
        found["doubt"] = "no HU" if i == 2 else ""
    run(CaseMetrics(output_dir=tmp_path, labels=LABELS, n_boot=20, pictures=1, extra={"prompt_source": "none"}), items)
    folder = tmp_path / "evaluation"
    rows = read_case_csv(folder / "cases.csv")
    expected = [r for i in items for r in case_metrics(i["pred"], i["label"], LABELS, i["annotated"], (1.5, 2.0, 3.0))]
    assert len(rows) == len(expected) == 9
    for got, want in zip(rows, expected, strict=True):
        for key in ("dice", "hd95", "surface_dice", "volume_label_ml"):
            np.testing.assert_allclose(got[key], want[key], rtol=1e-5)
    content = json.loads((folder / "summary.json").read_text())
    assert content["unannotated_skipped"] == {"left kidney": 1} and content["doubts"] == {"ct, c2": "no HU"}
    assert content["prompt_source"] == "none" and content["empty_rule"] == "nan_skip"
    assert set(content["tasks"]) == {"ct", "mr"} and content["all"]["cases"] == 5
    overlays = json.loads((folder / "overlays" / "overlays.json").read_text())
    assert {(o["kind"], o["task"], o["case"]) for o in overlays} == {
        ("worst", "ct", "c4"),
        ("best", "ct", "c0"),
        ("worst", "mr", "c3"),
        ("best", "mr", "c1"),
    }
    for o in overlays:
        assert (folder / "overlays" / o["file"]).read_bytes()[:4] == b"\x89PNG"
        assert o["file"].endswith(f"_{o['dice']:.3f}.png") and o["case"] in o["file"]


def test_case_metrics_removes_what_an_earlier_run_left(tmp_path):
    folder = tmp_path / "evaluation"
    (folder / "overlays").mkdir(parents=True)
    for name in ("summary.json", "cases.csv", "overlays/best.png"):
        (folder / name).write_text("old")
    broken = item("a")
    broken["pred"] = broken["pred"] + math.nan
    with pytest.raises(DataError, match="NaN"):
        run(CaseMetrics(output_dir=tmp_path, labels=LABELS), [broken])
    assert not [p for p in folder.rglob("*") if p.is_file()]


def test_case_metrics_refuses_another_grid(tmp_path):
    moved = item("a")
    moved["pred"].affine = AFFINE.clone()
    moved["pred"].affine[0, 3] = 50
    with pytest.raises(GeometryError, match="one grid"):
        run(CaseMetrics(output_dir=tmp_path, labels=LABELS), [moved])
    other = item("b")
    other["pred"] = other["pred"][:, :-1]
    with pytest.raises(GeometryError, match="one grid"):
        run(CaseMetrics(output_dir=tmp_path, labels=LABELS), [other])


def test_case_metrics_needs_a_name(tmp_path):
    nameless = item("")
    with pytest.raises(DataError, match="has no name"):
        run(CaseMetrics(output_dir=tmp_path, labels=LABELS), [nameless])


def test_case_metrics_works_in_two_dimensions(tmp_path):
    flat = [{"pred": shapes(1)[..., 5], "label": shapes()[..., 5], "case": "x", "image": torch.rand(1, 24, 20)}]
    run(CaseMetrics(output_dir=tmp_path, labels=LABELS, n_boot=5), flat)
    assert len(list((tmp_path / "evaluation" / "overlays").glob("*.png"))) == 1


@pytest.mark.parametrize(
    ("structure", "word"),
    [("left kidney", "left_kidney"), ("GTV+", "GTV_x2B"), ("liver (whole)", "liver__x28whole_x29"),
     ("[x]", "_x5Bx_x5D"), ("Größe", "Größe"), ("a,b", "a_x2Cb"), ("a.b-c", "a.b-c")],
)  # fmt: skip
def test_every_structure_can_be_a_part_of_a_metrics_name(structure, word):
    """MLflow is the judge."""
    from mlflow.utils.validation import _validate_metric_name

    assert metric_word(structure) == word
    _validate_metric_name(f"val_mean_dice_{word}")


def test_long_and_similar_structures_have_metrics_of_their_own():
    names = ["+" * 128, "+" * 127, "-+", "_+", "liver+", "liver-", "liver", "liver_"]
    names += ["left kidney", "left_kidney", "a+", "a_x2B"]
    words = metric_words(names)
    assert words[:7] == [metric_word(name) for name in names[:7]]
    assert len(set(words)) == len(names) and max(map(len, words)) < 150
