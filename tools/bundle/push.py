"""Sends a packed bundle to a Hugging Face repository, as MONAI does, and nothing but what was packed."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from common.command_words import shown_place
from common.errors import ConfigError

from ..bundle_files import read_json
from .checks import check_bundle
from .vendor import verify_vendored

__all__ = ["packed_files", "push_bundle"]

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
TOP = ("LICENSE", "large_files.yml")
FOLDERS = ("configs", "docs")
MODELS = ("models/model.pt", "models/model.pt.sha256", "models/model.ts")


def packed_files(folder: Path, package: str) -> list[str]:
    """What of a packed folder is published: not ``eval/``, logs, caches or further weights."""
    found = [name for name in (*TOP, *MODELS) if (folder / name).is_file()]
    for part in (*FOLDERS, package):
        found += [p.relative_to(folder).as_posix() for p in sorted((folder / part).rglob("*"))
                  if p.is_file() and not p.is_symlink() and "__pycache__" not in p.parts]  # fmt: skip
    return found


def push_bundle(folder: Path, repo: str, *, private: bool, latest: bool, confirm: Callable[[str], bool]) -> str:
    """Upload a packed bundle and tag it with its version.

    Args:
        folder: a folder that ``bundle pack`` wrote.
        repo: ``user/name``; made when it does not exist.
        private: whether a repository that is made is private; one that exists stays as it is.
        latest: also set the tag ``latest_version``, which MONAI downloads when no version is asked for.
        confirm: asked with a text of what would be sent, before anything is.

    Returns:
        what the hub answered, its address.

    Raises:
        ConfigError: for a folder that was not packed or does not pass the checks, an impossible name, or no consent.
    """
    if not REPOSITORY.fullmatch(str(repo)):
        raise ConfigError("not a repository of the hub", where="--repo", got=repo, expected="user/name")
    record = verify_vendored(folder)
    wrong = [f for f in check_bundle(folder) if f.severity == "error"]
    if wrong:
        hint = f"python -m tools bundle check {shown_place(folder)}"
        raise ConfigError("the bundle does not pass the checks", where=folder, got=f"{len(wrong)} errors", hint=hint)
    files = packed_files(folder, str(record["package"]))
    version = str(read_json(folder / "configs" / "metadata.json")["version"])
    size = sum((folder / f).stat().st_size for f in files)
    kind = "private" if private else "PUBLIC"
    question = (
        f"send {len(files)} files, {size / 1e6:.1f} MB, of {folder.name} {version} to {kind} {repo} on huggingface.co?"
    )
    if not confirm(question):
        raise ConfigError("nothing was sent", where=repo, hint="answer yes, or add --yes")
    from monai.bundle import push_to_hf_hub

    with tempfile.TemporaryDirectory() as temporary:
        for name in files:  # MONAI writes a model card into the folder that it sends
            target = Path(temporary) / folder.name / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target)
        return str(push_to_hf_hub(repo=repo, name=folder.name, bundle_dir=temporary, private=private,
                                  version=version, tag_as_latest_version=latest))  # fmt: skip
