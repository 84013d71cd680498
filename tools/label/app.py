"""MONAI Label's app for bundles, whose refusals say why. Copied as ``main.py``; runs in the server's environment."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException
from monai.transforms import LoadImage
from monailabel.interfaces.app import MONAILabelApp


def _beside(name: str) -> Any:
    """A module that was copied with this one."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, Path(__file__).parent / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)
    spec.loader.exec_module(module)
    return module


judging = _beside("label_checks/requests.py")
uploads = _beside("label_checks/uploads.py")


class MyApp(_beside("monaibundle.py").MyApp, MONAILabelApp):  # type: ignore[misc]  # a direct child of the second
    """The app as it comes, but for requests that are refused, by what is offered or by a bundle: 422 says why."""

    def init_datastore(self) -> Any:
        """The studies; a folder of them takes only what it can keep."""
        store = super().init_datastore()
        return store if self.studies.startswith(("http://", "https://")) else uploads.judged(store, judging)

    def _load_sessions(self, load: bool = False) -> Any:
        """Scans from a viewer's own disk; a file without a byte is no scan."""
        return uploads.judged_sessions(super()._load_sessions(load), judging)

    def offer(self, model: str = "") -> Any:
        """What requests to a model may hold, to be compared with them before anything of them is used."""
        task, trainer = self._infers.get(model), self._trainers.get(model)
        options = {**(task.config() if task else {}), **(trainer.config() if trainer else {})}
        labels = [name for other in self._infers.values() for name in other.labels or ()]
        return judging.Offer(options, labels, {*self._infers, *self._trainers})

    def infer(self, request: dict[str, Any], datastore: Any = None) -> Any:
        """Answer a request.

        Raises:
            HTTPException: for what is not offered, or the bundle refuses.
        """
        request = self._judged(judging.checked_infer, request, self._infers)
        self._judge_image(request, datastore or self.datastore())
        self._judge_study(request, datastore or self.datastore())
        try:
            result = super().infer(request, datastore)
        except Exception as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            raise HTTPException(status_code=422, detail=f"{type(refusal).__name__}: {refusal}") from error
        # a mask is 1 in the structure that was asked for, whatever its number
        mask = "deepgrow" in str(request.get("model")).lower()
        if request.get("label_info") and not mask:
            _put_in_order(request["label_info"], result)
        return result

    def batch_infer(self, request: dict[str, Any], datastore: Any = None) -> Any:
        """Answer for many studies.

        Raises:
            HTTPException: for what is not offered.
        """
        return super().batch_infer(self._judged(judging.checked_infer, request, self._infers), datastore)

    def train(self, request: dict[str, Any]) -> Any:
        """Train on submitted label maps.

        Raises:
            HTTPException: for what is not offered, or files whose names a configuration would not keep.
        """
        request = self._judged(judging.checked_train, request, self._trainers)
        for path in (p for pair in self.datastore().datalist() for p in pair.values()):
            if isinstance(path, str) and not judging.is_inert(path):
                raise _refused(judging.RequestError("study", path, "a file name without #, @:: and %::: rename it"))
        return super().train(request)

    def _judged(self, check: Any, request: dict[str, Any], models: Any) -> dict[str, Any]:
        model = request.get("model")
        if not isinstance(model, str) or model not in models:
            raise _refused(judging.RequestError("model", model, "one of " + ", ".join(models)))
        try:
            judged: dict[str, Any] = check(request, self.offer(model))
        except judging.RequestError as error:
            raise _refused(error) from error
        return judged

    def _judge_image(self, request: dict[str, Any], datastore: Any) -> None:
        """Only studies of this server, sessions and uploads are opened, whatever path a request names."""
        image, session = request.get("image"), request.get("session")
        remote = self.studies.startswith(("http://", "https://"))
        try:
            if session is not None:
                name = session.get("name") if isinstance(session, dict) else None
                known = self.sessions().get_session(judging.check_name("session", name))
                if known is None or known.image != image:
                    raise judging.RequestError("session", name, "a session of this server, with its image")
                return
            if not remote and isinstance(image, str) and image in datastore.list_images():
                return
            if remote and isinstance(image, str) and not Path(image).exists():
                judging.check_name("image", image)  # a series that the archive may have got since
                return
            judging.check_place("image", image, [] if remote else [self.studies])
            if Path(str(image)).is_file() and Path(str(image)).stat().st_size == 0:
                raise judging.RequestError("image", "an empty file", "an image")
        except judging.RequestError as error:
            raise _refused(error) from error

    def _judge_study(self, request: dict[str, Any], datastore: Any) -> None:
        """A series of an archive says what it is, and the model's folder what it was taught on."""
        image, told = request.get("image"), Path(__file__).parent / "model" / str(request["model"]) / "taught.json"
        if request.get("session") is not None or not isinstance(image, str) or not told.is_file():
            return
        if self.studies.startswith(("http://", "https://")) and not Path(image).exists():
            datastore.get_image_uri(image)  # the series, as an answer needs it anyway
        try:
            tag = datastore.get_image_info(image).get("Modality")
            known = json.loads(told.read_text(encoding="utf-8"))
            asked = request.get("modality") or self.offer(request["model"]).options.get("modality")
            judging.check_study(tag, known.get("dicom"), asked, known.get("modalities"))
        except judging.RequestError as error:
            raise _refused(error) from error


def _refused(error: Exception) -> HTTPException:
    return HTTPException(status_code=422, detail=str(error))


def _put_in_order(segments: list[dict[str, Any]], result: dict[str, Any]) -> None:
    """Names and colours for a DICOM SEG, as the server will read them: the first is for the lowest value that is there.

    Without this, a structure that was not found would give its name to the next one.
    """
    file, numbers = result.get("file") or result.get("label"), (result.get("params") or {}).get("label_names")
    if not file or not isinstance(numbers, dict) or not Path(str(file)).is_file():
        return
    names = {int(value): name for name, value in numbers.items()}
    own = {str(segment.get("name", "")).casefold(): segment for segment in segments}
    found = []
    for value in np.unique(np.asarray(LoadImage(image_only=True)(file))).astype(int):
        if value > 0:
            name = names.get(value, f"structure {value}")
            at_place = segments[value - 1] if value <= len(segments) else {}
            found.append(own.get(name.casefold()) or {**at_place, "name": name})
    segments[:] = found


def _refusal(error: BaseException | None) -> BaseException | None:
    """The bundle's own error among the causes; MONAI wraps those of a configuration."""
    while error is not None and all(kind.__name__ != "AmalgamationError" for kind in type(error).__mro__):
        error = error.__cause__ or error.__context__
    return error
