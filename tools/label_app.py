"""MONAI Label's app for bundles, whose refusals say why. Copied as ``main.py``; runs in the server's environment."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from fastapi import HTTPException
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
            return super().infer(request, datastore)
        except Exception as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            raise HTTPException(status_code=422, detail=f"{type(refusal).__name__}: {refusal}") from error


def _refusal(error: BaseException | None) -> BaseException | None:
    """The bundle's own error among the causes; MONAI wraps those of a configuration."""
    while error is not None and all(kind.__name__ != "AmalgamationError" for kind in type(error).__mro__):
        error = error.__cause__ or error.__context__
    return error
