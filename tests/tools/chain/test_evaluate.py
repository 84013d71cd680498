"""A chain evaluates where there are cases, says where there are none, and believes no evaluation without scores."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from common.data.datasets.datalist import read_collection
from common.engine.evaluation.score_summary import write_case_csv, write_summary_json
from common.engine.evaluation.scores import MEASURES
from common.errors import AmalgamationError, ConfigError, DataError
from tests.monai_words import told_by
from tools.chain import run as chain_run
from tools.chain.command import Chain
from tools.chain.evaluate import unscored
from tools.chain.plan import plan
from tools.chain.record import Record
from tools.chain.step import ChainSettings, Step
from tools.compare.command import Compare
from tools.experts.command import Experts
from tools.report.numbers import models_of
from tools.report.page import render
from tools.report.results import read_study

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def settings(collection, tmp_path):
    return ChainSettings("ka2er", collection, tmp_path / "out", preset="smoke", tracking="none")


def _without_test(settings, *tasks, test=()):
    for task in tasks:
        file = settings.dataset_dir / task / "dataset.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "test": list(test)}))


def _ids(steps):
    return {s.id for s in steps}


def test_an_empty_split_is_refused_with_the_command_that_makes_one(settings):
    _without_test(settings, "a", "b")
    message = (
        r"(?s)split 'test'.*is empty.*a: no case, b: no case.*data split .*a --test 0\.2, likewise b; or --split val"
    )
    with pytest.raises(ConfigError, match=message):
        plan(settings)
    with pytest.raises(ConfigError, match="is empty"):
        Compare().run(str(settings.dataset_dir), methods="ka2er", preset="smoke", dry_run=True)
    assert "evaluate:expert:b" in _ids(plan(dataclasses.replace(settings, split="validation")))
    with pytest.raises(DataError, match="no such split"):
        plan(dataclasses.replace(settings, split="tset"))


def test_a_dataset_without_cases_is_left_out_and_that_is_said(settings, capsys):
    assert not unscored(settings)
    _without_test(settings, "b")
    steps = _ids(plan(settings))
    assert {"expert:b", "evaluate:expert:a", "evaluate:amalgamated:seed0"} <= steps and "evaluate:expert:b" not in steps
    (line,) = unscored(settings)
    assert line == "b has no case in the split 'test': nothing is measured on it"
    words = {"preset": "smoke", "external": "none", "dry_run": True}
    Chain().run("ka2er", str(settings.dataset_dir), str(settings.output_dir), **words)
    assert line in capsys.readouterr().err
    Compare().run(str(settings.dataset_dir), methods="ka2er,swin_unet", budget_steps=4, output_dir="none", **words)
    assert capsys.readouterr().err.count(line) == 1


def test_cases_without_label_maps_cannot_be_evaluated(settings):
    """The Decathlon's `test` lists images alone."""
    _without_test(settings, "b", test=["imagesTr/b_2.nii.gz"])
    with pytest.raises(ConfigError, match=r"(?s)have no label map.*got: +b: b_2.*data split \S*/b --test 0\.2;"):
        plan(settings)


def test_a_command_that_leaves_no_scores_has_failed(settings):
    step = Step("evaluate:x", "evaluate", "Evaluation of x", settings.output_dir / "x", (sys.executable, "-c", "pass"),
                produces="evaluation/summary.json")  # fmt: skip
    record = Record.open(settings.output_dir, settings, [step])
    with pytest.raises(AmalgamationError, match=r"(?s)Evaluation of x.*left no result.*summary\.json.*evaluate\.log"):
        chain_run.execute([step], record, settings, 1)
    assert record.row(step)["status"] == "failed"


@pytest.fixture
def described(nnunet_folder, tmp_path):
    def describe(task, labels, **options):
        out = tmp_path / f"{task}.json"
        folder = nnunet_folder(task, labels=labels, channel_names=("CT",), **options)
        Experts().describe(str(folder), str(out), task=task)
        return task, out

    return describe


def test_a_given_expert_is_evaluated_on_its_own_task(settings, described):
    given = described("b", {"background": 0, "spleen": 1, "liver": 2})
    settings = dataclasses.replace(settings, given=(given,))
    steps = {s.id: s for s in plan(settings)}
    step = steps["evaluate:expert:b"]
    words = told_by(step.argv)
    assert "evaluate_ensemble.json" in words["--config_file"] and words["--experts"] == str(given[1])
    assert words["--dataset_dir"] == str(settings.dataset_dir / "b") and words["--split"] == "test"
    assert not step.needs and given[1] in step.inputs and step.output_dir.name == "b" and not unscored(settings)
    assert "ka2er_expert" in told_by(steps["evaluate:expert:a"].argv)["--config_file"]
    listing = {"datasets": ["a", "b"], "tasks": {"b": {"labels": {"spleen": "Spleen"}}}}
    (settings.dataset_dir / "collection.json").write_text(json.dumps(listing))
    renamed = described("b2", {"background": 0, "liver": 1, "Spleen": 2})[1]
    renamed.write_text(renamed.read_text().replace('"task": "b2"', '"task": "b"'))
    step = next(s for s in plan(dataclasses.replace(settings, given=(("b", renamed),))) if s.subject == "expert:b")
    place = told_by(step.argv)["--dataset_dir"]
    assert read_collection(place).labels.names == ("liver", "Spleen")


