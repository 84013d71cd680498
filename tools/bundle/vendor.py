"""Renames ``common`` to a bundle's own package, in code, configurations and documents, and proves that none is left."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import common
from common.errors import ConfigError
from common.plain_json import parse

from ..bundle_files import read_json, walk
from .closure import SOURCE, Closure, closure
from .names import expression_spots, module_of, parsed_expression, spots
from .rename import named_in_code, renamed_code, renamed_document, renamed_expression, renamed_target

__all__ = [
    "VENDORED",
    "leftovers",
    "package_name",
    "rewritten_config",
    "texts_of",
    "vendor",
    "verify_vendored",
    "write_json",
]

RUNS = re.compile(r"runs/\w+(?=/|'|$)")
TEXT = (".py", ".json", ".md", ".txt", ".conf", ".yml")
OURS = ("common", "tools")
LEFT = re.compile(rf"(?<![\w./-])(?:{'|'.join(OURS)})(?:\.[A-Za-z_]\w*)+")
VENDORED = "docs/VENDORED.json"
_TOLD = (VENDORED, "docs/data_license.txt")  # lists and sentences: nothing in them is code


def package_name(bundle: str) -> str:
    """The importable package of a packed bundle; unique, so that several packed bundles live in one process."""
    return f"{bundle}_bundle"


def texts_of(configs: Path) -> Iterator[str]:
    """``_target_`` values and ``$`` expressions of all configurations in a folder."""
    for path in sorted(configs.glob("*.json")):
        for where, value in walk(read_json(path)):
            if isinstance(value, str) and (value.startswith("$") or where.split("::")[-1] == "_target_"):
                yield value


def rewritten_config(content: Any, package: str, key: str = "", source: Path = SOURCE) -> Any:
    """A packed bundle's configuration: own package, own folder, results below ``eval/``, weights in ``models/``."""
    if isinstance(content, dict):
        return {k: rewritten_config(v, package, k, source) for k, v in _named_transform(content, key).items()}
    if isinstance(content, list):
        entries = [rewritten_config(v, package, source=source) for v in content]
        return [_as_component(v) for v in entries] if key.split("::")[-1] == "handlers" else entries
    if not isinstance(content, str):
        return content
    if key == "bundle_root":
        return "."
    if key == "ckpt_dir":
        return "$@bundle_root + '/models'"
    if key == "output_dir" and "runs/" in content:
        if not content.startswith("$"):
            content = f"$'{content}'"
        return RUNS.sub("eval", content, count=1).replace("'eval", "@bundle_root + '/eval", 1)
    if content.startswith("$"):
        return "$" + renamed_expression(content[1:], package, source)
    return renamed_target(content, package) if key == "_target_" else content


def _named_transform(content: dict[str, Any], key: str) -> dict[str, Any]:
    """A dataset's transform by a name of its own, as an expression: MONAI's check of properties reads no other."""
    dataset = content.get("dataset")
    if key == "dataset" or not isinstance(dataset, dict):
        return content
    transform = dataset.get("transform")
    if isinstance(transform, str) and transform.startswith("@") and not transform.endswith("preprocessing"):
        return {**content, "dataset": {**dataset, "transform": f"${transform}"}}
    if not isinstance(transform, dict):
        return content
    name = "dataset_transform"
    where = f"{key}::{name}" if key in ("train", "validate") else name
    changed: dict[str, Any] = {}
    for k, v in content.items():
        if k == "dataset":
            changed[name] = transform
        changed[k] = {**dataset, "transform": f"$@{where}"} if k == "dataset" else v
    return changed


def _as_component(entry: Any) -> Any:
    """A named handler as an entry of a list of handlers, where MONAI and its applications expect components."""
    named = isinstance(entry, str) and entry.startswith("@")
    return {"_target_": "monai.utils.first", "iterable": [entry]} if named else entry


