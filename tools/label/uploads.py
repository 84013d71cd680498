"""What the folder of studies takes: judged before a byte of it is written there, so that nothing is half there or lost.

MONAI Label's store copies what it is sent over what has the same name, takes any ending and an empty file, and fails
with a traceback for what it does not know. This file needs Python alone: it is copied beside the server's app.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

__all__ = ["ENDINGS", "judged", "judged_sessions"]

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".dcm")
_LARGEST = 1_000_000  # bytes of what is told of a study


def judged(store: Any, requests: Any) -> Any:
    """A folder of studies that refuses what it could not keep; its own methods are called only after that.

    Args:
        store: MONAI Label's.
        requests: the module of that name, which is loaded in more than one way.
    """
    checks: dict[str, Callable[..., None]] = {
        "add_image": _new_study,
        "save_label": _label,
        "remove_image": _known,
        "remove_label": _known_label,
        "update_image_info": _known,
        "update_label_info": _known_label,
    }
    for name, check in checks.items():
        setattr(store, name, partial(_checked, getattr(store, name), check, store, requests))
    return store


def judged_sessions(sessions: Any, requests: Any) -> Any:
    """Sessions that refuse what holds no image; what was received for them is then deleted, as it is otherwise moved.

    Args:
        sessions: MONAI Label's, or None where it has none.
        requests: as of :func:`judged`.
    """
    if sessions is not None:
        sessions.add_session = partial(_checked_session, sessions.add_session, requests)
    return sessions


def _checked_session(method: Callable[..., Any], requests: Any, file: Any, *given: Any, **more: Any) -> Any:
    path = Path(str(file))
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    empty = [f.name for f in files if not f.is_file() or f.stat().st_size == 0]
    if empty or not files:
        folder = path if path.is_dir() else path.parent
        if folder.parent == Path(tempfile.gettempdir()):  # the server's own, of this request
            shutil.rmtree(folder, ignore_errors=True)
        raise _error(requests, 422, "files", f"an empty file: {', '.join(empty[:5])}" if empty else "none", "an image")
    return method(file, *given, **more)


def _checked(method: Callable[..., Any], check: Callable[..., None], store: Any, requests: Any, *given: Any) -> Any:
    check(store, requests, *given)
    return method(*given)


def _new_study(store: Any, requests: Any, name: Any, file: Any, info: Any) -> None:
    requests.check_name("image", name)
    twin = next((known for known in store.list_images() if _plain(known) == _plain(name)), None)
    if twin is not None:
        raise _error(requests, 409, "image", name, f"a name that no study has, such as {name}_2; {twin} stays as it is")
    _check_file(requests, "file", file)
    _check_info(requests, info)


def _label(store: Any, requests: Any, name: Any, file: Any, tag: Any, info: Any) -> None:
    _known(store, requests, name)
    requests.check_name("tag", tag)
    _check_file(requests, "label", file)
    _check_info(requests, info)


def _known(store: Any, requests: Any, name: Any, info: Any = None) -> None:
    if not isinstance(name, str) or name not in store.list_images():
        raise _error(requests, 404, "image", name, "the id of a study of this server")
    _check_info(requests, info)


def _known_label(store: Any, requests: Any, name: Any, tag: Any, info: Any = None) -> None:
    _known(store, requests, name, info)
    if not isinstance(tag, str) or not store.get_label_uri(name, tag):
        raise _error(requests, 404, "tag", tag, f"that of a label map of {name}")


def _check_file(requests: Any, key: str, file: Any) -> None:
    path = Path(str(file))
    if not path.name.lower().endswith(ENDINGS):
        raise _error(requests, 422, key, "".join(path.suffixes) or "no ending", f"one of {', '.join(ENDINGS)}")
    if not path.is_file() or path.stat().st_size == 0:
        raise _error(requests, 422, key, "an empty file", "an image")


def _check_info(requests: Any, info: Any) -> None:
    """What is told of a study is kept as JSON: a mapping of plain values."""
    if info is None:
        return
    if not isinstance(info, Mapping):
        raise _error(requests, 422, "params", info, "keys and values")
    try:
        text = json.dumps(info, allow_nan=False, ensure_ascii=False)
        text.encode("utf-8")
        deep = _depth(info) > 20
    except (ValueError, TypeError, RecursionError) as error:
        raise _error(requests, 422, "params", str(error), "plain values, without NaN and endless numbers") from error
    if deep or len(text) > _LARGEST:
        raise _error(requests, 422, "params", f"{len(text)} characters", "less, and less deep")


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _plain(name: str) -> str:
    """What disks may make of a name."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).rstrip(" .")


def _error(requests: Any, status: int, key: str, got: Any, expected: str) -> Exception:
    error: Exception = requests.RequestError(key, got, expected)
    error.status = status  # type: ignore[attr-defined]  # what the gate answers
    return error
