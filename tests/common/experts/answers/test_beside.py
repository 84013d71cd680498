"""What stays beside a student is said in a file that belongs to its weights, and nothing else is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import AmalgamationError, ConfigError, ExpertError
from common.experts.answers.beside import Kept, kept_file, read_kept, refusal, write_kept
from tests.common.experts.answers.easy import expert


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model.pt").write_bytes(b"weights")
    return tmp_path / "model.pt"


def test_what_is_written_is_read_wherever_the_folder_lies(model: Path, tmp_path: Path) -> None:
    assert read_kept(model) == []
    kept = Kept(expert(tmp_path, "a", "liver", "spleen"), ("spleen",))
    file = write_kept(model, [kept])
    assert file == kept_file(model) == tmp_path / "model.kept.json"
    (found,) = read_kept(model, ("spleen", "rib"))
    assert found.decides == ("spleen",) and found.spec.sha256 == kept.spec.sha256 and Path(found.spec.path).is_file()
    (tmp_path / "elsewhere").mkdir()
    for one in (model, file):
        one.rename(tmp_path / "elsewhere" / one.name)
    (moved,) = read_kept(tmp_path / "elsewhere" / "model.pt")
    assert moved == found, "the experts lie where they lay"
    assert read_kept(tmp_path / "elsewhere" / "model.pt", keep=False) == []
    write_kept(tmp_path / "elsewhere" / "model.pt", [])
    assert not kept_file(tmp_path / "elsewhere" / "model.pt").exists()


def test_an_expert_without_a_hash_gets_one(model: Path, tmp_path: Path) -> None:
    spec = expert(tmp_path, "a", "liver")
    write_kept(model, [Kept(type(spec)(**{**spec.__dict__, "sha256": ""}), ("liver",))])
    assert read_kept(model)[0].spec.sha256 == spec.sha256


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "does not say"),
        ({"kept": {}}, "does not say"),
        ({"more": 1}, "does not say"),
        ({"kept": [{"expert": {}}]}, "does not say"),
        ({"kept": [{"expert": {}, "decides": ["liver"]}]}, "cannot read the description"),
        ({"decides": []}, "does not say"),
        ({"decides": [1]}, "does not say"),
        ({"decides": ["rib"]}, "structures that both know"),
        ({"decides": ["spleen"]}, "structures that both know"),
        ({"decides": ["liver", "liver"]}, "each once"),
        ({"model": "0"}, "belong to another student"),
    ],
)
def test_what_is_none_is_refused(model: Path, tmp_path: Path, change: dict[str, Any], told: str) -> None:
    file = write_kept(model, [Kept(expert(tmp_path, "a", "liver", "spleen"), ("liver",))])
    data = json.loads(file.read_text())
    if "decides" in change:
        data["kept"][0] |= change
    else:
        data |= change
    file.write_text(json.dumps(data))
    with pytest.raises(AmalgamationError, match=told):
        read_kept(model, ("liver", "rib"))


def test_damage_is_no_student_alone(model: Path) -> None:
    kept_file(model).write_text("{")
    with pytest.raises(ConfigError, match="cannot read which experts stay") as error:
        read_kept(model)
    assert "--keep False" in str(error.value)


def test_a_refusal_names_the_file_and_what_to_do(tmp_path: Path) -> None:
    kept = Kept(expert(tmp_path, "a", "liver"), ("liver",))
    found = refusal(kept, ExpertError("a file of the expert is missing", where="there", got="none"))
    assert "expert 'a' (there)" in str(found) and "put its files back" in str(found) and "--keep False" in str(found)
