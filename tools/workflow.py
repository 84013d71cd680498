"""Runs a bundle's configuration inside this process, with overrides that must exist."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, create_workflow

from common.errors import AmalgamationError, ConfigError
from common.literals import write_literals

__all__ = ["check_keys", "config_files", "read_config", "run_bundle"]


def config_files(bundle: Path, *names: str) -> list[str]:
    """Paths of a bundle's configurations in merging order.

    Raises:
        ConfigError: when one does not exist.
    """
    files = [bundle / "configs" / f"{name}.json" for name in names]
    for file in files:
        if not file.is_file():
            known = sorted(p.stem for p in file.parent.glob("*.json") if p.stem != "metadata")
            raise ConfigError(f"the bundle has no {file.stem}.json", where=bundle, expected=", ".join(known))
    return [str(f) for f in files]


def read_config(files: Sequence[str]) -> ConfigParser:
    """The merged configuration as plain data; nothing of it is run."""
    parser = ConfigParser()
    parser.read_config(list(files))
    return parser


def check_keys(parser: ConfigParser, overrides: Mapping[str, Any], where: object) -> None:
    """Refuse overrides that no file knows; MONAI would take them silently.

    Raises:
        ConfigError: with the nearest known key.
    """
    for key in overrides:
        parts = key.replace("#", "::").split("::")
        node: Any = parser.get()
        for part in parts:
            known = list(node) if isinstance(node, dict) else [str(i) for i in range(len(node or ()))]
            if part not in known:
                close = difflib.get_close_matches(part, [k for k in known if not k.startswith("_")], n=1)
                raise ConfigError(
                    f"unknown setting {key!r}",
                    where=where,
                    hint=f"did you mean --{'::'.join([*parts[: parts.index(part)], close[0]])}?" if close else None,
                )
            node = node[part] if isinstance(node, dict) else node[int(part)]


def run_bundle(
    files: Sequence[str],
    overrides: Mapping[str, Any],
    literals: Mapping[str, Any] | None = None,
    workflow_type: str = "infer",
) -> ConfigParser:
    """Read, override and run configurations through MONAI's workflow; our own errors come out unwrapped.

    Args:
        files: configuration files in merging order.
        overrides: ``{"key::sub": value}``; every key must exist in the files. Text in it is evaluated, as a user of
            the configuration may want it.
        literals: the same for values that are what they are: names and paths, lists and mappings of them.
        workflow_type: "infer" or "train", which properties MONAI expects.

    Returns:
        the configuration as it was run, what it made included.

    Raises:
        ConfigError: for an unknown override.
        AmalgamationError: whatever the run refuses.
    """
    kept = {key: value for key, value in (literals or {}).items() if key not in overrides}
    check_keys(read_config(files), {**kept, **overrides}, where=files[-1])
    try:
        with tempfile.TemporaryDirectory(prefix="amalgam-") as folder:
            every: dict[str, Any] = {**write_literals(Path(folder) / "literals.json", kept), **overrides}
            workflow = create_workflow(config_file=list(files), workflow_type=workflow_type, **every)
            workflow.run()
            workflow.finalize()
            parser: ConfigParser = workflow.parser
            for key in kept:
                parser.get_parsed_content(key)  # later the file is gone
        return parser
    except AmalgamationError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, AmalgamationError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise cause from error
