"""A forecast is arithmetic on what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.amalgamate.forecast import _time, forecast_lines, hours, prepared_bytes, source_bytes

FOUND = {
    "scans": 20,
    "experts": [
        {"name": "a", "scans": 20, "seconds": 180.0, "bytes": 10**6, "whole": 5 * 10**6},
        {"name": "b", "scans": 4, "seconds": 90.0, "bytes": 10**3, "whole": 5 * 10**3},
    ],
    "step": 0.5,
    "steps": 7200,
}


def test_hours_are_those_of_all_scans_and_steps() -> None:
    answering, training = hours(FOUND)
    assert answering == pytest.approx((20 * 180 + 4 * 90) / 3600) and training == 1.0


def test_the_stores_disk_is_in_proportion_to_the_files(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    for name, size in (("a", 100), ("b", 300), ("c", 50), ("series/1", 20), ("series/2", 30)):
        (tmp_path / name).write_bytes(bytes(size))
    images = {
        "ct": [str(tmp_path / "a"), str(tmp_path / "b")],
        "mr": str(tmp_path / "c"),
        "new": str(tmp_path / "series"),
    }
    items = [{"task": task, "image": image} for task, image in images.items()]
    assert [source_bytes(i) for i in items] == [400, 50, 50]
    assert prepared_bytes(items, {"ct": [2.0, 4.0], "mr": [1.0]}) == 400 * 3 + 50 * 1 + 50 * 2
    assert prepared_bytes(items, {}) == 0
    found = forecast_lines({**FOUND, "prepared": 2 * 10**9})
    assert found[2] == "prepared volumes of 20 scans: 2 GB on disk" and len(found) == 1 + len(forecast_lines(FOUND))


def test_lines_say_what_is_needed() -> None:
    first, second, last = forecast_lines(FOUND)
    assert "a: 20 scans of about 180.0 s, 20 MB on disk (100 MB at most)" in first
    assert second.startswith("b: 4 scans of about 90.0 s, 4 kB on disk")
    assert last == "answers about 1.1 hours, training about 1.0 hours (7200 steps of 0.50 s)"
    assert "training about a minute" in forecast_lines({**FOUND, "steps": 10})[-1]
    assert "training about 5 minutes" in forecast_lines({**FOUND, "steps": 600})[-1]


@pytest.mark.parametrize(
    ("value", "words"),
    [(1, "1.0 hours"), (0.99, "59 minutes"), (1 / 60, "1 minutes"), (0.9 / 60, "a minute"), (0, "a minute")],
)
def test_a_time_has_the_unit_that_fits(value: float, words: str) -> None:
    assert _time(value) == words
