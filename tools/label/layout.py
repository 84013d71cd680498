"""A bundle's folder as MONAI Label wants to find it, beside others in one app."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.atomic import atomic_write
from common.errors import ConfigError
from common.integrity import copy_sealed, file_hash, keep_previous
from common.literals import check_name
from common.plain_json import read_object

from . import guard, requests, uploads
from .config import KINDS, Model, dicom_tags, kinds_of, served_inference, served_metadata, tags_by_modality
from .refine import served_training

__all__ = ["APP", "code_folder", "copy_app", "folder_name", "lay_out"]

APP = "monaibundle"
RECORD = "laid_out.json"
TAUGHT = "taught.json"  # which studies the app gives to the model


def folder_name(model: Model, kind: str, name: str | None = None) -> str:
    """Name of the folder, by which the server knows the model and what it is.

    Raises:
        ConfigError: for a name that holds another kind.
    """
    base = check_name(name or model.bundle.resolve().name, "model", where="--name", error=ConfigError)
    if "," in base:
        raise ConfigError(
            "the server lists models with commas", where="--name", got=base, expected="a name without one"
        )
    wrong = [k for k in (*KINDS, "detection", "classification") if k in base.lower() and k != kind]
    if wrong:
        problem = "the server would take the model for something else"
        raise ConfigError(problem, where="name", got=base, expected=f"a name without {', '.join(wrong)}")
    return base if kind in base.lower() else f"{base}_{kind}"


def lay_out(
    model: Model,
    models_dir: Path,
    kind: str,
    *,
    given: Mapping[str, str | None],
    name: str | None = None,
    fresh: bool = False,
) -> Path:
    """Write ``<models_dir>/<name>_<kind>`` with everything that the server reads, and nothing else.

    Weights that the server's own training wrote there since stay, unless ``fresh``; then they are kept beside.

    Args:
        model: from :func:`~.config.read_model`.
        models_dir: ``model`` of the app.
        kind: of :data:`~.config.KINDS`.
        given: default ``modality`` and ``head``.
        name: another base name than the bundle's.
        fresh: take the model's own weights again.

    Returns:
        The folder.

    Raises:
        ConfigError: as :func:`folder_name` and :func:`~.config.served_inference`.
    """
    folder = models_dir / folder_name(model, kind, name)
    inference, metadata = served_inference(model, kind, given), served_metadata(model)
    plain = (
        inference if "segmentation" not in kinds_of(model.bundle) else served_inference(model, "segmentation", given)
    )
    files = {"inference": inference, "metadata": metadata, "train": served_training(model, plain)}
    package = packaged(model.bundle)
    for stem, content in files.items():
        if content is not None:
            _write_json(folder / "configs" / f"{stem}.json", _targeting(content, package))
    for source in _documents(model.bundle):
        target = folder / source.relative_to(model.bundle)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    if package is not None:
        shutil.copytree(model.bundle / package, folder / package, dirs_exist_ok=True)
    _write_json(folder / TAUGHT, {"dicom": dicom_tags(model), "modalities": tags_by_modality(model)})
    _place_weights(model, folder, fresh)
    return folder


def packaged(bundle: Path) -> str | None:
    """Name of the package that a self-contained bundle brings, None for one of this repository."""
    found = sorted(p.parent.name for p in bundle.glob("*_bundle/common"))
    return found[0] if found else None


def code_folder() -> Path:
    """The folder that has to be on the server's path for bundles that are not self-contained."""
    return Path(__file__).resolve().parents[2]


def copy_app(prefix: Path, app: Path) -> None:
    """Copy MONAI Label's own app for bundles, which comes with its package, under one that says why it refuses.

    Args:
        prefix: of the environment.
        app: where to.

    Raises:
        ConfigError: when the environment does not have it.
    """
    source = prefix / "monailabel" / "sample-apps" / APP
    if not source.is_dir():
        raise ConfigError("this environment has no app for bundles", where=source, hint="make label")
    shutil.copytree(source, app, dirs_exist_ok=True, ignore=shutil.ignore_patterns("model", "__pycache__", "logs"))
    (app / "main.py").replace(app / "monaibundle.py")
    shutil.copyfile(Path(__file__).with_name("app.py"), app / "main.py")
    checks = app / "label_checks"
    checks.mkdir(exist_ok=True)
    (checks / "__init__.py").write_text('"""What requests are compared with."""\n', encoding="utf-8")
    for file in map(Path, (guard.__file__, requests.__file__, uploads.__file__)):
        shutil.copyfile(file, checks / file.name)
    (app / "model").mkdir(exist_ok=True)


def _documents(bundle: Path) -> Iterable[Path]:
    known = ("LICENSE", "docs/README.md", "docs/data_license.txt", "configs/logging.conf")
    return [bundle / name for name in known if (bundle / name).is_file()]


def _targeting(content: Any, package: str | None) -> Any:
    """The same configuration with ``common`` taken out of a self-contained bundle's package."""
    if package is None:
        return content
    if isinstance(content, dict):
        own = content.get("_target_")
        named = {"_target_": f"{package}.{own}"} if isinstance(own, str) and own.startswith("common.") else {}
        return {**{k: _targeting(v, package) for k, v in content.items()}, **named}
    return [_targeting(v, package) for v in content] if isinstance(content, list) else content


def _place_weights(model: Model, folder: Path, fresh: bool) -> None:
    target, record = folder / "models" / "model.pt", folder / RECORD
    digest = file_hash(model.weights)
    before = read_object(record, error=ConfigError) if record.is_file() else {}
    if target.is_file() and before.get("weights") == digest and not fresh:
        return  # the server's training may have gone on from these
    keep_previous(target)
    copy_sealed(model.weights, target)
    _write_json(record, {"weights": digest, "source": str(model.weights)})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
