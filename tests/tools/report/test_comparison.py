"""A comparison's figures: against naive twins, hand-computed tests, and what was not measured."""

import csv
import itertools
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wilcoxon

from common.engine.evaluation.score_summary import bootstrap_interval, read_case_csv, write_case_csv
from common.errors import DataError
from tests.tools.report.made_comparison import write_comparison
from tools.report.command import comparison_report
from tools.report.comparison import costs_of, read_comparison
from tools.report.comparison_files import csv_of_methods, csv_of_structures, markdown, quantity
from tools.report.comparison_rows import method_rows, ordered, structure_rows, top
from tools.report.significance import holm, paired, paired_cases


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_comparison(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def comparison(folder):
    return read_comparison(folder)


def _naive(folder, run, seeds, measure):
    """``{case: {structure: mean over seeds}}`` straight from the files."""
    found = {}
    for seed in seeds:
        for r in read_case_csv(folder / run / f"seed{seed}" / "evaluation" / "cases.csv"):
            found.setdefault(r["case"], {}).setdefault(r["structure"], []).append(r[measure])
    return {
        c: {s: np.nanmean(v) if np.isfinite(v).any() else np.nan for s, v in per.items()} for c, per in found.items()
    }


def test_means_intervals_and_spread_are_those_of_a_naive_twin(folder, comparison):
    rows = {r.member.name: r for r in method_rows(comparison)}
    for name, run, seeds in (("good", "one/amalgamated", (0, 1)), ("bad", "one/alone", (0, 1))):
        for measure in ("dice", "hd95"):
            naive = _naive(folder, run, seeds, measure)
            table = np.array([[per[s] for s in ("liver", "spleen")] for per in naive.values()])
            got = rows[name].measures[measure]
            assert got.mean.mean == pytest.approx(np.nanmean(np.nanmean(table, axis=0)))
            assert (got.mean.low, got.mean.high) == pytest.approx(bootstrap_interval(table))
            alone = [_naive(folder, run, (s,), measure) for s in seeds]
            means = [np.mean([np.nanmean([p[s] for p in one.values()]) for s in ("liver", "spleen")]) for one in alone]
            assert got.spread == pytest.approx(np.std(means, ddof=1)) and got.seeds == 2
    assert math.isnan(rows["plain"].measures["dice"].spread) and rows["plain"].measures["dice"].seeds == 1


def test_the_test_is_scipys_over_case_means_corrected_for_two_members(folder, comparison):
    rows = {r.member.name: r.measures["dice"] for r in method_rows(comparison)}
    means = {}
    for name, run, seeds in (
        ("good", "one/amalgamated", (0, 1)),
        ("bad", "one/alone", (0, 1)),
        ("plain", "two/alone", (0,)),
    ):
        naive = _naive(folder, run, seeds, "dice")
        means[name] = np.array([np.mean(list(naive[c].values())) for c in sorted(naive)])
    raw = {n: wilcoxon(means[n] - means["good"]).pvalue for n in ("bad", "plain")}
    assert {n: rows[n].test.p for n in raw} == pytest.approx(raw)
    low, high = sorted(raw, key=raw.get)
    assert rows[low].p_holm == pytest.approx(2 * raw[low])
    assert rows[high].p_holm == pytest.approx(max(2 * raw[low], raw[high]))
    assert math.isnan(rows["good"].p_holm) and rows["good"].gap.n == 0
    naive = _naive(folder, "one/alone", (0, 1), "dice")
    reference = _naive(folder, "one/amalgamated", (0, 1), "dice")
    gaps = [np.mean([naive[c][s] - reference[c][s] for c in naive]) for s in ("liver", "spleen")]
    assert rows["bad"].gap.mean == pytest.approx(np.mean(gaps)) and rows["bad"].gap.high < 0


def test_wilcoxon_by_hand():
    first = {("t", f"c{i}", "s"): float(v) for i, v in enumerate((1, 2, 3, 4, 5))}
    zero = dict.fromkeys(first, 0.0)
    # five positive differences without ties: two of the 2^5 sign patterns are as extreme
    assert paired(first, zero) == (pytest.approx(2 / 32), 5, 5, 0)
    # signs +, +, +, +, - with the smallest last: W = 1, patterns with a rank sum <= 1 are two on either side
    mixed = {**first, ("t", "c0", "s"): -1.0}
    assert paired(mixed, zero).p == pytest.approx(4 / 32)
    assert paired(first, first) == (1.0, 5, 0, 0)
    assert paired({}, first)[1:] == (0, 0, 5) and math.isnan(paired({}, first).p)


def test_cases_are_paired_by_the_structures_that_both_have():
    first = {("t", "a", "x"): 1.0, ("t", "a", "y"): math.nan, ("t", "b", "x"): 3.0, ("t", "c", "x"): math.nan}
    second = {("t", "a", "x"): 0.5, ("t", "a", "y"): 9.0, ("t", "b", "x"): 1.0, ("t", "c", "x"): math.nan}
    values, alone = paired_cases(first, second)
    assert values.tolist() == [0.5, 2.0] and alone == 1


def test_rounding_is_a_tie():
    first = {("t", f"c{i}", s): 0.1 * 3 for i in range(4) for s in "ab"}
    assert paired(first, dict.fromkeys(first, 0.3)).p == 1.0


def test_holm_by_hand():
    # sorted: 0.01*4, max(0.04, 0.02*3), max(0.06, 0.03*2), max(0.06, 0.04*1)
    got = holm({"a": 0.03, "b": 0.01, "c": 0.04, "d": 0.02, "none": math.nan})
    assert [got[k] for k in "bdac"] == pytest.approx([0.04, 0.06, 0.06, 0.06]) and math.isnan(got["none"])
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0} and holm({}) == {}