def test_a_given_expert_of_other_structures_or_without_cases_is_not(settings, described):
    settings = dataclasses.replace(settings, given=(described("b", {"background": 0, "liver": 1}),))
    assert "evaluate:expert:b" not in _ids(plan(settings))
    (line,) = unscored(settings)
    assert "given expert of b is not measured" in line and line.endswith("only one has spleen")
    _without_test(settings, "b")
    assert "evaluate:expert:b" not in _ids(plan(settings)) and "no case" in "".join(unscored(settings))


def test_the_report_shows_a_given_expert_like_the_others(settings, described):
    settings = dataclasses.replace(settings, given=(described("b", {"background": 0, "liver": 1, "spleen": 2}),))
    steps = plan(settings)
    for task in "ab":
        row = {"case": "c", "task": task, "structure": "liver", **dict.fromkeys(MEASURES, 0.5)}
        (settings.output_dir / "experts" / task / "evaluation").mkdir(parents=True)
        write_case_csv([row], settings.output_dir / "experts" / task / "evaluation" / "cases.csv")
        write_summary_json({}, settings.output_dir / "experts" / task / "evaluation" / "summary.json")
    record = Record.open(settings.output_dir, settings, steps)
    record.begin(next(s for s in steps if s.subject == "expert:b"))
    study = read_study([settings.output_dir])
    assert [(r.title, r.task) for r in study.kind("expert")] == [("Expert a", "a"), ("Expert b (given)", "b")]
    (model,) = models_of(study)
    assert {task for task, _, _ in model.values("dice")} == {"a", "b"}
    assert study.kind("expert")[1].status == "running" and "Expert b (given)" in render(study)


@pytest.mark.slow
def test_the_scores_of_a_given_expert(phantom_dir, described, tmp_path):
    labels = read_collection(phantom_dir).dataset("phantom_ct").labels
    given = described("phantom_ct", labels.to_json(), spacing=(8.0, 8.0, 8.0))
    settings = ChainSettings("ka2er", phantom_dir, tmp_path / "out", preset="smoke", tracking="none", given=(given,))
    step = next(s for s in plan(settings) if s.id == "evaluate:expert:phantom_ct")
    chain_run.execute([step], Record.open(settings.output_dir, settings, [step]), settings, 1)
    (model,) = models_of(read_study([settings.output_dir]))
    (run,) = model.runs
    assert model.key == "expert" and run.title == "Expert phantom_ct (given)" and run.task == "phantom_ct"
    assert {(r["task"], r["structure"]) for r in run.rows} == {("phantom_ct", name) for name in labels.names}


def test_the_card_is_ignored_where_the_chain_says_so(settings):
    """Every training and evaluation gets the override; the record keeps it."""
    for told in (False, True):
        steps = plan(dataclasses.replace(settings, ignore_card=told))
        having = {s.id for s in steps if "--ignore_card" in told_by(s.argv)}
        assert having == ({s.id for s in steps if "monai.bundle" in s.argv} if told else set())
        record = Record.open(settings.output_dir, dataclasses.replace(settings, ignore_card=told), steps)
        assert record.data["ignore_card"] is told


def test_tasks_that_share_a_name_which_nobody_gave_are_refused(settings, capsys):
    for task in ("a", "b"):
        file = settings.dataset_dir / task / "dataset.json"
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "labels": {"background": 0, "structure 1": 1}}))
    with pytest.raises(DataError, match="nobody gave"):
        Chain().run("ka2er", str(settings.dataset_dir), str(settings.output_dir), preset="smoke", dry_run=True)
    names = {"a": {"labels": {"structure 1": "Liver"}}, "b": {"labels": {"structure 1": "liver"}}}
    (settings.dataset_dir / "collection.json").write_text(json.dumps({"datasets": ["a", "b"], "tasks": names}))
    Chain().run("ka2er", str(settings.dataset_dir), str(settings.output_dir), preset="smoke", dry_run=True)
    assert "'Liver' and 'liver' are taken for two structures" in capsys.readouterr().err
