"""Where bundles lie and how their JSON files combine: read as plain data, nothing of it is run."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import ConfigError
from common.paths import check_path
from common.plain_json import read_object

__all__ = ["Configuration", "bundle_folders", "configurations", "find_bundle", "read_json", "walk"]

DATA_FILES = ("metadata.json", "chain.json")  # JSON that MONAI does not evaluate


class Configuration(NamedTuple):
    """One way in which a bundle is started.

    Args:
        name: for example ``train`` or ``train+smoke``.
        files: the JSON files in the order in which MONAI merges them.
    """

    name: str
    files: tuple[Path, ...]


def bundle_folders() -> list[Path]:
    """The collection's own bundle folders: below the working directory, else beside the installed package."""
    for root in (Path("bundles"), Path(__file__).resolve().parent.parent / "bundles"):
        found = sorted(p.parent for p in root.glob("*/configs") if p.is_dir())
        if found:
            return found
    return []


def find_bundle(bundle: str | Path) -> Path:
    """The folder of a bundle, given by path or by name.

    Raises:
        ConfigError: when there is none, with the nearest name.
    """
    if (check_path(bundle, what="bundle", error=ConfigError) / "configs").is_dir():
        return Path(bundle)
    known = {p.name: p for p in bundle_folders()}
    if str(bundle) in known:
        return known[str(bundle)]
    close = difflib.get_close_matches(str(bundle), known, n=1)
    raise ConfigError(
        f"there is no bundle {str(bundle)!r}",
        expected=", ".join(known) or "a folder with configs/ in it",
        hint=f"did you mean {close[0]!r}?" if close else "give a bundle's name or folder",
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ConfigError: when it is not JSON, not an object, or repeats a key (Python would keep the last silently).
    """
    return read_object(path, error=ConfigError)


def configurations(folder: Path) -> list[Configuration]:
    """All ways to start a bundle: its complete files, and every overlay on the file that it overlays.

    A file with a top-level ``bundle_root`` is complete and comes first. The others are overlays: those whose name
    contains ``inference`` or ``evaluate`` on ``inference.json``, all others on ``train.json``.
    """
    complete, overlays = [], []
    for path in sorted((folder / "configs").glob("*.json")):
        if path.name in DATA_FILES:
            continue
        if "bundle_root" in read_json(path):
            complete.append(Configuration(path.stem, (path,)))
            continue
        base = "inference" if "inference" in path.stem or "evaluate" in path.stem else "train"
        overlays.append(Configuration(f"{base}+{path.stem}", (folder / "configs" / f"{base}.json", path)))
    return complete + overlays


def walk(content: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every node of a configuration with its id (``train::loss::weight``), parents first."""
    waiting = [(where, content)]
    while waiting:
        place, node = waiting.pop()
        yield place, node
        children: list[tuple[str, Any]] = []
        if isinstance(node, dict):
            children = [(str(k), v) for k, v in node.items()]
        elif isinstance(node, list):
            children = [(str(i), v) for i, v in enumerate(node)]
        waiting += [(f"{place}::{key}" if place else key, value) for key, value in reversed(children)]
