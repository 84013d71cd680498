import json
import os

import pytest

from common.data.store import sources as module
from common.data.store.sources import Sources
from common.errors import DataError

OLD = 1_600_000_000


@pytest.fixture
def item(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SETTLED_NS", -1)  # the time of change cannot be set back
    image = tmp_path / "image.nii"
    image.write_bytes(b"one")
    os.utime(image, (OLD, OLD))
    series = tmp_path / "series"
    series.mkdir()
    for name in "ab":
        (series / f"{name}.dcm").write_bytes(name.encode())
    return {"image": str(image), "label": [str(image), str(series)], "case": "c1", "task": "liver"}


def test_paths_become_hashes_and_the_rest_stays(item, tmp_path):
    found = Sources(None).content(item, ("image", "label"))
    assert found["case"] == "c1" and len(found["image"]) == 64 and found["label"][0] == found["image"]
    (tmp_path / "series" / "b.dcm").rename(tmp_path / "series" / "c.dcm")
    assert Sources(None).content(item, ("image", "label"))["label"][1] != found["label"][1]
    assert Sources(None).size(item, ("image", "label")) == 3 + 3 + 2


def test_a_second_start_reads_no_file(item, tmp_path, monkeypatch):
    store = tmp_path / "store"
    first = Sources(store)
    wanted = first.content(item, ("image", "label"))
    first.save()

    def no_reading(path):
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(module, "file_hash", no_reading)
    assert Sources(store).content(item, ("image", "label")) == wanted


@pytest.mark.parametrize("how", ["size", "time"])
def test_a_changed_file_is_read_again(item, tmp_path, how):
    store = tmp_path / "store"
    first = Sources(store)
    before = first.content(item, ("image",))["image"]
    first.save()
    image = tmp_path / "image.nii"
    image.write_bytes(b"three" if how == "size" else b"two")
    if how == "size":
        os.utime(image, (OLD, OLD))
    assert Sources(store).content(item, ("image",))["image"] != before


def test_a_file_written_just_now_is_not_trusted(item, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SETTLED_NS", 2_000_000_000)
    sources = Sources(tmp_path / "store")
    sources.content(item, ("image",))
    assert sources.found == {}


def test_lists_of_two_runs_are_joined_and_a_damaged_one_is_forgotten(item, tmp_path):
    store = tmp_path / "store"
    one, two = Sources(store), Sources(store)
    one.content(item, ("image",))
    two.content({"label": item["label"]}, ("label",))
    one.save()
    two.save()
    assert len(json.loads((store / "sources.json").read_text())) == 3
    (store / "sources.json").write_text('{"a": 1')
    assert Sources(store).known == {}
    (store / "sources.json").write_text('{"a": 1}')
    assert Sources(store).known == {}


def test_a_missing_file_is_named_with_its_case(item, tmp_path):
    (tmp_path / "image.nii").unlink()
    with pytest.raises(DataError, match=r"case c1, .*image\.nii.*cannot be read"):
        Sources(None).content(item, ("image",))
