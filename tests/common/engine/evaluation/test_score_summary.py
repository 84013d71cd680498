"""Summaries: naive means, deterministic intervals with honest coverage, files that survive a round trip."""

import json
import math

import numpy as np
import pytest

from common.engine.evaluation.score_summary import (
    bootstrap_interval,
    read_case_csv,
    summary,
    write_case_csv,
    write_summary_json,
)
from common.engine.evaluation.scores import MEASURES
from common.errors import ConfigError, DataError


def row(case, structure, dice, task="ct", pred=1.0, label=1.0, **more):
    far = math.nan if not (pred and label) else 10 * (1 - dice)
    base = dict.fromkeys(MEASURES, dice) | {"hd95": far, "hd": far}
    return {
        "case": case,
        "task": task,
        "structure": structure,
        **base,
        "volume_pred_ml": pred,
        "volume_label_ml": label,
    } | more


ROWS = [
    row("a", "liver", 0.9),
    row("b", "liver", 0.7),
    row("c", "liver", 0.0, pred=0.0),
    row("a", "spleen", 0.5),
    row("b", "spleen", math.nan, pred=0.0, label=0.0),
    row("a", "liver", 0.3, task="mr"),
    row("c", "spleen", 0.0, label=0.0),
]


def test_means_and_counts():
    content = summary(ROWS, n_boot=50)
    ct = content["tasks"]["ct"]
    assert ct["structures"]["liver"]["dice"]["mean"] == pytest.approx((0.9 + 0.7 + 0.0) / 3)
    assert ct["structures"]["liver"]["dice"]["median"] == pytest.approx(0.7)
    assert ct["structures"]["liver"]["hd95"]["mean"] == pytest.approx(2.0)
    assert ct["structures"]["liver"]["hd95"]["n"] == 2
    counts = {k: ct["structures"]["spleen"][k] for k in ("cases", "absent", "missed", "false_positive")}
    assert counts == {"cases": 3, "absent": 1, "missed": 0, "false_positive": 1}
    assert ct["structures"]["liver"]["missed"] == 1
    assert ct["mean"]["dice"]["mean"] == pytest.approx(np.mean([1.6 / 3, 0.25]))
    assert content["all"]["cases"] == 4
    assert content["all"]["structures"]["liver"]["dice"]["n"] == 4


def test_nothing_known_is_none_not_nan(tmp_path):
    content = summary([row("a", "liver", math.nan, pred=0.0, label=0.0)], n_boot=5)
    assert content["all"]["mean"]["dice"] == {"mean": None, "median": None, "low": None, "high": None, "n": 0}
    write_summary_json(content, tmp_path / "s.json")
    assert "NaN" not in (tmp_path / "s.json").read_text()


def test_refuses_nothing_and_repeats():
    with pytest.raises(DataError, match="nothing to summarise"):
        summary([])
    with pytest.raises(DataError, match="repeat"):
        summary([ROWS[0], ROWS[0]])


def naive_bootstrap(table, seed, n_boot):
    """The same draws, one resample at a time."""
    rng = np.random.default_rng(seed)
    means, done = [], 0
    while done < n_boot:
        block = min(256, n_boot - done)
        for draw in rng.integers(0, len(table), size=(block, len(table))):
            columns = [[v for v in table[draw][:, s] if math.isfinite(v)] for s in range(table.shape[1])]
            means.append(np.mean([np.mean(c) for c in columns if c]))
        done += block
    return np.percentile(means, [2.5, 97.5])


def test_bootstrap_equals_naive_loop():
    rng = np.random.default_rng(0)
    table = rng.random((9, 3))
    table[rng.random((9, 3)) < 0.3] = math.nan
    table[:, 0] = rng.random(9)
    np.testing.assert_allclose(bootstrap_interval(table, seed=4, n_boot=300), naive_bootstrap(table, 4, 300))


