"""Requests that would run code, read or write elsewhere, or come from other web pages: refused, and nothing happens."""

import hashlib
import json
import urllib.error
from urllib.parse import urlencode

import pytest

from tests.label.client import SLICER
from tests.label.test_training import DEFAULT

pytestmark = pytest.mark.label
MODELS = ("ka2er_segmentation", "m4oe_segmentation", "sam_med3d_moe_deepgrow", "ka2er_deepedit")


@pytest.fixture
def harmless(served, tmp_path):
    """An expression that would leave a file; studies, weights and that file are looked at afterwards."""
    mark = tmp_path / "PWN"

    def state():
        files = [p for p in served.studies.rglob("*") if p.is_file() and "pictures" not in p.parts]
        files += [f / "models" / "model.pt" for f in served.folders]
        return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    before = state()
    yield f"$__import__('pathlib').Path('{mark}').touch()"
    assert not mark.exists() and state() == before
    answer = served.client.infer("ka2er_segmentation", "ras", **SLICER)  # nothing is left in its configuration
    assert answer.values.any()


def status(served, method, path, *, body=None, fields=None, **headers):
    try:
        if fields is not None:
            served.client.form(method, path, fields)
        else:
            head = {"Content-Type": "application/json", **headers}
            served.client.call(method, path, body=None if body is None else json.dumps(body).encode(), headers=head)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


@pytest.mark.parametrize("model", MODELS)
def test_values_and_keys_of_an_inference(served, harmless, model):
    keys = ("overlap", "modality", "head", "device", "bundle_root", "network_def", "_meta_", "model::path", "liver",
            "label", "result_extension", "result_dtype", "logging", "label_tag", "timeout",
            "model_filename")  # fmt: skip
    for key in keys:
        for wrong in (harmless, {"_target_": "os.getcwd"}, "../../x", "a#b"):
            code, words = served.client.refusal(model, "ras", **{key: wrong})
            assert code == 422 and key in words, (key, wrong, words)
    code, words = served.client.refusal(model, "ras", overlap=7)
    assert code == 422 and "overlap" in words


def test_images_from_elsewhere(served, harmless, tmp_path):
    secret = served.studies.parent / "secret.nii.gz"
    secret.write_bytes((served.studies / "ras.nii.gz").read_bytes())
    for image in (str(secret), "../secret.nii.gz", f"{served.studies}/../secret.nii.gz", "/etc/passwd", harmless,
                  "nobody", "main.py", "."):  # fmt: skip
        code, words = served.client.refusal("ka2er_segmentation", image)
        assert code == 422 and "image" in words, image
    for more in ({"image": str(secret)}, {"image": [1, 2]}, {"session": {"name": "x", "image": str(secret)}},
                 {"session": harmless}):  # fmt: skip
        fields = {"params": json.dumps(more)}
        assert status(served, "POST", "/infer/ka2er_segmentation?image=ras", fields=fields) == 422, more
    secret.unlink()


def test_trainings(served, harmless):
    for key, wrong in (("max_epochs", harmless), ("run_id", harmless), ("run_id", "card"), ("val_split", harmless),
                       ("model_filename", "../../x.pt"), ("tracking", harmless), ("tracking_uri", "http://example.org"),
                       ("network_def", 1), ("device", harmless), ("dataset", "os.system"), ("gpus", "$x")):  # fmt: skip
        assert status(served, "POST", "/train/ka2er_segmentation", body={**DEFAULT, key: wrong}) == 422, key
        nested = {"ka2er_segmentation": {**DEFAULT, key: wrong}}
        assert status(served, "POST", "/train/", body=nested) == 422, key


def test_tasks_on_many_studies(served, harmless):
    for wrong in ({"overlap": harmless}, {"images": ["../secret"]}, {"label_tag": "../x"}, {"bundle_root": "/"}):
        assert status(served, "POST", "/batch/infer/ka2er_segmentation", body=wrong) == 422
    assert status(served, "POST", "/activelearning/random", body={"label_tag": harmless}) == 422
    assert (
        status(served, "POST", "/infer/wsi/ka2er_segmentation?image=ras", body={"params": {"overlap": harmless}}) == 422
    )


def test_files_that_would_be_written_or_read_elsewhere(served, harmless, tmp_path):
    label = tmp_path / "x.nii.gz"
    label.write_bytes((served.studies / "ras.nii.gz").read_bytes())
    fields = {"params": "{}", "label": label}
    for tag in ("../../x", "/x", harmless, "a#b"):
        query = urlencode({"image": "ras", "tag": tag})
        assert status(served, "PUT", f"/datastore/label?{query}", fields=fields) == 422
    for image in ("../x", "/x", harmless, "a#b"):
        query = urlencode({"image": image})
        assert status(served, "PUT", f"/datastore/image?{query}", fields={"params": "{}", "file": label}) == 422
    assert status(served, "GET", "/datastore/image?image=../../../etc/passwd") == 422
    assert status(served, "DELETE", "/session/%2e%2e") == 422
    assert status(served, "PUT", "/model/ka2er_segmentation", fields={"file": label}) == 422
    assert status(served, "DELETE", "/model/ka2er_segmentation") == 422
    assert status(served, "DELETE", "/model/") == 422
    assert status(served, "PUT", "/session/?uncompress=true", fields={"files": label}) == 422


def test_an_empty_file_is_no_scan(served, tmp_path):
    empty = tmp_path / "empty.nii.gz"
    empty.touch()
    assert status(served, "PUT", "/session/", fields={"files": empty}) == 422
    fields = {"params": json.dumps(SLICER), "file": empty}
    assert status(served, "POST", "/infer/ka2er_segmentation", fields=fields) == 422


def test_pages_from_elsewhere(served, harmless):
    for headers in ({"Origin": "http://example.org"}, {"Origin": "null"}, {"Host": "example.org"}):
        assert status(served, "POST", "/train/ka2er_segmentation", body={}, **headers) == 403
        assert status(served, "GET", "/info/", **headers) == 403
        assert status(served, "OPTIONS", "/info/", **headers) == 403
    own = {"Origin": served.server.url}
    assert status(served, "GET", "/info/", **own) == 200 and status(served, "GET", "/ohif/index.html", **own) == 200


def test_a_scan_from_the_viewers_own_disk(served, tmp_path):
    file = tmp_path / "mine.nii.gz"
    file.write_bytes((served.studies / "lps.nii.gz").read_bytes())
    session = json.loads(served.client.form("PUT", "/session/", {"files": file})[1])["session_id"]
    query = urlencode({"session_id": session})
    fields = {"params": json.dumps(SLICER)}
    found = served.client._parsed(*served.client.form("POST", f"/infer/ka2er_segmentation?{query}", fields))
    assert (found.values == served.client.infer("ka2er_segmentation", "lps", **SLICER).values).all()
    uploaded = served.client.form("POST", "/infer/ka2er_segmentation", {**fields, "file": file})
    assert (served.client._parsed(*uploaded).values == found.values).all()