def test_structures_have_tests_of_their_own(folder, comparison):
    rows = structure_rows(comparison)
    assert list(rows) == [("toy", "liver"), ("toy", "spleen")]
    keys = {m.name: m.model.key for m in comparison.members}
    own = rows["toy", "spleen"]["hd95"][keys["bad"]]
    assert own.test.n == 7 and own.test.left_out == 1  # its spleen of case 3 was not found
    assert rows["toy", "spleen"]["dice"][keys["bad"]].test.n == 8


def test_missed_structures_are_counted(comparison):
    rows = {r.member.name: r for r in method_rows(comparison)}
    assert (rows["bad"].missed, rows["bad"].shown) == (1.0, 16) and rows["good"].missed == 0
    assert math.isnan(rows["late"].missed)


def _edited(folder, tmp_path, edit):
    """A copy of the comparison whose tables of cases went through ``edit(run's folder, row)``; None drops a row."""
    copy = tmp_path / "compare"
    shutil.copytree(folder, copy)
    for path in copy.rglob("cases.csv"):
        rows = [edit(path.parent.parent, row) for row in read_case_csv(path)]
        write_case_csv([r for r in rows if r is not None], path)
    return copy


def test_inventions_are_counted_and_no_absent_structure_is_in_a_mean(folder, tmp_path):
    """Case 1 shows no spleen; only ``bad`` finds one. Its Dice of 0 would be compared with nothing of the others."""

    def absent(run, row):
        if (row["case"], row["structure"]) != ("case_1", "spleen"):
            return row
        found = run.parent.name == "alone" and run.parent.parent.name == "one"
        score = 0.0 if found else math.nan
        return row | {"dice": score, "hd95": math.nan, "volume_label_ml": 0.0, "volume_pred_ml": 0.3 if found else 0.0}

    rows = {r.member.name: r for r in method_rows(read_comparison(_edited(folder, tmp_path, absent)))}
    assert (rows["bad"].invented, rows["bad"].absent) == (1.0, 1) and rows["good"].invented == 0.0
    assert math.isnan(rows["plain"].invented), "who is told where to look invents nothing"
    naive = _naive(folder, "one/alone", (0, 1), "dice")
    spleen = np.mean([per["spleen"] for case, per in naive.items() if case != "case_1"])
    liver = np.mean([per["liver"] for per in naive.values()])
    assert rows["bad"].measures["dice"].mean.mean == pytest.approx((spleen + liver) / 2)
    assert rows["bad"].measures["dice"].known == rows["good"].measures["dice"].known == 15


