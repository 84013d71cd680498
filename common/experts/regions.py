"""What an nnU-Net's regions consist of: its own files list the values of each, and so the classes between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..backbones.nnunet.network import read_json
from ..labels import LabelSpace
from .spec import ExpertSpec

__all__ = ["classes_of", "region_parts", "region_values", "taught_space"]


def region_values(spec: ExpertSpec) -> dict[str, frozenset[int]]:
    """The values of each region in its training's label maps, as ``{"whole": {1, 2}, "core": {2}}``.

    Args:
        spec: the expert.

    Returns:
        by the regions' names in the description; nothing of experts without regions, or whose files do not tell.
    """
    file = Path(spec.path) / "dataset.json"
    if spec.kind != "nnunet" or spec.labels.exclusive or not file.is_file():
        return {}
    said = read_json(file).get("labels")
    listed = {spec.renamed.get(str(n), str(n)): v if isinstance(v, list) else [v]
              for n, v in (said.items() if isinstance(said, Mapping) else ())}  # fmt: skip
    found = {n: listed.get(n, []) for n in spec.labels.names}
    if any(not values or any(type(v) is not int for v in values) for values in found.values()):
        return {}
    return {n: frozenset(values) for n, values in found.items()}


def classes_of(regions: Mapping[str, frozenset[int]]) -> dict[str, frozenset[str]]:
    """The classes that exclude each other and of which regions are made: ``{class: the regions that hold it}``.

    One that is a region has its name; another is called by the smallest regions that hold it, without those inside:
    ``{"whole": {1, 2}, "core": {2}}`` are ``whole without core`` and ``core``. Values that no region tells apart are
    one class.

    Args:
        regions: of :func:`region_values`.
    """
    holding: dict[frozenset[str], set[int]] = {}
    for value in sorted(frozenset().union(*regions.values())):
        holding.setdefault(frozenset(n for n, own in regions.items() if value in own), set()).add(value)
    return {_called(held, frozenset(own), regions): held for held, own in holding.items()}


def _called(held: frozenset[str], own: frozenset[int], regions: Mapping[str, frozenset[int]]) -> str:
    smallest = [n for n in regions if n in held and not any(regions[m] < regions[n] for m in held)]
    alike = [n for n in smallest if not any(regions[m] == regions[n] for m in smallest[: smallest.index(n)])]
    common = frozenset.intersection(*(regions[n] for n in alike))
    inside = [n for n in regions if n not in held and regions[n] & common]
    largest = [n for n in inside if not any(regions[n] < regions[m] for m in inside)]
    name = " and ".join(alike)
    return name if common == own else f"{name} without {' and '.join(largest)}"


def taught_space(spec: ExpertSpec) -> LabelSpace:
    """The structures that an expert can teach a student whose structures exclude each other.

    Args:
        spec: the expert; of one whose structures overlap, the classes between them, where its files tell.
    """
    regions = region_values(spec)
    return LabelSpace(tuple(classes_of(regions))) if regions else spec.labels


def region_parts(spec: ExpertSpec, structures: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Of which of a student's structures an expert's regions consist, as far as its files tell.

    Where the student has all classes of a region, of these. Otherwise a region of the name of one of the student's
    structures is that structure, with those regions inside it that are structures of the student, too.

    Args:
        spec: the expert.
        structures: the student's names.
    """
    regions = region_values(spec)
    classes, found = classes_of(regions) if regions else {}, {}
    whole = set(classes) <= set(structures)
    for name, values in regions.items():
        own = [c for c, held in classes.items() if name in held]
        inside = [n for n in regions if regions[n] < values and n in structures]
        if whole:
            found[name] = tuple(own)
        elif name in structures:
            found[name] = (name, *inside)
    return found