def vendor(folder: Path, bundle: str, source: Path = SOURCE, also: Iterable[str] = ()) -> Closure:
    """Make a copy of a bundle self-contained: rewrite its configurations, add the code that they need.

    Args:
        folder: the copy, changed in place.
        bundle: the bundle's name.
        source: the folder of ``common``.
        also: further texts that name what is needed, such as those that a server's configurations are made of.

    Raises:
        ConfigError: when something is missing, or a reference to ``common`` or ``tools`` would remain.
    """
    package = package_name(bundle)
    needed = closure([*texts_of(folder / "configs"), *also], source)
    for path in sorted((folder / "configs").glob("*.json")):
        if path.name != "metadata.json":
            write_json(path, rewritten_config(read_json(path), package, source=source))
    for path in sorted((folder / "docs").glob("*.md")):
        _write(path, renamed_document(path.read_text(encoding="utf-8"), package, source))
    target = folder / package / "common"
    target.mkdir(parents=True)
    (folder / package / "__init__.py").write_text(
        f'"""What the bundle {bundle} needs of its collection\'s code; written by the packer, see {VENDORED}."""\n',
        encoding="utf-8",
    )
    for module, path in needed.modules.items():
        code = renamed_code(path.read_text(encoding="utf-8"), package, source, where=module)
        _write(target / path.relative_to(source), code)
    for name in needed.data:
        _write(target / name, (source / name).read_text(encoding="utf-8"))
    files = sorted(p for p in (folder / package).rglob("*") if p.is_file())
    record = {
        "package": package,
        "version": common.__version__,
        "modules": sorted(needed.modules),
        "data": list(needed.data),
        "sha256": {p.relative_to(folder).as_posix(): _sha256(p) for p in files},
    }
    write_json(folder / VENDORED, record)
    left = leftovers(folder)
    if left:
        raise ConfigError("something still refers to the repository's code", where=bundle, got="\n".join(left[:10]))
    return needed


def leftovers(folder: Path) -> list[str]:
    """``file:line: text`` of everything in a packed folder that names a module of the repository's packages."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in TEXT):
        name = path.relative_to(folder).as_posix()
        text = "" if name in _TOLD else path.read_text(encoding="utf-8")
        if any(root in text for root in OURS):
            lines = text.splitlines()
            found += [f"{name}:{n}: {lines[n - 1].strip()[:120]}" for n in sorted(set(_left(path, text)))]
    return found


def _left(path: Path, text: str) -> Iterator[int]:
    """Numbers of the lines that name our packages, each kind of file read as what it is."""
    if path.suffix == ".py":
        try:
            yield from (getattr(s.node, "lineno", 1) for s in spots(ast.parse(text), text, SOURCE, OURS))
        except SyntaxError as error:
            yield error.lineno or 1
    elif path.suffix == ".json":
        values = [(w, v) for w, v in walk(parse(text, error=ConfigError, where=path)) if isinstance(v, str)]
        for where, value in values:
            target = where.split("::")[-1] == "_target_" and value.split(".")[0] in OURS
            if target or (value.startswith("$") and _names_ours(value[1:])):
                yield next((n for n, line in enumerate(text.splitlines(), 1) if json.dumps(value) in line), 1)
    else:
        pieces = named_in_code(text) if path.suffix == ".md" else [(1, text)]
        for first, piece in pieces:
            yield from (first + piece.count("\n", 0, m.start()) for m in LEFT.finditer(piece) if _ours(m.group()))


def _names_ours(text: str) -> bool:
    try:
        parsed_expression(text)
    except ConfigError:
        return False  # no Python, so that it names nothing
    return any(expression_spots(text, SOURCE, OURS))


def _ours(name: str) -> bool:
    root, _, rest = name.partition(".")
    return module_of(f"common.{rest}", SOURCE.parent / root) is not None


def verify_vendored(folder: Path) -> dict[str, Any]:
    """The record of a packed folder, after comparing every file of code with it.

    Raises:
        ConfigError: when the folder was not packed, or code was changed, removed or added since.
    """
    if not (folder / VENDORED).is_file():
        hint = "python -m tools bundle pack NAME, then use the folder that it writes"
        raise ConfigError("this folder was not packed", where=folder, expected=VENDORED, hint=hint)
    record = read_json(folder / VENDORED)
    known = record.get("sha256", {})
    there = {p.relative_to(folder).as_posix(): p for p in sorted((folder / str(record.get("package"))).rglob("*"))
             if p.is_file() and "__pycache__" not in p.parts}  # fmt: skip
    other = [n for n in sorted(set(known) | set(there)) if n not in there or _sha256(there[n]) != known.get(n)]
    if other:
        raise ConfigError(
            "the code is not what the packer wrote", where=folder, got=", ".join(other[:5]), hint="pack it again"
        )
    return record


def write_json(path: Path, content: Any) -> None:
    """JSON as the zoo's hooks format it."""
    _write(path, json.dumps(content, indent=4) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
