"""A user's points and boxes, from the command line or a file, as the bundle at hand reads them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from common.data.io import read_volume
from common.data.prompts.targets import move_boxes
from common.errors import ConfigError, PromptError
from common.geometry import Grid
from common.plain_json import read_object
from common.prompts import check_boxes, clip_boxes

from ..bundle_files import walk

__all__ = ["GivenPrompts", "given_prompts", "prompt_entries", "reads"]

Objects = dict[str, dict[str, Any]]
KINDS = ("inside", "outside", "box")
SPACES = ("voxel", "world")
READERS = {"UserPromptsd": "prompts", "BoxPromptsd": "boxes"}
_EXAMPLE = '{"liver": {"inside": [[120, 80, 40]], "outside": [[60, 80, 40]], "box": [[90, 50, 20], [170, 120, 60]]}}'


@dataclass(frozen=True)
class GivenPrompts:
    """Prompts by object, ``{name: {"inside": [...], "outside": [...], "box": [...], "space": ...}}``.

    Args:
        every: of all scans.
        single: of one scan, by its name; these come before those of all.
    """

    every: Objects = field(default_factory=dict)
    single: dict[str, Objects] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.every or self.single)

    def of(self, scan: str) -> Objects:
        """The prompts of a scan."""
        return _joined(self.single.get(scan, {}), self.every)


def given_prompts(
    *,
    points: Any = None,
    outside: Any = None,
    box: Any = None,
    prompts: Any = None,
    space: str = "voxel",
) -> GivenPrompts:
    """Put together what a user gave.

    Args:
        points: ``{object: [[x, y, z], ...]}`` inside the object; one point needs no outer list.
        outside: the same, outside of it.
        box: ``{object: [[x, y, z], [x, y, z]]}``, low corner first.
        prompts: a JSON file (or its content) with prompts by object, or by scan and object.
        space: ``voxel`` or ``world`` (mm, RAS+), where the file does not say it.

    Raises:
        PromptError: for what is no prompt, naming the object.
        ConfigError: for another space.
    """
    if space not in SPACES:
        raise ConfigError("unknown choice", where="--space", got=space, expected=", ".join(SPACES))
    options: Objects = {}
    for kind, flag, given in zip(KINDS, ("--points", "--outside", "--box"), (points, outside, box), strict=True):
        for name, value in _named(given, flag).items():
            options.setdefault(name, {})[kind] = value
    every, single = _from_file(prompts)
    every = _joined(every, options)
    for scan, objects in (("", every), *single.items()):
        for name, own in objects.items():
            objects[name] = _checked(own, space, f'{scan}{", " if scan else ""}object "{name}"')
    return GivenPrompts(every, single)


def reads(config: Any) -> str | None:
    """Whether a bundle's configuration reads ``prompts`` (points and boxes), ``boxes`` only, or None of them."""
    found = {
        kind
        for _, value in walk(config)
        if isinstance(value, dict)
        for name, kind in READERS.items()
        if str(value.get("_target_", "")).endswith(f".{name}")
    }
    return next((kind for kind in READERS.values() if kind in found), None)


def prompt_entries(
    given: GivenPrompts, scans: Mapping[str, Sequence[str]], kind: str | None, folder: Path, bundle: object
) -> dict[str, dict[str, str]]:
    """What each scan's item gets besides its image: the name of a file with its prompts.

    Args:
        given: by the user.
        scans: files by scan.
        kind: from :func:`reads`.
        folder: for the files.
        bundle: for messages.

    Raises:
        PromptError: for prompts that the bundle cannot read, or a scan without any where it needs them.
    """
    if not given:
        return {name: {} for name in scans}
    if kind is None:
        got = "points or boxes"
        hint = "leave out --points, --outside, --box, --prompts"
        raise PromptError("this bundle reads no prompts", where=bundle, got=got, expected="images alone", hint=hint)
    folder.mkdir(parents=True, exist_ok=True)
    entries: dict[str, dict[str, str]] = {}
    for number, (name, files) in enumerate(scans.items()):
        own = given.of(name)
        if not own and (kind == "prompts" or not given.single.keys() & scans.keys()):
            problem = "there are no prompts for this scan"
            expected = "an entry of this name, or prompts for all scans"
            raise PromptError(problem, where=name, got=", ".join(given.single), expected=expected)
        content = own if kind == "prompts" else _boxes(own, files, name, bundle)
        path = folder / f"{number}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        entries[name] = {kind: str(path.resolve())} if content else {}
    return entries


