"""The app's own judgements, with stand-ins for MONAI Label, which lives in an environment of its own."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from common.errors import ConfigError
from tools.label import layout

THEIRS = """
class MyApp:
    def __init__(self, studies, infers, trainers):
        self.studies, self._infers, self._trainers = studies, infers, trainers
        self.calls, self.failure, self.result, self.known = [], None, {}, {}
    def init_datastore(self):
        return self.store
    def _load_sessions(self, load):
        return None if not load else self.held
    def datastore(self):
        return self.store
    def sessions(self):
        return self
    def get_session(self, name):
        return self.known.get(name)
    def infer(self, request, datastore):
        self.calls.append(request)
        if self.failure is not None:
            raise self.failure
        return self.result
    def batch_infer(self, request, datastore):
        self.calls.append(datastore)
        return "batch"
    def train(self, request):
        self.calls.append(request)
        return "trained"
"""


class HTTPException(Exception):
    """As fastapi's, which is in the server's environment."""

    def __init__(self, status_code: int, detail: str) -> None:
        super().__init__(detail)
        self.status_code, self.detail = status_code, detail


class Archive:
    """A store of studies: what it holds, and what it was asked for."""

    def __init__(self, **tags: str) -> None:
        self.tags, self.fetched, self.pairs = tags, list[str](), list[dict[str, Any]]()

    def list_images(self) -> list[str]:
        return ["scan", "full.nii.gz"]

    def get_image_uri(self, image: str) -> str:
        self.fetched.append(image)
        return image

    def get_image_info(self, image: str) -> dict[str, str]:
        return self.tags

    def datalist(self) -> list[dict[str, Any]]:
        return self.pairs

    add_image = save_label = remove_image = remove_label = update_image_info = update_label_info = get_image_uri


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The app's module beside what it is copied with."""
    theirs = tmp_path / "prefix" / "monailabel" / "sample-apps" / "monaibundle"
    theirs.mkdir(parents=True)
    (theirs / "main.py").write_text(THEIRS)
    app = tmp_path / "app"
    layout.copy_app(tmp_path / "prefix", app)
    names = (
        "fastapi",
        "monailabel",
        "monailabel.interfaces",
        "monailabel.interfaces.app",
        "requests",
        "uploads",
        "monaibundle",
    )
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["fastapi"].HTTPException = HTTPException  # type: ignore[attr-defined]
    sys.modules["monailabel.interfaces.app"].MONAILabelApp = type("MONAILabelApp", (), {})  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("label_app", app / "main.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model(**options: Any) -> Any:
    return SimpleNamespace(config=lambda: options, labels=["liver", "spleen"])


@pytest.fixture
def app(main: ModuleType, tmp_path: Path) -> Any:
    one = main.MyApp(
        str(tmp_path), {"seg": model(modality="CT"), "deepgrow": model(device=["cpu"])}, {"seg": model(epochs=2)}
    )
    one.store = Archive(Modality="CT")
    return one


def refused(call: Any, *given: Any) -> str:
    with pytest.raises(HTTPException) as caught:
        call(*given)
    assert caught.value.status_code == 422
    return str(caught.value.detail)


def test_what_a_model_offers(app: Any) -> None:
    offer = app.offer("seg")
    assert dict(offer.options) == {"modality": "CT", "epochs": 2}
    assert list(offer.structures) == ["liver", "spleen"] * 2 and set(offer.models) == {"seg", "deepgrow"}
    assert dict(app.offer("deepgrow").options) == {"device": ["cpu"]} and dict(app.offer().options) == {}


def test_an_unknown_model_is_refused_everywhere(app: Any) -> None:
    for call in (app.infer, app.batch_infer, app.train):
        assert (
            "seg" in refused(call, {"model": "x"})
            and "seg" in refused(call, {})
            and "seg" in refused(call, {"model": 1})
        )
    assert "one of seg, deepgrow" in refused(app.infer, {"model": "x"})
    assert refused(app.train, {"model": "deepgrow"}).rstrip(")").endswith("one of seg") and not app.calls
    assert app.batch_infer({"model": "seg"}, "a store") == "batch" and app.calls == ["a store"]


def test_studies_of_the_server_are_opened_and_no_other_path(app: Any, tmp_path: Path) -> None:
    app.result = {"params": {}}
    assert app.infer({"model": "seg", "image": "scan"}) == {"params": {}}
    (tmp_path / "here.nii.gz").write_bytes(b"x")
    app.infer({"model": "seg", "image": str(tmp_path / "here.nii.gz")})
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    assert "empty" in refused(app.infer, {"model": "seg", "image": str(tmp_path / "empty.nii.gz")})
    assert "image" in refused(app.infer, {"model": "seg", "image": "/etc/passwd"})
    other = Archive()
    other.list_images = lambda: ["elsewhere"]  # type: ignore[method-assign]
    app.infer({"model": "seg", "image": "elsewhere"}, other)
    assert len(app.calls) == 3


@pytest.mark.parametrize("studies", ["http://archive", "https://archive"])
def test_of_an_archive_a_name_is_enough_and_a_path_too_much(app: Any, studies: str, tmp_path: Path) -> None:
    app.studies = studies
    app.infer({"model": "seg", "image": "1.2.840.1"})
    (tmp_path / "full.nii.gz").write_bytes(b"x")
    for path in (str(tmp_path / "full.nii.gz"), "/etc/passwd"):
        assert "image" in refused(app.infer, {"model": "seg", "image": path})
    assert len(app.calls) == 1


def test_a_session_has_its_own_image(app: Any) -> None:
    app.known = {"s1": SimpleNamespace(image="/sessions/a.nii.gz")}
    app.infer({"model": "seg", "image": "/sessions/a.nii.gz", "session": {"name": "s1"}})
    for image, session in (("/sessions/b.nii.gz", {"name": "s1"}), ("/sessions/a.nii.gz", {"name": "s2"}),
                           ("/sessions/a.nii.gz", "s1")):  # fmt: skip
        assert "session" in refused(app._judge_image, {"image": image, "session": session}, app.store)
    assert len(app.calls) == 1


def test_a_study_of_another_kind_is_refused_by_its_tag(app: Any, main: ModuleType) -> None:
    told = Path(str(main.__file__)).parent / "model" / "seg" / "taught.json"
    told.parent.mkdir(parents=True)
    told.write_text(json.dumps({"dicom": ["CT"], "modalities": {"CT": ["CT"]}}))
    app.infer({"model": "seg", "image": "scan"})
    assert app.store.fetched == []
    app.store.tags = {"Modality": "MR"}
    assert "MR" in refused(app.infer, {"model": "seg", "image": "scan"})
    app._judge_study({"model": "seg", "image": "scan", "session": {"name": "s"}}, app.store)
    app._judge_study({"model": "seg", "image": None}, app.store)
    app._judge_study({"model": "deepgrow", "image": "scan"}, app.store)
    for studies in ("http://archive", "https://archive"):
        app.studies = studies
        assert "MR" in refused(app._judge_study, {"model": "seg", "image": "1.2.3"}, app.store)
    assert app.store.fetched == ["1.2.3", "1.2.3"], "the archive brings the series first"


def test_a_bundles_own_refusal_is_told_and_a_fault_is_not_hidden(app: Any) -> None:
    app.failure = RuntimeError("instantiating failed")
    app.failure.__cause__ = ConfigError("no such head")
    detail = refused(app.infer, {"model": "seg", "image": "scan"})
    assert detail.startswith("ConfigError: ") and "no such head" in detail
    app.failure = ValueError("a fault")
    app.failure.__context__ = ConfigError("while doing this")
    assert "while doing this" in refused(app.infer, {"model": "seg", "image": "scan"})
    app.failure = ValueError("a fault")
    with pytest.raises(ValueError, match="a fault"):
        app.infer({"model": "seg", "image": "scan"})


def test_files_with_names_that_are_code_stop_a_training(app: Any) -> None:
    app.store.pairs = [{"image": "/data/a.nii.gz", "label": "/data/b.nii.gz", "number": 3}]
    assert app.train({"model": "seg"}) == "trained"
    app.store.pairs.append({"image": "/data/a.nii.gz", "label": "/data/b#c.nii.gz"})
    assert "rename it" in refused(app.train, {"model": "seg"}) and len(app.calls) == 1


def segments(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "colour": i} for i, name in enumerate(names)]