def test_the_best_is_not_prompted_and_found_as_much(comparison):
    rows = {r.member.name: r for r in method_rows(comparison)}
    for measure in ("dice", "hd95"):
        figures = {r.member.model.key: r.measures[measure] for r in rows.values()}
        assert rows["plain"].measures[measure].mean.n and top(comparison, figures, measure) != "run2"
    assert top(comparison, {r.member.model.key: r.measures["dice"] for r in rows.values()}, "dice") == "run0"
    assert rows["bad"].measures["hd95"].known < rows["good"].measures["hd95"].known
    assert top(comparison, {r.member.model.key: r.measures["hd95"] for r in rows.values()}, "hd95") is None


def test_what_members_do_not_share_is_said(folder, tmp_path):
    copy = _edited(folder, tmp_path, _without_case_2)
    record = json.loads((copy / "compare.json").read_text()) | {"split": "validation"}
    record["budget"] = {"steps": 40, "minutes": None, "words": "40 steps"}
    record["tasks"] = {"toy": {"dim": 2}}
    (copy / "compare.json").write_text(json.dumps(record))
    chain = json.loads((copy / "one" / "chain.json").read_text())
    for step, commit in zip(chain["steps"], itertools.cycle(("abc1234", "def5678")), strict=False):
        step["commit"] = commit
    (copy / "one" / "chain.json").write_text(json.dumps(chain))
    for path, threads in ((copy / "one" / "alone" / "seed0", 8), (copy / "one" / "alone" / "seed1", 1)):
        costs = json.loads((path / "training_costs.json").read_text()) | {"device": "cpu", "threads": threads}
        (path / "training_costs.json").write_text(json.dumps(costs))
    summary = copy / "two" / "alone" / "seed0" / "evaluation" / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"prompt": "points", "clicks": 5}))
    page = Path(comparison_report(str(copy))).read_text()
    for words in (
        "Left out of every figure: cases 1 of toy, as they lack in Plain.",
        "Runs are of different machines, so that times and memory cannot be compared: cpu with 1 thread, cpu with 8",
        "Runs are of different commits of the code: abc1234, def5678.",
        "Trainings ended before their budget: Good, Bad",
        "Scored on the validation cases",
        "HD95 (pixels)",
        "told where to look, Plain <b>",
        "methods are told by 5 clicks for each structure",
    ):
        assert words in page, words
    untouched = Path(comparison_report(str(folder), out=str(tmp_path / "page"))).read_text()
    for words in ("Left out of every", "Runs are of different", "before the budget", "validation cases", "pixels)"):
        assert words not in untouched, words


def _without_case_2(run, row):
    return None if run.parent.parent.name == "two" and row["case"] == "case_2" else row


def test_costs_come_from_the_files(comparison):
    costs = {m.name: m.costs for m in comparison.members}
    good = costs["good"]
    assert (good.parameters, good.trained, good.multiply_adds_g, good.steps) == (2e6, 1500, 12.5, 20)
    assert good.training_s == pytest.approx(60.5) and good.experts_s == 30.0
    assert good.case_s == pytest.approx(1.0)  # the counted case is slower and left out
    assert (good.training_mb, good.case_mb) == (900.0, 700.0)
    assert math.isnan(costs["plain"].parameters) and math.isnan(costs["late"].training_s)


def test_experts_of_several_tasks_add_up_and_a_missing_one_hides_the_sum(comparison):
    runs = comparison.members[0].model.runs
    assert costs_of(runs, [], together=True).parameters == 4e6
    assert costs_of(runs, [], together=True).training_s == pytest.approx(121.0)
    assert math.isnan(costs_of([*runs, comparison.members[2].model.runs[0]], [], together=True).parameters)


def test_best_first_and_what_was_not_measured_last(comparison):
    names = [r.member.name for r in ordered(method_rows(comparison))]
    assert names[-1] == "late" and names.index("good") < names.index("bad")


