import json
import os

import pytest

from common.data.store import cases
from common.errors import ConfigError, DataError
from tools.bench import command
from tools.bench import pipeline as bench_pipeline
from tools.bench.pipeline import PIPELINES, pipeline, waiting
from tools.bench.synthetic import TINY, write_synthetic


def test_waiting_is_what_the_cores_do_not_make_in_time():
    assert waiting(ms=60, batch=8, step_ms=250, workers=8) == 0
    assert waiting(ms=4000, batch=8, step_ms=1000, workers=8) == pytest.approx(0.75)


def test_a_methods_data_path_is_measured(tmp_path):
    text = command.bench("pipeline", "m4oe", small=True, out=str(tmp_path))
    row = json.loads((tmp_path / "bench_pipeline.json").read_text())["m4oe"]
    assert "| m4oe |" in text and "waiting, step 250 ms" in text
    assert row["ms"] > 0 and row["ms_two_workers"] > 0 and row["counts"] == [3, 6]
    assert row["MB"] / row["own_MB"] < 1.1, "a slice reads itself alone"
    assert row["cases_MB"] * 1e6 == pytest.approx(64 * 64 * 40 * 2, rel=0.1), "two bytes a voxel, labels hardly any"
    assert {f"{k}_{n}" for k in ("start_s", "grown_MB", "resident_MB") for n in (3, 6)} <= row.keys()
    assert row["empty_cases"] == 1 and row["empty_s"] > row["prepare_s"], "its one case is prepared, then a sample made"
    assert all(row[f"resident_MB_{n}"] > max(100, row[f"grown_MB_{n}"]) for n in (3, 6)), "the libraries are resident"


def test_the_table_says_what_its_columns_are():
    counted = {"start_s_3": 0.4, "start_s_6": 0.5, "grown_MB_3": 11, "grown_MB_6": 12, "resident_MB_3": 901,
               "resident_MB_6": 902}  # fmt: skip
    row = {"counts": [3, 6], "batch": 2, "ms": 7, "ms_one_worker": 8, "ms_two_workers": 4, "MB": 1, "own_MB": 1,
           "prepare_s": 2, "empty_s": 4.25, "empty_cases": 2, **counted}  # fmt: skip
    *told, _, head, _, line = bench_pipeline._table({"m4oe": row}).splitlines()
    assert "no network" in " ".join(told) and "bench step" in " ".join(told) and "without workers" in " ".join(told)
    shown = dict(zip(head.split(" | "), line.split(" | "), strict=True))
    assert shown["s to the first sample, empty store (cases)"] == "4.2 (2)"
    assert shown["s to the first sample, 6 cases in the store"] == "0.5"
    assert shown["MB of its own more, 6 cases"] == "12" and shown["MB resident, 6 cases"] == "902"
    assert "s to start" not in head


def test_the_cases_of_a_larger_data_set_are_linked_and_not_prepared(monkeypatch, tmp_path):
    few = write_synthetic(tmp_path / "few", 1, [TINY])
    many = write_synthetic(tmp_path / "many", 3, [TINY], like=few)
    loader = bench_pipeline._loader("m4oe", few, tmp_path / "store", small=True)
    prepared = bench_pipeline._cases(loader)
    bench_pipeline._multiplied(prepared, "m4oe", many, tmp_path / "store", small=True)
    asked = []
    monkeypatch.setattr(cases, "fill", lambda jobs, *given: asked.extend(jobs))
    more = bench_pipeline._cases(bench_pipeline._loader("m4oe", many, tmp_path / "store", small=True))
    assert not asked and len(more) == 3
    assert more.chain != prepared.chain, "the intensities are those of more cases"


@pytest.mark.timeout(60)
def test_a_process_that_dies_while_it_measures_is_noticed(monkeypatch, tmp_path):
    monkeypatch.setattr(bench_pipeline, "_started", lambda *given: os._exit(7))
    with pytest.raises(DataError, match=r"(?s)without an answer.*exit code 7"):
        bench_pipeline._apart("m4oe", tmp_path, tmp_path, small=True)


def test_unknown_data_paths_are_refused():
    with pytest.raises(ConfigError, match="ka2er"):
        pipeline("unet")
    with pytest.raises(ConfigError, match="the size is a number"):
        command.bench("ka2er", "large")
    assert set(PIPELINES) >= {"ka2er", "m4oe", "samora", "ic_moe"}