def test_names_of_a_segmentation_follow_the_values_that_are_there(app: Any, main: ModuleType, tmp_path: Path) -> None:
    """The viewer's names in the order of its panel, the map without the first structure."""
    file = tmp_path / "answer.nii.gz"
    nib.save(nib.Nifti1Image(np.array([[[0, 2, 3, 5]]], np.uint8), np.eye(4)), file)
    params = {"label_names": {"liver": 1, "Spleen": 2, "aorta": 3}}
    given = segments("aorta", "x", "spleen")
    main._put_in_order(given, {"file": str(file), "params": params})
    assert given == [{"name": "spleen", "colour": 2}, {"name": "aorta", "colour": 0}, {"name": "structure 5"}]
    given = segments("x", "y")
    main._put_in_order(given, {"label": str(file), "params": params})
    assert given == [{"name": "Spleen", "colour": 1}, {"name": "aorta"}, {"name": "structure 5"}]
    for result in ({}, {"file": str(file)}, {"file": str(tmp_path / "gone"), "params": params}, {"params": params}):
        given = segments("x")
        main._put_in_order(given, result)
        assert given == segments("x")
    app.result = {"file": str(file), "params": params}
    for name, names in (("seg", ["Spleen", "aorta", "structure 5"]), ("deepgrow", ["x"])):
        request = {"model": name, "image": "scan", "label_info": segments("x")}
        app.infer(request)
        assert [s["name"] for s in app.calls[-1]["label_info"]] == names, "a click's mask is 1 whatever its number"


def test_stores_are_judged_in_a_folder_and_not_in_an_archive(app: Any, main: ModuleType) -> None:
    plain = app.store.add_image
    for studies in ("http://archive", "https://archive"):
        app.studies = studies
        assert app.init_datastore().add_image == plain
    app.studies = "/data"
    assert app.init_datastore().add_image != plain
    assert app._load_sessions() is None
    app.held = SimpleNamespace(add_session=plain)
    assert app._load_sessions(True).add_session != plain
