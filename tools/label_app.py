"""MONAI Label's app for bundles, whose refusals say why. Copied as ``main.py``; runs in the server's environment."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException
from monai.transforms import LoadImage
from monailabel.interfaces.app import MONAILabelApp


def _bundle_app() -> Any:
    """The class of the app as it comes, which lies beside this file under another name."""
    spec = importlib.util.spec_from_file_location("monaibundle", Path(__file__).with_name("monaibundle.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MyApp


class MyApp(_bundle_app(), MONAILabelApp):  # type: ignore[misc]  # the server looks for a direct child of the second
    """The app as it comes, but for requests that a bundle refuses: 422 with its words, where 500 says nothing."""

    def infer(self, request: dict[str, Any], datastore: Any = None) -> Any:
        """Answer a request.

        Raises:
            HTTPException: for what the bundle refuses.
        """
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
