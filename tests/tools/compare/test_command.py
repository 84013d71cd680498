"""A comparison is a plan of chains: who takes part, at one budget, and a failure costs the others nothing.

Also the test of ``tools.compare.run``.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from common.data.datasets.datalist import read_collection
from common.errors import AmalgamationError, ConfigError, ExpertError
from tests.monai_words import told_by
from tests.tools.empty_dataset import empty_dataset
from tests.warm_python import python
from tools.chain import run as chain_run
from tools.compare.budget import Budget, measured
from tools.compare.command import Compare, _knobs, _presets
from tools.compare.members import choose, known_members, why_not
from tools.compare.plan import experts_of, preset_of
from tools.report.comparison import read_comparison
from tools.workflow import read_config

ROOT = Path(__file__).parents[3]
ALL_3D = {"ka2er", "swin_unetr", "experts", "ensemble", "m4oe", "swin_unet", "sam_med3d_moe", "sam_med3d", "samora"}
ALL_3D |= {"samed", "hsam", "sam_decoder"}


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def calls(monkeypatch):
    """Commands leave the files that they would leave; what ``calls.failing`` names fails."""

    class Calls(list):
        failing = ""

    done = Calls()

    def pretend(step, processes):
        if done.failing and done.failing in str(step.output_dir):
            raise ExpertError("broken", where=step.title)
        done.append((step.output_dir, step.argv))
        (step.output_dir / "evaluation").mkdir(parents=True, exist_ok=True)
        (step.output_dir / step.produces).write_text("{}" if step.produces.endswith("json") else step.id)
        if step.kind in ("expert", "external"):
            (step.output_dir / "expert.json").write_text(json.dumps({"name": step.id, "path": "model.pt"}))

    monkeypatch.setattr(chain_run, "_call", pretend)
    return done


def _run(collection, tmp_path, **more):
    arguments = {"preset": "smoke", "budget_steps": 12, "report": False, "methods": "ka2er,swin_unetr,swin_unet"} | more
    return Compare().run(str(collection), output_dir=str(tmp_path / "out"), **arguments)


# who takes part


def test_every_bundle_names_its_members(phantom_dir, phantom_2d_dir):
    known = known_members()
    volumes, pictures = (read_collection(d) for d in (phantom_dir, phantom_2d_dir))
    assert {n for n in known if not why_not(known[n], volumes)} == ALL_3D
    assert {n for n in known if not why_not(known[n], pictures)} == {
        "ic_moe",
        "medical_sam_adapter",
        "picture_samed",
        "picture_decoder",
    }
    assert [n for n, m in known.items() if m.prompted] == ["sam_med3d_moe", "sam_med3d"]


def test_one_dataset_leaves_out_what_chooses_between_several(phantom_dir):
    known = known_members()
    one = read_collection(phantom_dir / "phantom_ct")
    assert why_not(known["m4oe"], one) == "needs 2 modalities to choose between, the collection has 1"
    assert why_not(known["ensemble"], one) == "needs 2 datasets to choose between, the collection has 1"
    assert not why_not(known["ka2er"], one) and not why_not(known["swin_unet"], one)
    members, left_out = choose("all", one, known)
    assert "m4oe" in left_out and "m4oe" not in [m.name for m in members]


@pytest.mark.parametrize(
    ("names", "words"),
    [("ka2er,nothing", "unknown methods"), ("ka2er,ic_moe", "ic_moe takes 2-D pictures"), ("", "nothing to compare")],
)
def test_who_cannot_take_part_is_refused_with_the_reason(phantom_dir, names, words):
    with pytest.raises(ConfigError, match=words):
        choose(names, read_collection(phantom_dir), known_members())


def test_two_bundles_may_not_share_a_name(tmp_path):
    for bundle in ("x", "y"):
        (tmp_path / bundle / "configs").mkdir(parents=True)
        recipe = {"compare": {"same": {"run": "alone", "title": "Same"}}}
        (tmp_path / bundle / "configs" / "chain.json").write_text(json.dumps(recipe))
    with pytest.raises(ConfigError, match="one member"):
        known_members(tmp_path)
    with pytest.raises(ConfigError, match="no bundle"):
        known_members(tmp_path / "none")


def test_the_methods_are_listed_with_their_reasons(phantom_2d_dir):
    text = Compare().methods(str(phantom_2d_dir))
    assert "ic_moe " in text and "can take part" in text and "takes volumes, the collection has 2-D pictures" in text


# the budget


def _settings_of(argv):
    return told_by(argv)


@pytest.mark.parametrize("budget", [{"budget_steps": 12}, {"budget_minutes": 1.5}])
def test_every_training_of_every_bundle_gets_the_budget_alone(phantom_dir, phantom_2d_dir, tmp_path, budget):
    found = set()
    option = "--max_steps=12" if "budget_steps" in budget else "--max_minutes=1.5"
    for folder in (phantom_dir, phantom_2d_dir):
        text = Compare().run(str(folder), preset="smoke", output_dir=str(tmp_path), external="none", dry_run=True,
                             structures="" if folder is phantom_2d_dir else "gallbladder", **budget)  # fmt: skip
        for line in text.splitlines():
            if "configs/train.json" in line:
                files = line.split(" --config_file=")[1].split(']"')[0].lstrip('"[').split(",")
                found.add(files[0].strip("'"))
                assert option in line and "max_epochs" not in line and "per_epoch" not in line, line
                assert ("--patience=None" in line) == ("m4oe/configs" in line), "smoke validates after each epoch"
                assert "tools/compare/costs_train.json" in line
            elif "monai.bundle" in line:
                assert "tools/compare/costs_evaluate.json" in line and "max_" not in line
    assert len(found) == 9, found


@pytest.mark.parametrize("given", [{"steps": 5, "minutes": 1.0}, {"steps": 0}, {"steps": 2.5}, {"minutes": -1.0}])
def test_impossible_budgets_are_refused(given):
    with pytest.raises(ConfigError, match="budget"):
        Budget(**given)


def test_a_bundle_that_takes_no_budget_is_refused(collection, tmp_path):
    from tools.chain.plan import plan
    from tools.chain.step import ChainSettings

    bundles = tmp_path / "bundles"
    shutil.copytree("bundles", bundles, ignore=shutil.ignore_patterns("docs", "*.pt"))
    path = bundles / "m4oe_expert" / "configs" / "train.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "max_minutes"}))
    step = plan(ChainSettings("m4oe", collection, tmp_path, preset="smoke", bundles=bundles))[0]
    assert told_by(measured(step, Budget(steps=3)).argv)["--max_steps"] == "3" and "--max_minutes" not in told_by(
        measured(step, Budget()).argv
    )
    with pytest.raises(ConfigError, match=r"takes no budget[\s\S]*no knob max_minutes"):
        measured(step, Budget(minutes=3))


# the plan


def test_members_bring_only_what_they_need(collection, tmp_path, calls):
    _run(collection, tmp_path, methods="swin_unetr,sam_decoder")
    folders = {str(folder.relative_to(tmp_path / "out")) for folder, _ in calls}
    assert folders == {"ka2er/alone/seed0", "samora/decoder_only/seed0"}


def test_experts_alone_and_together_need_no_student(collection, tmp_path, calls):
    _run(collection, tmp_path, methods="experts,ensemble", seeds=(0, 1))
    folders = [str(folder.relative_to(tmp_path / "out" / "ka2er")) for folder, _ in calls]
    assert sorted(folders) == ["ensemble", *["experts/a"] * 2, *["experts/b"] * 2]
    together = next(argv for folder, argv in calls if folder.name == "ensemble")
    assert "experts.json" in _settings_of(together)["--experts"] and "--seed" not in _settings_of(together)


def test_everyone_is_evaluated_on_the_same_data_and_split(collection, tmp_path, calls):
    _run(collection, tmp_path, methods="ka2er,swin_unet,sam_med3d,samed", split="validation", seeds=(3, 4))
    for folder, argv in calls:
        if any(word.endswith("evaluate.json']") or "costs_evaluate" in word for word in argv):
            told = _settings_of(argv)
            assert told["--split"] == "validation"
            assert told["--dataset_dir"] in (str(collection), str(collection / folder.name))
    students = [_settings_of(argv) for folder, argv in calls if folder.name in ("seed3", "seed4")]
    assert {s["--seed"] for s in students if "--seed" in s} == {"3", "4"}


def test_the_record_names_experts_and_who_trains(collection, tmp_path, calls):
    _run(collection, tmp_path, methods="ka2er,ensemble,swin_unet", seeds=(0, 1))
    record = json.loads((tmp_path / "out" / "compare.json").read_text())
    by = {m["name"]: m for m in record["members"]}
    assert by["ka2er"]["experts"] == ["expert:a", "expert:b"] and by["swin_unet"]["experts"] == []
    assert by["ka2er"]["trained"] and not by["ensemble"]["trained"]
    assert record["budget"]["words"] == "12 steps" and record["reference"] == "ka2er" and record["tasks"]["b"]
    assert [m.name for m in read_comparison(tmp_path / "out").members] == ["ka2er", "ensemble", "swin_unet"]
    assert read_comparison(tmp_path / "out").members[1].costs.training_s == 0.0


def test_a_task_agnostic_expert_costs_the_ensemble_nothing(tmp_path, collection):
    from tools.chain.plan import plan
    from tools.chain.step import ChainSettings

    general = collection.with_name("general")
    empty_dataset(general, {"liver": 1})
    steps = plan(ChainSettings("ka2er", collection, tmp_path, preset="smoke", external=general, variants=("ensemble",)))
    found = {name: experts_of(known_members()[name], steps) for name in ("ka2er", "ensemble")}
    assert found["ka2er"] == ["expert:a", "expert:b", "external:general"]
    assert found["ensemble"] == ["expert:a", "expert:b"]


def test_experts_of_experts_count(tmp_path, collection):
    from tools.chain.plan import plan
    from tools.chain.step import ChainSettings

    steps = plan(ChainSettings("samora", collection, tmp_path, preset="smoke"))
    assert set(experts_of(known_members()["samora"], steps)) == {
        f"expert:{n}" for n in ("image", "patch", "pixel", "teacher_image", "teacher_patch")
    }
    assert experts_of(known_members()["samed"], steps) == []


def test_presets_knobs_and_seeds(collection, tmp_path, calls):
    assert preset_of(_presets("laptop,ka2er=abdomen_cpu", ["ka2er"]), "ka2er") == "abdomen_cpu"
    assert preset_of(_presets("laptop,ka2er=abdomen_cpu", ["ka2er"]), "m4oe") == "laptop"
    with pytest.raises(ConfigError, match="no preset"):
        preset_of(_presets("ka2er=abdomen_cpu", ["ka2er"]), "m4oe")
    with pytest.raises(ConfigError, match=r"(?s)preset is of a bundle.*swin_unetr.*ka2er"):
        _run(collection, tmp_path, methods="swin_unetr", preset="smoke,swin_unetr=abdomen_cpu")
    assert _knobs("samora.sam_weights=a=b.pth") == (("samora", "sam_weights", "a=b.pth"),)
    for wrong in ("samora", "samora.x", "x=1"):
        with pytest.raises(ConfigError, match="not a knob"):
            _knobs(wrong)
    for wrong_seeds in ((), (1, 1)):
        with pytest.raises(ConfigError, match="seeds"):
            _run(collection, tmp_path, methods="swin_unet", seeds=wrong_seeds)
    _run(collection, tmp_path, methods="swin_unet", knobs="m4oe.learning_rate=0.5")
    training, evaluation = (argv for _, argv in calls)
    assert _settings_of(training)["--learning_rate"] == "0.5" and "--learning_rate" not in _settings_of(evaluation)
    with pytest.raises(ConfigError, match="no training here"):
        _run(collection, tmp_path, methods="swin_unet", knobs="ka2er.learning_rate=0.5")
    with pytest.raises(ConfigError, match="reference"):
        _run(collection, tmp_path, reference="samed")


def test_experts_of_single_structures_need_their_names(collection, tmp_path, calls):
    with pytest.raises(ConfigError, match="which structures get an expert"):
        _run(collection, tmp_path, methods="sam_med3d_moe")
    text = _run(collection, tmp_path, methods="all", dry_run=True)
    assert "left out: sam_med3d_moe needs --structures" in text and "SAM-Med3D, one decoder" in text
    text = _run(collection, tmp_path, methods="all", structures="spleen", dry_run=True)
    assert "Decoder of spleen" in text and "needs --structures" not in text


# running


def test_what_is_done_is_kept_also_when_methods_are_added(collection, tmp_path, calls):
    _run(collection, tmp_path, methods="swin_unet")
    first = len(calls)
    _run(collection, tmp_path, methods="swin_unet,swin_unetr", seeds=(0, 1))
    assert first == 2 and len(calls) == 2 + 2 + 4
    _run(collection, tmp_path, methods="swin_unet,swin_unetr", seeds=(0, 1))
    assert len(calls) == 8


def test_what_was_damaged_is_done_again(collection, tmp_path, calls):
    _run(collection, tmp_path)
    out = tmp_path / "out"
    model, scores = (out / "ka2er" / n for n in ("amalgamated/seed0/model.pt", "alone/seed0/evaluation/summary.json"))
    model.write_bytes(b"")
    scores.write_text("{} ")
    told = [line for line in _run(collection, tmp_path, dry_run=True).splitlines() if "to do" in line]
    assert [line.partition(": ")[2] for line in told if "Evaluation" not in line] == ["model.pt was emptied"]
    assert sum("evaluation/summary.json changed since it was made" in line for line in told) == 1
    calls.clear()
    _run(collection, tmp_path)
    assert sorted(folder.parent.name for folder, _ in calls) == ["alone", "amalgamated", "amalgamated"]
    assert "to do" not in _run(collection, tmp_path, dry_run=True) and model.stat().st_size


def test_a_run_that_was_not_asked_for_meanwhile_is_not_taken_for_one_of_todays_data(collection, tmp_path, calls):
    _run(collection, tmp_path, methods="swin_unetr,ka2er")
    before = len(calls)
    description = collection / "a" / "dataset.json"
    description.write_text(description.read_text().replace("{", '{"note": "labels mended",', 1))
    _run(collection, tmp_path, methods="swin_unetr")
    _run(collection, tmp_path, methods="swin_unetr,ka2er")
    again = [str(folder.relative_to(tmp_path / "out" / "ka2er")) for folder, _ in calls[before:]]
    assert {"experts/a", "amalgamated/seed0"} <= set(again), "trained on the data as they are now"
    moved = sorted(p.name.split(".before")[0] for p in (tmp_path / "out" / "ka2er").rglob("*.before-*"))
    assert moved == ["a", "seed0", "seed0"], "what was trained on the earlier data is kept beside it"


def test_seeds_that_were_taken_out_are_not_averaged(collection, tmp_path, calls):
    _run(collection, tmp_path, methods="swin_unetr", seeds=(0, 1))
    _run(collection, tmp_path, methods="swin_unetr,swin_unet", seeds=0)
    members = read_comparison(tmp_path / "out").members
    assert [[r.id for r in m.model.runs] for m in members] == [["alone:seed0"], ["alone:seed0"]]


def test_the_reference_takes_part(collection, tmp_path, calls):
    with pytest.raises(ConfigError, match="the reference is not compared"):
        _run(collection, tmp_path, methods="all", reference="sam_med3d_moe", dry_run=True)


def test_no_answer_is_cleaned_and_no_training_ends_early(collection, tmp_path, calls):
    text = _run(collection, tmp_path, methods="ka2er,experts,swin_unet", preset="paper", budget_steps=None,
                budget_minutes=1, dry_run=True)  # fmt: skip
    lines = [line for line in text.splitlines() if "monai.bundle" in line]
    evaluations = [line for line in lines if "ka2er" in line and "inference.json" in line]
    assert len(evaluations) == 3 and all("--keep_largest=False" in line for line in evaluations)
    swin = next(line for line in lines if "m4oe/configs/train.json" in line)
    assert "--patience=None" in swin and not any("--patience" in line for line in lines if line is not swin)


def test_everyone_competes_for_the_structures_of_the_cases_task_only():
    for bundle in ("ka2er", "samora", "ic_moe"):
        config = read_config([f"bundles/{bundle}/configs/inference.json", f"bundles/{bundle}/configs/evaluate.json"])
        steps = [t["_target_"].rpartition(".")[2] for t in config["postprocessing"]["transforms"]]
        assert config["targets"] == "task" and steps.index("KeepTargetsd") < steps.index("AsDiscreted"), bundle


def test_a_method_that_fails_does_not_stop_the_others(collection, tmp_path, calls, capsys):
    calls.failing = "ka2er/experts/b"
    with pytest.raises(AmalgamationError, match="not every method") as caught:
        _run(collection, tmp_path)
    assert "ka2er: Expert b: broken" in str(caught.value) and "swin_unet" not in str(caught.value.got)
    folders = {str(folder.relative_to(tmp_path / "out")) for folder, _ in calls}
    assert {"ka2er/experts/a", "ka2er/alone/seed0", "m4oe/alone/seed0"} <= folders
    assert "ka2er/amalgamated/seed0" not in folders and "broken" in capsys.readouterr().err
    members = {m.name: m for m in read_comparison(tmp_path / "out").members}
    assert "broken" in members["ka2er"].failure and not members["swin_unetr"].failure
    calls.failing = ""
    _run(collection, tmp_path)
    assert not json.loads((tmp_path / "out" / "compare.json").read_text())["failures"]
    assert [str(f).endswith("ka2er/experts/a") for f, _ in calls].count(True) == 1


def test_a_dry_run_writes_nothing(collection, tmp_path, calls):
    text = _run(collection, tmp_path, dry_run=True)
    assert "to do" in text and not calls and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_real_comparison_of_two_bundles(phantom_dir, tmp_path):
    words = [python(), "-m", "tools", "compare", "run", "--dataset_dir", str(phantom_dir), "--preset", "smoke"]
    words += ["--methods", "swin_unet,sam_decoder,experts,ensemble", "--budget_steps", "4", "--seeds", "0"]
    words += ["--external", "none", "--output_dir", str(tmp_path / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for turn in range(2):
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "done before" in done.stderr if turn else "done before" not in done.stderr
    comparison = read_comparison(tmp_path / "out")
    by = {m.name: m for m in comparison.members}
    assert {m.name for m in comparison.members if m.model in comparison.models} == set(by)
    for name in ("swin_unet", "sam_decoder", "experts"):
        costs = by[name].costs
        assert costs.steps == 4 * len(by[name].model.runs) and costs.training_s > 0 and costs.training_mb > 50, name
    for member in comparison.members:
        costs = member.costs
        assert costs.parameters > 1000 and costs.multiply_adds_g > 0 and costs.case_s > 0 and costs.case_mb > 50
    assert by["sam_decoder"].costs.trained < by["sam_decoder"].costs.parameters
    assert by["ensemble"].costs.experts_s == pytest.approx(by["experts"].costs.training_s)
    assert by["ensemble"].costs.multiply_adds_g > by["experts"].costs.multiply_adds_g  # all of them, not one
    page = (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8")
    assert "Swin-Unet alone" in page and "not measured" not in page.split('id="structures"')[0].split("<tbody>")[1]
