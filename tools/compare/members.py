"""Who can take part in a comparison, and on which collections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.data.datasets.datalist import Collection
from common.errors import ConfigError
from common.plain_json import read_object

__all__ = ["Member", "choose", "known_members", "why_not"]


@dataclass(frozen=True)
class Member:
    """A method or a baseline, as a bundle's ``chain.json`` lists it below ``compare``.

    Args:
        name: as it is called on the command line.
        title: what a person calls it.
        bundle: stage-2 bundle whose chain trains it.
        run: id of its stage-2 run; ``stage1`` for the experts themselves, each on its own task.
        dim: spatial dimensions of its images, None for any.
        datasets, modalities: least number that the collection must have.
        prompted: whether it is told where structures are, by boxes or clicks made from the annotation.
    """

    name: str
    title: str
    bundle: str
    run: str
    dim: int | None = None
    datasets: int = 1
    modalities: int = 1
    prompted: bool = False


def known_members(bundles: Path = Path("bundles")) -> dict[str, Member]:
    """All members by name, in the order of the bundles' names.

    Raises:
        ConfigError: when no bundle lists any, or two list one name.
    """
    found: dict[str, Member] = {}
    for path in sorted(bundles.glob("*/configs/chain.json")):
        recipe, bundle = read_object(path, error=ConfigError), path.parent.parent.name
        for name, entry in recipe.get("compare", {}).items():
            if name in found:
                raise ConfigError("two bundles list one member", where=path, got=name, expected=found[name].bundle)
            found[name] = Member(name=name, bundle=bundle, dim=recipe.get("dim"), **entry)
    if not found:
        raise ConfigError("no bundle can be compared", where=bundles, hint="run the command from the repository's root")
    return found


def why_not(member: Member, collection: Collection) -> str:
    """Why a member cannot take part on a collection; empty when it can."""
    dims = {d.dim for d in collection.datasets}
    if member.dim is not None and dims != {member.dim}:
        takes, found = ({2: "2-D pictures", 3: "volumes"}.get(d, f"{d}-D images") for d in (member.dim, min(dims)))
        return f"takes {takes}, the collection has {found}"
    for what, least, found_n in (
        ("dataset", member.datasets, len(collection.datasets)),
        ("modality", member.modalities, len(collection.modalities)),
    ):
        if found_n < least:
            plural = {"dataset": "datasets", "modality": "modalities"}[what]
            return f"needs {least} {plural} to choose between, the collection has {found_n}"
    return ""


def choose(
    names: str | Sequence[str], collection: Collection, known: Mapping[str, Member]
) -> tuple[list[Member], dict[str, str]]:
    """The members of a comparison, and why others are left out.

    Args:
        names: separated by commas, or ``all`` for every one that can take part.
        collection: what they are compared on.
        known: all members.

    Raises:
        ConfigError: for an unknown name, one that is asked for but cannot take part (with the reason), or none at all.
    """
    reasons = {name: why_not(member, collection) for name, member in known.items()}
    wanted = [n.strip() for n in names.split(",") if n.strip()] if isinstance(names, str) else list(names)
    if wanted == ["all"]:
        chosen = [m for n, m in known.items() if not reasons[n]]
        return chosen, {n: reason for n, reason in reasons.items() if reason}
    unknown = [n for n in wanted if n not in known]
    if unknown:
        raise ConfigError("unknown methods", where="methods", got=", ".join(unknown), expected=", ".join(known))
    refused = [f"{n} {reasons[n]}" for n in wanted if reasons[n]]
    if refused or not wanted:
        possible = ", ".join(n for n, reason in reasons.items() if not reason)
        raise ConfigError("not every method can take part" if refused else "nothing to compare", where="methods",
                          got="; ".join(refused) or "none", expected=f"some of {possible}")  # fmt: skip
    return [known[n] for n in dict.fromkeys(wanted)], {}
