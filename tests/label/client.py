"""What 3D Slicer and OHIF send to a server: multipart forms over plain HTTP."""

import json
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import numpy as np
import pytest
import SimpleITK

SLICER = {"result_extension": ".nrrd", "result_dtype": "uint8"}


class Answer(NamedTuple):
    """A request's answer: the ``params`` and the label map's file."""

    params: dict
    file: Path | None

    @property
    def values(self) -> np.ndarray:
        """Of a ``.nrrd`` file, ``[X, Y, Z]``."""
        return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(self.file))).T


class Client:
    """Speaks to one server."""

    def __init__(self, url: str) -> None:
        self.url, self.folder = url, Path(tempfile.mkdtemp())

    def call(self, method, path, *, body=None, headers=None, timeout=300):
        request = urllib.request.Request(f"{self.url}{path}", data=body, method=method, headers=headers or {})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.headers, answer.read()

    def json(self, method, path, content=None):
        body = None if content is None else json.dumps(content).encode()
        _, data = self.call(method, path, body=body, headers={"Content-Type": "application/json"} if body else None)
        return json.loads(data)

    def infer(self, model, image, output=None, **params) -> Answer:
        query = urlencode({"image": image, **({"output": output} if output else {})})
        return self._parsed(*self.form("POST", f"/infer/{model}?{query}", {"params": json.dumps(params)}))

    def submit(self, image, label: Path, **params) -> dict:
        """What "Submit Label" does."""
        query = urlencode({"image": image, "tag": "final"})
        fields = {"params": json.dumps(params), "label": label}
        return json.loads(self.form("PUT", f"/datastore/label?{query}", fields)[1])

    def form(self, method, path, fields):
        """A multipart form; a ``Path`` is sent as a file."""
        boundary, parts = uuid.uuid4().hex, []
        for name, value in fields.items():
            file = f'; filename="{value.name}"' if isinstance(value, Path) else ""
            data = value.read_bytes() if isinstance(value, Path) else value.encode()
            parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + data)
        body = b"\r\n".join([*parts, f"--{boundary}--\r\n".encode()])
        return self.call(method, path, body=body, headers={"Content-Type": f"multipart/form-data; boundary={boundary}"})

    def _parsed(self, headers, data) -> Answer:
        kind = headers["Content-Type"]
        if kind.startswith("application/json"):
            return Answer(json.loads(data), None)
        message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + data)
        params, file = {}, None
        for part in message.iter_parts():
            if part.get_param("name", header="content-disposition") == "params":
                params = json.loads(
                    part.get_content() if part.get_content_maintype() == "text" else part.get_payload(decode=True)
                )
            else:
                file = self.folder / f"{uuid.uuid4().hex}_{part.get_filename()}"
                file.write_bytes(part.get_payload(decode=True))
        return Answer(params, file)

    def refusal(self, model, image, **params) -> tuple[int, str]:
        """HTTP status and text of a request that the server refuses."""
        with pytest.raises(urllib.error.HTTPError) as caught:
            self.infer(model, image, **params)
        return caught.value.code, caught.value.read().decode()

    def train(self, model, **request) -> str:
        """Train until the end; what the server then says."""
        self.json("POST", f"/train/{model}", request)
        return self.wait("/train/")

    def wait(self, path) -> str:
        """Until a task ends; its status."""
        while (found := self.json("GET", path))["status"] in ("RUNNING", "SUBMITTED"):
            time.sleep(1)
        return found["status"]

    def forget(self, image) -> None:
        """Remove a submitted label map."""
        self.call("DELETE", f"/datastore/label?{urlencode({'id': image, 'tag': 'final'})}")
