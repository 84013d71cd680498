"""What was found is found once, and anew where something else decides it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tools.amalgamate.form import STUDENT
from tools.amalgamate.kept import kept


def test_once_for_each_mark(tmp_path: Path) -> None:
    found: list[int] = []

    def find() -> dict[str, Any]:
        found.append(1)
        return {"dice": math.nan, "number": len(found)}

    file = tmp_path / "a" / "x.json"
    assert kept(file, {"of": [1, "b"]}, find)["number"] == 1
    again = kept(file, {"of": [1, "b"]}, find)
    assert again["number"] == 1 and math.isnan(again["dice"])
    assert kept(file, {"of": [2, "b"]}, find)["number"] == 2
    for text in ("", "[]", "{}", '{"mark": {"of": [2, "b"]}, "found": 3}'):
        file.write_text(text)
        kept(file, {"of": [2, "b"]}, find)
    assert len(found) == 6 and kept(file, {"of": [2, "b"]}, find)["number"] == 6


def test_what_is_not_of_its_form_is_found_anew(tmp_path: Path) -> None:
    good = {"structures": ["liver"], "seconds": 0.5}
    file = tmp_path / "x.json"
    for wrong in ({}, {"structures": ["liver"]}, {**good, "seconds": "x"}, {**good, "structures": [1]}):
        file.write_text(json.dumps({"mark": {"a": 1}, "found": wrong}))
        assert kept(file, {"a": 1}, lambda: good, STUDENT) == good
        assert kept(file, {"a": 1}, dict, STUDENT) == good
