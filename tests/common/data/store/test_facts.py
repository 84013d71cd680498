import numpy as np
import pytest

from common.data.store.facts import remembered
from common.data.store.place import Store, clear


@pytest.fixture
def ask(items, tmp_path):
    asked = []

    def question(store, **about):
        def answer():
            asked.append(1)
            return {"mean": 0.1 + 0.2, "n": len(asked)}

        return remembered(store, {"asked": "mean", **about}, items, answer)

    question.asked = asked
    return question


def test_an_answer_is_found_once_for_the_same_files(ask, items, tmp_path):
    store = Store(store_dir=tmp_path / "s")
    first = ask(store)
    assert ask(Store(store_dir=tmp_path / "s")) == first == {"mean": 0.1 + 0.2, "n": 1} and len(ask.asked) == 1
    assert ask(store, seed=1)["n"] == 2, "another question"
    np.save(items[0]["image"], np.zeros((1, 20, 18, 22), np.float32))
    assert ask(store)["n"] == 3, "another file"
    assert ask(None)["n"] == 4 and ask(None)["n"] == 5
    clear(tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_damaged_memory_is_found_anew(ask, tmp_path):
    store = Store(store_dir=tmp_path / "s")
    ask(store)
    (file,) = (tmp_path / "s" / "facts").iterdir()
    file.write_text("{")
    assert ask(store)["n"] == 2 and ask(store)["n"] == 2


def test_what_the_files_hold_is_remembered_when_the_answer_fails(ask, items, tmp_path, monkeypatch):
    monkeypatch.setattr("common.data.store.sources._SETTLED_NS", -(10**18))
    store = Store(store_dir=tmp_path / "s")
    with pytest.raises(ZeroDivisionError):
        remembered(store, {"asked": "mean"}, items, lambda: {"mean": 1 / 0})
    monkeypatch.setattr("common.data.store.sources.file_hash", None)
    assert ask(store)["n"] == 1