def test_cases_are_drawn_within_their_task():
    """Two tasks with structures of their own: the naive twin draws each task's cases, then takes the mean of means."""
    rng, tasks = np.random.default_rng(3), ["a", "b", "a", "b", "a"]
    table = np.full((5, 2), math.nan)
    table[[0, 2, 4], 0], table[[1, 3], 1] = rng.random(3), rng.random(2)
    draws = np.random.default_rng(6)
    first = table[[0, 2, 4], 0][draws.integers(0, 3, size=(200, 3))]
    second = table[[1, 3], 1][draws.integers(0, 2, size=(200, 2))]
    means = [(np.mean(a) + np.mean(b)) / 2 for a, b in zip(first, second, strict=True)]
    found = bootstrap_interval(table, groups=tasks, seed=6, n_boot=200)
    np.testing.assert_allclose(found, np.percentile(means, [2.5, 97.5]))


def test_no_draw_loses_a_task():
    """Cases of a task that are all alike leave nothing to chance, however the tasks differ."""
    rows = [
        {"case": f"{t}{i}", "task": t, "structure": t, **dict.fromkeys(MEASURES, value), "volume_pred_ml": 1.0,
         "volume_label_ml": 1.0}
        for t, value in (("ct", 0.9), ("mr", 0.6), ("lge", 0.3)) for i in range(3)
    ]  # fmt: skip
    mean = summary(rows)["all"]["mean"]["dice"]
    assert (mean["low"], mean["high"]) == pytest.approx((0.6, 0.6)) and mean["n"] == 9


def test_bootstrap_is_deterministic_and_brackets_the_mean():
    values = np.random.default_rng(1).random(12)
    assert bootstrap_interval(values, seed=7) == bootstrap_interval(values, seed=7)
    assert bootstrap_interval(values, seed=7) != bootstrap_interval(values, seed=8)
    low, high = bootstrap_interval(values, seed=7)
    assert low < values.mean() < high
    assert bootstrap_interval(np.full(5, 0.25)) == (0.25, 0.25)
    assert all(math.isnan(b) for b in bootstrap_interval(np.array([math.nan])))


def test_bootstrap_coverage():
    """Of 300 samples of 40 cases about 95 % of the intervals hold the true mean."""
    rng = np.random.default_rng(11)
    hits = 0
    for trial in range(300):
        low, high = bootstrap_interval(rng.beta(8, 2, size=40), seed=trial, n_boot=400)
        hits += low <= 0.8 <= high
    assert 0.90 <= hits / 300 <= 0.98


def test_bootstrap_refuses_bad_arguments():
    for kwargs in ({"n_boot": 0}, {"level": 1.0}, {"level": 0.0}, {"groups": ["a", "b"]}):
        with pytest.raises(ConfigError):
            bootstrap_interval(np.ones(3), **kwargs)


def test_csv_round_trip(tmp_path):
    rows = [*ROWS, row('odd, "name"', "left kidney", 1 / 3)]
    path = write_case_csv(rows, tmp_path / "deep" / "cases.csv")
    back = read_case_csv(path)
    assert [r["case"] for r in back] == [r["case"] for r in rows]
    for one, other in zip(rows, back, strict=True):
        for measure in MEASURES:
            np.testing.assert_allclose(one[measure], other[measure], rtol=1e-5)
    assert [p.name for p in path.parent.iterdir()] == ["cases.csv"]


def test_csv_refuses_other_tables(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="not a table of case scores"):
        read_case_csv(tmp_path / "x.csv")
    path = write_case_csv(ROWS[:1], tmp_path / "y.csv")
    path.write_text(path.read_text().replace("0.9", "high"))
    with pytest.raises(DataError, match="not a number"):
        read_case_csv(path)


def test_summary_is_json(tmp_path):
    path = write_summary_json(summary(ROWS, n_boot=10), tmp_path / "summary.json")
    assert json.loads(path.read_text())["all"]["structures"]["liver"]["cases"] == 4