def _named(given: Any, flag: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        expected = f"{flag} \"{{'liver': [[120, 80, 40]]}}\""
        raise PromptError("prompts are named after their objects", where=flag, got=given, expected=expected)
    return {str(k): v for k, v in given.items()}


def _from_file(given: Any) -> tuple[Objects, dict[str, Objects]]:
    """Prompts by object, and by scan and object."""
    where: object = "--prompts"
    if isinstance(given, (str, Path)):
        where = given
        given = read_object(given, error=PromptError, problem="the prompts cannot be read", expected="a JSON file")
    if given is None:
        return {}, {}
    if not isinstance(given, Mapping) or not all(isinstance(v, Mapping) and v for v in given.values()):
        raise PromptError("prompts are objects by name", where=where, got=given, expected=_EXAMPLE)
    every: Objects = {}
    single: dict[str, Objects] = {}
    for name, value in given.items():
        if all(isinstance(v, Mapping) for v in value.values()):
            single[str(name)] = {str(k): dict(v) for k, v in value.items()}
        else:
            every[str(name)] = dict(value)
    return every, single


def _joined(first: Mapping[str, Mapping[str, Any]], then: Mapping[str, Mapping[str, Any]]) -> Objects:
    """All points of both, each after the other; the box of the second."""
    joined = {name: dict(own) for name, own in first.items()}
    for name, own in then.items():
        into = joined.setdefault(name, {})
        for kind, value in own.items():
            lists = kind in ("inside", "outside") and kind in into
            into[kind] = [*_list(into[kind]), *_list(value)] if lists else value
    return joined


def _list(points: Any) -> list[Any]:
    if not isinstance(points, Iterable) or isinstance(points, (str, Mapping)):
        return [points]
    points = list(points)
    return [points] if points and not any(isinstance(p, Iterable) for p in points) else points


def _checked(own: Mapping[str, Any], space: str, where: str) -> dict[str, Any]:
    """An object's prompts with their space, all numbers."""
    unknown = sorted(set(own) - {*KINDS, "space"})
    if unknown or not any(own.get(k) for k in KINDS):
        got = ", ".join(unknown) or "nothing"
        raise PromptError("an object's prompts are not understood", where=where, got=got, expected=_EXAMPLE)
    checked: dict[str, Any] = {"space": own.get("space", space)}
    if checked["space"] not in SPACES:
        raise PromptError("unknown space", where=where, got=checked["space"], expected=", ".join(SPACES))
    for kind in (k for k in KINDS if own.get(k) is not None):
        checked[kind] = [_point(p, where) for p in _list(own[kind])]
    if "box" in checked and len(checked["box"]) != 2:
        raise PromptError("a box has two corners of x, y, z", where=where, got=own["box"])
    return checked


def _point(given: Any, where: str) -> list[float]:
    try:
        point = [float(c) for c in given]
    except (TypeError, ValueError):
        point = []
    if len(point) != 3 or not all(math.isfinite(c) for c in point):
        raise PromptError("a point is three numbers", where=where, got=given, expected="[x, y, z]")
    return point


def _boxes(own: Objects, files: Sequence[str], scan: str, bundle: object) -> dict[str, Any]:
    """Boxes by object in voxels, for a bundle that reads nothing else."""
    found: dict[str, Any] = {}
    grid = Grid.of(read_volume(files[0] if len(files) == 1 else files)) if own else None
    for name, prompts in own.items():
        where = f'{scan}, object "{name}"'
        if grid is None or "box" not in prompts or prompts.get("inside") or prompts.get("outside"):
            got = ", ".join(sorted(prompts))
            hint = f"give --box; {bundle} has no use for points"
            raise PromptError("this bundle reads boxes, not points", where=where, got=got, hint=hint)
        box = torch.tensor(prompts["box"], dtype=torch.float64)[None]
        if prompts["space"] == "world":
            moved = move_boxes(box, torch.eye(4), torch.from_numpy(grid.affine.copy()))
            box = clip_boxes(moved, grid.shape)
            if bool(box.isnan().any()):
                raise PromptError("the box lies outside the scan", where=where, got=prompts["box"])
        found[name] = check_boxes(box, grid.shape, where=where)[0].tolist()
    return found
