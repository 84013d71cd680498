"""The configuration of the running bundle command: its overrides, their spelling and a hash of what matters."""

from __future__ import annotations

import copy
import difflib
import hashlib
import inspect
import json
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

import fire
from monai.bundle import ConfigParser
from monai.bundle.config_item import ComponentLocator
from monai.bundle.scripts import run as bundle_run
from monai.bundle.scripts import update_kwargs
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from ...errors import ConfigError
from ...whole_numbers import whole_number

__all__ = ["BundleCommand", "check_overrides", "hash_settings", "meaningful", "read_command"]

logger = logging.getLogger(__name__)

SEPARATOR = "::"
ANY = "**kwargs"
SPECIAL = ("_target_", "_disabled_", "_requires_", "_desc_", "_mode_")
# Where a run lives, how long it lasts and what it prints do not change what one epoch computes.
_NAMES = """
    imports device cpu_gain max_epochs val_interval num_workers quiet resume run initialize finalize validate evaluate
    tracking tracking_uri experiment_name run_name save_execute_config is_not_rank0 displayable_configs experts
    store store_gb store_workers
"""
FREE_TOP = frozenset(_NAMES.split())
FREE_SUFFIXES = ("_dir", "_path", "_file", "_root", "_uri")
FREE_ANYWHERE = frozenset(
    ("handlers", "num_workers", "max_epochs", "pin_memory", "prefetch_factor", "multiprocessing_context")
)
_RUN_ARGUMENTS = frozenset(
    n for n, p in inspect.signature(bundle_run).parameters.items() if p.kind is not p.VAR_KEYWORD
) | {"workflow_name", "workflow_type", "properties_path"}


class BundleCommand:
    """What ``python -m monai.bundle run ...`` was asked to do.

    Args:
        arguments: everything given on the command line or in ``--args_file``.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.arguments = {k: v for k, v in arguments.items() if k in _RUN_ARGUMENTS}
        self.overrides = {_normal(k): v for k, v in arguments.items() if k not in _RUN_ARGUMENTS}

    @property
    def files(self) -> tuple[str, ...]:
        """The configuration files, in the order of merging."""
        files = self.arguments.get("config_file", ())
        return (files,) if isinstance(files, str) else tuple(files)

    def config(self, *, overridden: bool = True) -> dict[str, Any]:
        """The merged files as plain data; with the command line's values unless told otherwise."""
        parser = ConfigParser()
        parser.read_config(f=list(self.files))
        if overridden:
            parser.update(pairs=copy.deepcopy(self.overrides))
        return dict(parser.get())


def read_command(argv: Sequence[str] | None = None) -> BundleCommand | None:
    """The bundle command of this process, None when it is no ``python -m monai.bundle run`` (MONAI Label, tests)."""
    argv = sys.argv if argv is None else argv
    if len(argv) < 2 or Path(argv[0]).parts[-3:] != ("monai", "bundle", "__main__.py"):
        return None
    if argv[1] not in ("run", "run_workflow"):
        return None
    found: dict[str, Any] = {}

    def collect(run_id: str | None = None, **given: Any) -> None:
        found.update({"run_id": run_id, **given})

    # Fire itself parses the values, so that they are what MONAI sees.
    fire.Fire(collect, command=list(argv[2:]), name="run")
    arguments = update_kwargs(args=found.pop("args_file", None), **found)
    return BundleCommand(arguments) if arguments.get("config_file") else None


def check_overrides(command: BundleCommand) -> None:
    """Refuse command-line keys that no configuration file knows.

    ``--train::trainer::max_epochs 1`` must name something that exists; a new last part is accepted when the parent is
    a component whose signature has an argument of this name.

    Raises:
        ConfigError: for the first unknown key, with the nearest known ones.
    """
    config = command.config(overridden=False)
    tracking = command.arguments.get("tracking")
    settings: dict[str, Any] = DEFAULT_EXP_MGMT_SETTINGS.get(str(tracking), {})
    known_extra = set(settings.get("configs", {}))
    for key in command.overrides:
        plain = key.removeprefix("+")
        if plain.split(SEPARATOR)[0] in known_extra | {"_meta_"}:
            continue
        _check_key(plain, config, command.files)


