"""A forecast is arithmetic on what was measured."""

from __future__ import annotations

import pytest

from tools.amalgamate.forecast import forecast_lines, hours

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


def test_lines_say_what_is_needed() -> None:
    first, second, last = forecast_lines(FOUND)
    assert "a: 20 scans of about 180.0 s, 20 MB on disk (100 MB at most)" in first
    assert second.startswith("b: 4 scans of about 90.0 s, 4 kB on disk")
    assert last == "answers about 1.1 hours, training about 1.0 hours (7200 steps of 0.50 s)"
    assert "training about a minute" in forecast_lines({**FOUND, "steps": 10})[-1]
    assert "training about 5 minutes" in forecast_lines({**FOUND, "steps": 600})[-1]
