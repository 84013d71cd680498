"""What a folder of studies takes, with a stand-in for MONAI Label's store."""

import json

import pytest

from tools.label import requests
from tools.label.requests import RequestError
from tools.label.uploads import judged, judged_sessions


class Store:
    """Studies and label maps by name, as MONAI Label's."""

    def __init__(self):
        self.images, self.labels, self.calls = ["Scan 1", "b"], {("b", "final")}, []

    def list_images(self):
        return self.images

    def get_label_uri(self, name, tag):
        return "there" if (name, tag) in self.labels else ""

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *given: self.calls.append((name, *given)) or name


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tmp1.nii.gz"
    path.write_bytes(b"x")
    return path


@pytest.fixture
def store():
    return judged(Store(), requests)


def refused(call, *given):
    with pytest.raises(RequestError) as caught:
        call(*given)
    return getattr(caught.value, "status", 422)


def test_what_can_be_kept_is_handed_on(store, file):
    assert store.add_image("c", str(file), {"a": 1}) == "add_image"
    store.save_label("b", str(file), "final", {})
    store.update_image_info("b", {"strategy": {"random": {"ts": 1, "client_id": "me"}}})
    store.update_label_info("b", "final", {"x": [1, None, True]})
    store.remove_label("b", "final")
    store.remove_image("b")
    names = ["add_image", "save_label", "update_image_info", "update_label_info", "remove_label", "remove_image"]
    assert [call[0] for call in store.calls] == names and store.calls[0] == ("add_image", "c", str(file), {"a": 1})


@pytest.mark.parametrize("name", ["", None, "..", "a/b", "../x", "$x", "a#b", "@x", "%x", "a::b", "x" * 129, "a\0b"])
def test_names_of_new_studies(store, file, name):
    assert refused(store.add_image, name, str(file), {}) == 422 and not store.calls


@pytest.mark.parametrize("name", ["b", "B", "b.", "b ", "\uff42", "scan 1", "SCAN 1.. "])
def test_a_study_is_not_written_over(store, file, name):
    assert refused(store.add_image, name, str(file), {}) == 409 and not store.calls


def test_files(store, file, tmp_path):
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "folder.nii").mkdir()
    for name in ("run.sh", "none", "page.html", ".json"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("empty.nii.gz", "folder.nii", "run.sh", "none", "page.html", ".json", "missing.nii"):
        assert refused(store.add_image, "c", str(tmp_path / name), {}) == 422
        assert refused(store.save_label, "b", str(tmp_path / name), "final", {}) == 422
    assert not store.calls


@pytest.mark.parametrize("info", [[], "x", 1, {"a": float("nan")}, {"a": {1}}, {"a": "\ud800"}, {"a": "x" * 2_000_000},
                                  json.loads('{"a":' * 50 + "1" + "}" * 50)])  # fmt: skip
def test_what_is_told_of_a_study(store, file, info):
    assert refused(store.add_image, "c", str(file), info) == 422
    assert refused(store.save_label, "b", str(file), "final", info) == 422
    assert refused(store.update_image_info, "b", info) == 422
    assert refused(store.update_label_info, "b", "final", info) == 422
    assert not store.calls


@pytest.mark.parametrize("name", ["", "c", None, 5, ["b"], "B"])
def test_what_is_not_there(store, file, name):
    calls = (
        (store.remove_image, ()),
        (store.update_image_info, ({},)),
        (store.remove_label, ("final",)),
        (store.save_label, (str(file), "final", {})),
        (store.update_label_info, ("final", {})),
    )
    for call, given in calls:
        assert refused(call, name, *given) == 404
    for tag in ("", "other", None):
        assert refused(store.remove_label, "b", tag) == 404
    assert not store.calls


class Sessions(dict):
    """Sessions as MONAI Label's: what is received is moved."""

    def add_session(self, data_file, expiry=0, uncompress=False):
        self[data_file] = (expiry, uncompress)
        return "id", data_file


@pytest.fixture
def sent(tmp_path, monkeypatch):
    """A folder that the server made for one request."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "tmp_request").mkdir()
    return tmp_path / "tmp_request"


def test_a_session_holds_an_image(sent):
    sessions = judged_sessions(Sessions(), requests)
    (sent / "a.nii.gz").write_bytes(b"x")
    assert sessions.add_session(str(sent / "a.nii.gz"), 5, False)[0] == "id" and len(sessions) == 1
    (sent / "1.dcm").write_bytes(b"x")
    assert sessions.add_session(str(sent), expiry=3)[0] == "id" and sessions[str(sent)] == (3, False)
    assert judged_sessions(None, requests) is None and sent.is_dir()


@pytest.mark.parametrize("names", [["a.nii.gz"], ["1.dcm", "2.dcm"], []])
def test_an_empty_file_is_no_session_and_leaves_nothing(sent, names):
    sessions = judged_sessions(Sessions(), requests)
    for name in names:
        (sent / name).touch()
    (sent / "0.dcm").write_bytes(b"x") if len(names) == 2 else None
    given = sent / names[0] if len(names) == 1 else sent
    assert refused(sessions.add_session, str(given), 0, False) == 422
    assert not sessions and not sent.exists() and sent.parent.is_dir()


def test_what_was_not_received_is_never_deleted(sent):
    (sent / "deep").mkdir()
    (sent / "deep" / "a.nii").touch()
    assert refused(judged_sessions(Sessions(), requests).add_session, str(sent / "deep" / "a.nii")) == 422
    assert (sent / "deep" / "a.nii").exists()
