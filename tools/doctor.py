"""``python -m tools doctor``: is everything installed, was it tested together, what comes next."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from packaging.requirements import Requirement
from packaging.version import Version

from common.errors import ConfigError

from .bundle_files import bundle_folders

__all__ = ["Package", "doctor", "machine", "next_command", "packages"]

NEEDED_GIB = 5.0  # free disk for the demonstration's runs and the tests


class Package(NamedTuple):
    """An installed distribution beside what setup.cfg allows and requirements.txt tested."""

    name: str
    installed: str | None
    allowed: str
    tested: str | None

    @property
    def verdict(self) -> str:
        """``ok``, ``missing``, ``outside the range`` or ``untested``."""
        if self.installed is None:
            return "missing"
        if not Requirement(f"x{self.allowed}").specifier.contains(self.installed, prereleases=True):
            return "outside the range"
        if self.tested and Version(self.installed).public != Version(self.tested).public:
            return "untested"
        return "ok"


def packages(root: Path) -> Iterator[Package]:
    """What the repository asks for and what is there.

    Args:
        root: folder with ``setup.cfg`` and ``requirements.txt``.
    """
    import configparser

    config = configparser.ConfigParser()
    config.read(root / "setup.cfg", encoding="utf-8")
    pins = (line.split("#")[0].strip() for line in (root / "requirements.txt").read_text(encoding="utf-8").splitlines())
    tested = {r.name.lower(): str(r.specifier).removeprefix("==") for r in map(Requirement, filter(None, pins))}
    for line in config.get("options", "install_requires").strip().splitlines():
        requirement = Requirement(line)
        try:
            installed = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            installed = None
        name = requirement.name
        yield Package(name, installed, str(requirement.specifier), tested.get(name.lower()))


def machine(folder: Path) -> Iterator[tuple[str, str]]:
    """Rows about this computer: cores, memory, disk, accelerator."""
    import torch

    gib = 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory()
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "processor", f"{cores} cores, torch uses {torch.get_num_threads()} threads"
    yield "memory", f"{memory.available / gib:.1f} of {memory.total / gib:.1f} GiB free"
    yield "disk", f"{shutil.disk_usage(folder).free / gib:.1f} GiB free in the working directory"
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        yield f"cuda:{index}", f"{card.name}, {card.total_memory / gib:.0f} GiB"
    if not torch.cuda.is_available():
        yield "accelerator", "none; everything runs on the CPU"


def next_command(folder: Path) -> tuple[str, str]:
    """``(why, command)``: what a user would type next, from what lies in ``folder``."""
    if not (folder / "data" / "phantom").is_dir():
        return "there is no phantom collection yet", "python -m tools phantom"
    if not (folder / "runs" / "one_pass" / "report" / "index.html").is_file():
        return "the demonstration is not finished", "make demo"
    return "the demonstration is complete", "open runs/one_pass/report/index.html"


def doctor(*, strict: bool = False) -> None:
    """Show versions, the machine, the bundles and the next command.

    Args:
        strict: also fail on versions that were not tested together.

    Raises:
        ConfigError: when a package is missing or outside its range, after everything was shown.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / "setup.cfg").is_file():
        root = Path.cwd()
    wrong = []
    for package in packages(root) if (root / "setup.cfg").is_file() else ():
        print(f"{package.name:<18} {package.installed or '-':<12} {package.allowed or 'any':<14} {package.verdict}")
        if package.verdict in ("missing", "outside the range") or (strict and package.verdict == "untested"):
            wrong.append(package.name)
    print()
    for name, text in machine(Path.cwd()):
        print(f"{name:<12} {text}")
    if shutil.disk_usage(Path.cwd()).free < NEEDED_GIB * 2**30:
        print(f"{'warning':<12} less than {NEEDED_GIB:.0f} GiB of disk are free")
    print(
        f"{'bundles':<12} {', '.join(f.name for f in bundle_folders()) or 'none found; run from the repository root'}"
    )
    why, command = next_command(Path.cwd())
    print(f"\n{why}; next:\n  {command}")
    if wrong:
        raise ConfigError(
            "packages are missing or outside the versions that the code works with",
            got=", ".join(wrong),
            hint="pip install -r requirements.txt",
        )
