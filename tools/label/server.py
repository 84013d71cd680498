"""Starting MONAI Label's server with settings that work on one machine without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.command_words import option
from common.dicom_tags import DICOM_KINDS
from common.errors import ConfigError, DataError, few
from common.modalities import meanings
from common.paths import check_path
from common.plain_json import LARGEST, parse_object

from .guard import ADDRESS

__all__ = ["Server", "check_studies", "dicomweb", "find_python"]

ENVIRONMENT = ".venv-label"
# of MONAI Label's MONAI_LABEL_DATASTORE_FILE_EXT, those that a bundle reads
LISTED = (".nii.gz", ".nii", ".nrrd", ".jpg", ".png", ".tif")
_OWN = ("labels", "datastore_v2.json")


def find_python(python: str | Path | None = None) -> Path:
    """The interpreter of the environment that has MONAI Label.

    Args:
        python: given by the user; else ``AMALGAM_LABEL_PYTHON``, else ``.venv-label`` here or beside the package.

    Raises:
        ConfigError: when there is none, or it has no MONAI Label.
    """
    given = python or os.environ.get("AMALGAM_LABEL_PYTHON")
    beside = [Path.cwd(), Path(__file__).resolve().parents[2]]
    places = [Path(given)] if given else [root / ENVIRONMENT / "bin" / "python" for root in beside]
    found = next((p for p in places if p.is_file()), None)
    hint = "make label    (or give --python PATH; a few minutes and about 8 GB, once)"
    if found is None:
        raise ConfigError("there is no environment for MONAI Label", where=places[0], hint=hint)
    if not any(found.parent.parent.glob("lib/python3*/site-packages/monailabel/main.py")):
        raise ConfigError("this environment has no MONAI Label", where=found, hint=hint)
    return found  # not resolved: a link's target would not know its environment


def check_studies(folder: Path) -> str | None:
    """Refuse a folder of which the viewers would show nothing: the server lists the files in it, not those below.

    Args:
        folder: of images; what the server keeps there itself does not count.

    Returns:
        a notice when the folder is empty, which is fine for who uploads scans from the viewer.

    Raises:
        DataError: when there is no such folder, or only what the server does not list.
    """
    if not check_path(folder, what="folder of studies").is_dir():
        raise DataError("there is no such folder of studies", where=folder, expected="a folder of images")
    there = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and p.name not in _OWN)
    if not there:
        return f"{folder} is empty: upload scans from the viewer, or put files there ({', '.join(LISTED)})"
    if any(p.is_file() and p.name.endswith(LISTED) for p in there):
        return None
    names = [f"{p.name}/" if p.is_dir() else p.name for p in there]
    raise DataError(
        "the label server would list nothing of this folder",
        where=folder,
        got=few(names),
        expected=f"files in the folder itself that end in {', '.join(LISTED)}",
        hint="convert DICOM series with dcm2niix and other files to NIfTI, or serve DICOM: "
        "--studies http://HOST/dicom-web",
    )


class Server:
    """A MONAI Label server in a process of its own.

    Args:
        python: of its environment.
        app: folder of the app, with the models under ``model``.
        models: names of the folders to offer.
        studies: folder of images, or the address of a DICOMweb service.
        code: folder for ``PYTHONPATH``.
        host: address to listen at.
        port: TCP port.
        log: file for what the server says; None lets it speak here.
        environment: further variables.
    """

    def __init__(
        self, *, python: Path, app: Path, models: Sequence[str], studies: str, code: Path,
        host: str = "127.0.0.1", port: int = 8000, log: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        # not the shell wrapper "monailabel": it breaks on spaces and puts the environment's parent on the path
        self.command = [
            str(python), "-m", "monailabel.main", "start_server", option("app", app), option("studies", studies),
            option("host", host), option("port", port), "--conf", "models", ",".join(models),
            "--conf", "zoo_source", "local", "--conf", "sam2", "false",
            # MONAI Label lets the pages of any web site ask and read; its own setting for that ends version 0.8.5
            "--uvicorn_app", "label_checks.guard:app",
        ]  # fmt: skip
        path = os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH", "")]))
        # the environment's own programs: without itkimage2segimage on the path the server would fetch it from GitHub
        programs = os.pathsep.join(filter(None, [str(python.absolute().parent), os.environ.get("PATH", "")]))
        self.url, self.app, self.log, self.models = f"http://{host}:{port}", app, log, tuple(models)
        own = {"PYTHONPATH": path, "PATH": programs, ADDRESS: host, **_one_gpu(), **(environment or {})}
        self.environment = {**os.environ, **own}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 600) -> dict[str, Any]:
        """Start, and wait until ``/info/`` answers with every model.

        Returns:
            What ``/info/`` says.

        Raises:
            ConfigError: when the server ends, does not answer in time, or left a model out.
        """
        stream = None if self.log is None else self.log.open("wb")
        # not in the folder of the command: "python -m" would put it on the path before everything else
        self.process = subprocess.Popen(self.command, env=self.environment, cwd=self.app, stdout=stream,
                                        stderr=subprocess.STDOUT if stream else None)  # fmt: skip
        if stream is not None:
            stream.close()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.process.poll() is not None:
                got = f"status {self.process.returncode}\n{self._last_words()}"
                raise ConfigError("the server ended", where=self.log or self.app, got=got)
            info = self._info()
            if info is not None:
                return self._complete(info)
            time.sleep(0.5)
        self.stop()
        raise ConfigError(
            "the server does not answer", where=self.url, got=f"nothing in {seconds:.0f} s\n{self._last_words()}"
        )

    def wait(self) -> int:
        """Until the server ends by itself."""
        assert self.process is not None
        return self.process.wait()

    def stop(self) -> None:
        """End the server and wait for it."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:  # it waits for a running inference
                self.process.kill()
                self.process.wait()

    def _info(self) -> dict[str, Any] | None:
        try:
            with urllib.request.urlopen(f"{self.url}/info/", timeout=10) as answer:
                return parse_object(answer.read(LARGEST + 1), error=ConfigError, where=self.url, finite=False)
        except (urllib.error.URLError, OSError, ValueError, ConfigError):
            return None

    def _complete(self, info: dict[str, Any]) -> dict[str, Any]:
        missing = [m for m in self.models if m not in info.get("models", {})]
        if missing:
            self.stop()
            found = ", ".join(info.get("models", {})) or "none"
            expected = ", ".join(missing)
            hint = f"look for warnings in {self.log or 'what it said'}"
            raise ConfigError("the server left models out", where=self.app, got=found, expected=expected, hint=hint)
        return info

    def _last_words(self, lines: int = 15) -> str:
        if self.log is None or not self.log.is_file():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def dicomweb(app: Path, modality: str | None, names: Sequence[str]) -> dict[str, str]:
    """The server's settings for studies on a DICOMweb service, which it would search for CT alone.

    Args:
        app: folder of the app; downloaded series are kept in its ``dicomweb``.
        modality: DICOM's name of what to look for, such as ``MR``.
        names: what the model calls its modalities, to tell from when ``modality`` is None.

    Raises:
        ConfigError: when the names do not tell one modality.
    """
    told = {tag for name in names for tag in _tags(name)} if modality is None else {str(modality).strip().upper()}
    if len(told) != 1 or not told <= set(DICOM_KINDS):
        got = ", ".join(names) or "nothing" if modality is None else modality
        where = "--dicom_modality"
        expected = "DICOM's name of one modality, such as CT or MR"
        hint = f"one of {', '.join(DICOM_KINDS)}"
        raise ConfigError("say which series to look for", where=where, got=got, expected=expected, hint=hint)
    return {"MONAI_LABEL_DICOMWEB_SEARCH_FILTER": json.dumps({"Modality": told.pop()}),
            "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(app / "dicomweb")}  # fmt: skip


_ONE_TAG = {"CT": "CT", "MR": "MR", "US": "US", "PT": "PT", "NM": "NM", "OCT": "OPT",
            "fundus": "OP", "endoscopy": "ES", "histology": "SM"}  # fmt: skip


def _tags(name: str) -> set[str]:
    """DICOM's tags of what a name means; an empty one where several are possible: a radiograph is CR, DX or MG."""
    words = {w for w in re.findall(r"[^\W_]+", name.upper()) if w in DICOM_KINDS}
    found = set()
    for meaning in meanings(name):
        own = {w for w in words if DICOM_KINDS[w] == meaning.kind} if meaning.kind in ("XR", "photo") else set()
        found |= own or {_ONE_TAG.get(meaning.sequence) or _ONE_TAG.get(meaning.kind, "")}
    return found or words or {""}


def _one_gpu() -> dict[str, str]:
    """The first GPU only: on several the server would start a training of its own kind, which these bundles lack."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": "0" if given is None else given.split(",")[0]}
