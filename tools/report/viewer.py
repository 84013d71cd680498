"""The page's viewer: slices in three planes and in 3-D, by NiiVue, which is shipped inside the page."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import DataError

__all__ = ["Viewer", "viewer"]

LIBRARY = Path(__file__).parent / "vendor" / "niivue-0.69.0.umd.js.gz"
SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
"""Of the unpacked file, ``dist/niivue.umd.js`` of the npm package; see ``vendor/README.md``."""


class Viewer(NamedTuple):
    """The volumes, as :func:`~.volumes.viewer_volumes` gives them, and NiiVue, packed, in this version."""

    volumes: Mapping[str, Any]
    packed: str
    version: str


def viewer(volumes: Mapping[str, Any]) -> Viewer | None:
    """What the section and its scripts are filled with; None without cases.

    Args:
        volumes: as :func:`~.volumes.viewer_volumes` gives them.

    Raises:
        DataError: when the library's file is not the one that was pinned.
    """
    if not volumes["cases"]:
        return None
    packed = LIBRARY.read_bytes()
    if hashlib.sha256(gzip.decompress(packed)).hexdigest() != SHA256:
        raise DataError("the viewer's library was changed", where=LIBRARY, hint="see vendor/README.md beside it")
    version = LIBRARY.name.split("-")[1].split(".umd")[0]
    return Viewer(volumes, base64.b64encode(packed).decode("ascii"), version)
