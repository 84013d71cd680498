"""``python -m tools train``: prints and runs the plain MONAI command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from common.bundle_words import knob, knobs, said_again, with_files
from common.command_words import option, shown
from common.errors import ConfigError

from .bundle_files import find_bundle

__all__ = ["command", "train", "typed"]


def command(bundle: str, *overlays: str, gpus: int = 1, **overrides: object) -> list[str]:
    """The ``python -m monai.bundle run`` command of a training.

    Args:
        bundle: name or folder.
        overlays: names of files in the bundle's ``configs`` (``smoke``), or paths.
        gpus: processes on this machine; more than one adds ``multi_gpu_train``.
        overrides: ``--key value`` pairs for MONAI, for example ``max_epochs=5`` or ``train::dataloader::batch_size=1``.

    Raises:
        ConfigError: for an unknown bundle or overlay.
    """
    folder = find_bundle(bundle)
    names = ["train", *overlays, *(["multi_gpu_train"] if gpus > 1 and "multi_gpu_train" not in overlays else [])]
    files = [_file(folder, name) for name in names]
    launcher = ["-m", "torch.distributed.run", "--standalone", option("nproc_per_node", gpus)] if gpus > 1 else []
    words = [sys.executable, *launcher, "-m", "monai.bundle", "run", with_files(files)]
    if folder != Path("bundles") / folder.name and "bundle_root" not in overrides:
        words.append(knob("bundle_root", folder))
    return words + knobs({key: said_again(value) for key, value in overrides.items()})


def _file(folder: Path, name: str) -> Path:
    inside = folder / "configs" / f"{name.removesuffix('.json')}.json"
    if inside.is_file():
        return inside
    if name.endswith(".json") and Path(name).is_file():
        return Path(name)
    known = sorted(p.stem for p in inside.parent.glob("*.json") if p.stem not in ("metadata", "chain"))
    raise ConfigError(f"there is no configuration {name!r}", where=folder, expected=", ".join(known))


def typed(words: Sequence[str]) -> str:
    """The command as a person would type it, with the interpreter called ``python``."""
    return shown("python", *words[1:])


def train(bundle: str, *overlays: str, gpus: int = 1, dry_run: bool = False, **overrides: object) -> None:
    """Train one bundle; the command that it prints does the same.

    Args:
        bundle: name or folder, for example ``ka2er``.
        overlays: for example ``smoke`` or ``laptop``; several are merged in this order.
        gpus: GPUs of this machine to use.
        dry_run: print the command only.
        overrides: ``--key value`` pairs that replace values of the configuration.
    """
    words = command(bundle, *overlays, gpus=gpus, **overrides)
    print(typed(words), flush=True)
    if dry_run:
        return
    path = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
    status = subprocess.run(words, env={**os.environ, "PYTHONPATH": path}, check=False).returncode
    if status:
        raise SystemExit(status)
