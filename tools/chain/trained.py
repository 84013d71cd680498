"""Which model a bundle has, which ones its runs left, and how one of these becomes the bundle's."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.command_words import shown_option, shown_place
from common.engine.evaluation.score_record import earlier_scores_file, scores_file
from common.errors import ConfigError, DataError, WeightError
from common.integrity import copy_sealed, file_hash, keep_previous, verify
from common.plain_json import read_object

from ..run_files import inside
from .step import ChainSettings, Step

__all__ = ["found_models", "install_model", "installs", "model_hint", "require_model"]

INSTALLING = ("paper",)  # presets whose result is meant to be used; all others are for trying out
_SHOWN = 3


def installs(install: bool | None, preset: str) -> bool:
    """Whether a chain's model becomes the bundle's: as asked for, else that of the paper's size only.

    Raises:
        ConfigError: for anything but True, False and None.
    """
    if install is not None and not isinstance(install, bool):
        raise ConfigError("not an answer", where="install", got=install, expected="--install True or --install False")
    return preset in INSTALLING if install is None else install


def install_model(steps: Sequence[Step], settings: ChainSettings, *, install: bool) -> str:
    """Copy the first amalgamated model into the bundle, so that ``inference.json`` finds it; the old one is kept.

    Args:
        steps: of the chain, all done.
        settings: of the chain.
        install: False only says where the model is.

    Returns:
        a sentence that says what became of it.

    Raises:
        WeightError: when the model is not what was saved.
        CheckpointError: when the disk is full; the bundle's model is intact.
    """
    source = next(s for s in steps if s.kind == "amalgamated").output_dir / "model.pt"
    target = settings.bundles / settings.bundle / "models" / "model.pt"
    if not install:
        return f"The model was not installed: use {shown_option('weights', source)}, or add --install True"
    verify(source)
    if target.is_file() and file_hash(target) == file_hash(source):
        return f"The model is installed already, as {target}"
    kept = keep_previous(target)
    copy_sealed(source, target)
    for place in (scores_file, earlier_scores_file):
        if place(source).is_file():
            shutil.copyfile(place(source), place(target))
    return f"The model is installed as {target}" + (f" (the one before is {kept})" if kept else "")


def found_models(bundle: str, runs: Path = Path("runs")) -> list[Path]:
    """What finished chains below ``runs`` left for a bundle, the latest first."""
    found = []
    for record in (*runs.glob("*/chain.json"), *runs.glob("*/*/chain.json")):
        try:
            data = read_object(record, error=ConfigError, finite=False)
            rows = [r for r in data["steps"] if r["kind"] == "amalgamated" and r["status"] == "done"]
            own = [(record.parent, f"{r['output_dir']}/model.pt") for r in rows if data["bundle"] == bundle]
            paths = [inside(folder, name, where=str(record)) for folder, name in own]
        except (OSError, KeyError, TypeError, ConfigError, DataError):
            continue  # no record of a chain that could be read; whoever asks wants the others
        found += [p for p in paths if p.is_file()]
    return sorted(found, key=lambda p: p.stat().st_mtime, reverse=True)


def model_hint(bundle: str, runs: Path = Path("runs")) -> str:
    """What to type where a bundle has no model: with one of those that there are, or to train one."""
    models = found_models(bundle, runs)
    train = f"python -m tools chain run {shown_place(bundle)} --dataset_dir <collection>"
    if not models:
        return f"train one: {train} (with --install True, where a --preset is given)"
    more = f" ({len(models)} in all)" if len(models) > _SHOWN else ""
    listed = " or ".join(shown_option("weights", p) for p in models[:_SHOWN])
    return f"add {listed}{more}; or make one the bundle's own with --install True in its chain's command"


def require_model(
    root: Path, config: Mapping[str, Any], weights: str | Path | None, overrides: Mapping[str, Any]
) -> None:
    """Refuse to start where nothing was trained, and say which models there are.

    Args:
        root: the bundle's folder.
        config: the configuration that will be run.
        weights: the file that was given.
        overrides: of the configuration.

    Raises:
        WeightError: when the bundle's own model is wanted and is not there.
    """
    path = root / "models" / "model.pt"
    elsewhere = weights is not None or "model_path" not in config or {"model_path", "ckpt_dir"} & set(overrides)
    if not elsewhere and not path.is_file():
        raise WeightError("the bundle has no trained model", where=path, hint=model_hint(root.resolve().name))