def _place(part: str) -> int | None:
    return whole_number(part, negative=True)


def _check_key(key: str, config: Mapping[str, Any], files: Iterable[str]) -> None:
    node: Any = config
    parts = key.split(SEPARATOR)
    for depth, part in enumerate(parts):
        if isinstance(node, Mapping) and part in node:
            node = node[part]
        elif isinstance(node, list) and _place(part) in range(-len(node), len(node)):
            node = node[int(part)]
        elif depth == len(parts) - 1 and _is_argument(node, part):
            return
        else:
            choices = list(dict.fromkeys([*node, *_arguments(node)])) if isinstance(node, Mapping) else []
            raise ConfigError(
                f"--{key} overrides nothing: the configuration has no {part!r}"
                + (f" in {SEPARATOR.join(parts[:depth])!r}" if depth else ""),
                where=", ".join(files),
                got=f"--{key}",
                expected=None if depth == 0 else ", ".join(map(str, choices)) or "a key that exists",
                hint=_did_you_mean(parts, depth, [str(c) for c in choices], config),
            )


def _did_you_mean(parts: Sequence[str], depth: int, choices: Sequence[str], config: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(parts[depth], choices, n=1, cutoff=0.5)
    if not close and depth == 0:
        close = [c for c in choices if parts[0].lower() in c.lower()][:1]
    if close:
        return f"did you mean --{SEPARATOR.join([*parts[:depth], close[0], *parts[depth + 1 :]])}?"
    knobs = [k for k, v in config.items() if not isinstance(v, (dict, list))]
    return "the knobs are: " + ", ".join(knobs)


def _arguments(node: Any) -> tuple[str, ...]:
    """Names of the arguments that a component takes; ``**kwargs`` of a class are those of its base classes."""
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        return ()
    target = _locate(node["_target_"])
    makers = (
        [vars(c)["__init__"] for c in target.__mro__ if "__init__" in vars(c)] if inspect.isclass(target) else [target]
    )
    names: list[str] = []
    for maker in makers:
        try:
            parameters = list(inspect.signature(maker).parameters.values())
        except (TypeError, ValueError):
            break
        names += [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return tuple(n for n in dict.fromkeys(names) if n != "self")
    return (*(n for n in dict.fromkeys(names) if n != "self"), ANY)


def _is_argument(node: Any, name: str) -> bool:
    if not isinstance(node, Mapping) or "_target_" not in node:
        return False
    arguments = _arguments(node)
    return name in SPECIAL or name in arguments or ANY in arguments


def _locate(target: str) -> Any:
    module = ComponentLocator().get_component_module_name(target)
    module = module[0] if isinstance(module, list) else module
    return locate(f"{module}.{target}" if module else target)


def meaningful(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides what an epoch computes.

    Left out are paths (keys that end in ``_dir``, ``_path``, ``_file``, ``_root``, ``_uri``), the device, the number
    of epochs and workers, everything about validation, handlers and printing: these may change when a run continues.
    """
    return {
        key: _pruned(value)
        for key, value in config.items()
        if key not in FREE_TOP and not key.startswith("_") and not key.endswith(FREE_SUFFIXES)
    }


def hash_settings(settings: Mapping[str, Any]) -> str:
    """sha256 of plain data, independent of the order of keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def _pruned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _pruned(v) for k, v in value.items() if k not in FREE_ANYWHERE and k != "_desc_"}
    return [_pruned(v) for v in value] if isinstance(value, (list, tuple)) else value


def _normal(key: str) -> str:
    return key.replace("#", SEPARATOR)