def test_csv_holds_every_figure_and_leaves_gaps_empty(comparison):
    lines = list(csv.DictReader(csv_of_methods(comparison).splitlines()))
    by = {line["method"]: line for line in lines}
    rows = {r.member.name: r for r in method_rows(comparison)}
    assert float(by["bad"]["dice_mean"]) == pytest.approx(rows["bad"].measures["dice"].mean.mean, rel=1e-5)
    assert float(by["bad"]["dice_holm_p"]) == pytest.approx(rows["bad"].measures["dice"].p_holm, rel=1e-5)
    assert by["late"]["dice_mean"] == by["late"]["parameters"] == by["plain"]["parameters"] == ""
    assert by["late"]["failure"] == "ExpertError: no expert"
    structures = list(csv.DictReader(csv_of_structures(comparison).splitlines()))
    assert len(structures) == 2 * 4 and {s["structure"] for s in structures} == {"liver", "spleen"}


def test_markdown_says_what_was_not_measured(comparison):
    text = markdown(comparison, [("Budget", "20 steps")])
    late = [line for line in text.splitlines() if line.startswith("| Late")]
    assert len(late) == 2 and all("not measured" in line for line in late)
    assert "| Bad &lt;b> |" in text and "(prompted)" in text and "nan" not in text


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [(2e6, "M", "2 M"), (1234e6, "M", "1,234 M"), (900.0, "GB", "0.9 GB"), (5.0, "time", "5 s"),
     (90.0, "time", "1.5 min"), (7200.0, "time", "2.0 h"), (20.0, "", "20"), (math.nan, "M", "not measured")],
)  # fmt: skip
def test_quantities_for_people(value, unit, words):
    assert quantity(value, unit) == words


def test_a_folder_without_a_comparison_is_refused(tmp_path):
    with pytest.raises(DataError, match="no comparison"):
        comparison_report(tmp_path)
    (tmp_path / "compare.json").write_text("{")
    with pytest.raises(DataError, match=r"(?s)compare\.json.*cannot be read"):
        comparison_report(tmp_path)
    (tmp_path / "compare.json").write_text(json.dumps({"members": []}))
    with pytest.raises(DataError, match="no members"):
        comparison_report(tmp_path)


@pytest.mark.parametrize(
    ("budget", "own", "shown", "early"),
    [
        ({"steps": 20}, {"steps": 20, "planned_steps": 20}, "100 %", False),
        ({"steps": 40}, {"steps": 20, "planned_steps": 40}, "50 %", True),
        ({"minutes": 2.0}, {"steps": 20, "planned_steps": 20, "step_seconds": 150.0}, "125 %", False),
        ({"minutes": 2.0}, {"steps": 19, "planned_steps": 20, "step_seconds": 114.0}, "95 %", True),
        ({"minutes": 2.0}, {"steps": 20, "seconds": 60.0}, "50 %", True),  # as earlier versions recorded it
        ({"minutes": None, "steps": None}, {"steps": 20, "planned_steps": 20}, "not measured", False),
    ],
)
def test_the_page_says_how_much_of_its_budget_each_member_used(folder, tmp_path, budget, own, shown, early):
    copy = tmp_path / "compare"
    shutil.copytree(folder, copy)
    record = json.loads((copy / "compare.json").read_text()) | {"budget": {"words": "a budget", **budget}}
    (copy / "compare.json").write_text(json.dumps(record))
    for path in copy.rglob("training_costs.json"):
        path.write_text(json.dumps({"trained_parameters": 1500, **own}))
    good = next(m for m in read_comparison(copy).members if m.name == "good")
    assert quantity(good.costs.used, "%") == shown and good.costs.early == early
    row = next(r for r in csv.DictReader(csv_of_methods(read_comparison(copy)).splitlines()) if r["method"] == "good")
    assert row["budget_used"] == ("" if shown == "not measured" else f"{float(shown[:-2]) / 100:.6g}")
    assert "budget used" in markdown(read_comparison(copy))
