"""An answer is read as it was written, and anything else is no answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.experts.answers.saved import answer_file, read_answer, save_answer, saved_size


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    answer = torch.randint(0, 255, (5, 4, 3, 2), dtype=torch.uint8)
    file = answer_file(tmp_path / "answers", "a b/c", "ct", "1")
    assert read_answer(file, (4, 3, 2)) is None and file.parent == tmp_path / "answers"
    assert file != answer_file(tmp_path / "answers", "a b/c", "ct", "2")
    save_answer(file, answer)
    assert saved_size(answer) == saved_size(list(answer.numpy())) and 0 < file.stat().st_size - saved_size(answer) < 200
    found = read_answer(file, (4, 3, 2))
    assert found is not None and torch.equal(found, answer)
    assert read_answer(file, (4, 3, 1)) is None, "of another scan"


@pytest.mark.parametrize("change", ["cut", "none", "floats"])
def test_what_is_damaged_is_asked_again(tmp_path: Path, change: str) -> None:
    file = tmp_path / "x.npy.gz"
    save_answer(file, torch.zeros(5, 4, 3, 2, dtype=torch.float32 if change == "floats" else torch.uint8))
    if change != "floats":
        file.write_bytes(file.read_bytes()[:20] if change == "cut" else b"no gzip")
    assert read_answer(file, (4, 3, 2)) is None


def test_an_answer_with_a_damaged_middle_is_none(tmp_path: Path) -> None:
    file = answer_file(tmp_path, "a", "ct", "x")
    save_answer(file, torch.randint(0, 255, (1, 16, 16, 16), dtype=torch.uint8))
    whole = file.read_bytes()
    for place in range(len(whole) // 8, len(whole), 97):  # after the header, whose file name nobody reads
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        assert read_answer(file, (16, 16, 16)) is None, place
