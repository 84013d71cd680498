"""Whether what is said of an expert agrees with what its own files say, and with what its network does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..channel_order import order_of
from ..errors import ExpertError
from ..labels import LabelSpace
from ..literals import check_name
from .sources import Opened
from .spec import ExpertSpec, train_hint

__all__ = ["called", "check_claims"]


def check_claims(spec: ExpertSpec, source: Opened, *, hint: str | None = None) -> None:
    """Refuse a description that names other channels or structures than the expert's files.

    A nnU-Net's channels are compared word by word. A bundle's metadata often tell no more than ``image``, which
    contradicts nothing; each name that tells something is contradicted by one of another meaning, or at another place.

    Args:
        spec: the description.
        source: the opened files.
        hint: what to do about it; to train the expert again when None.

    Raises:
        ExpertError: for the first thing that differs, with what the files say.
    """
    reads = source.channels or spec.channels
    if len(reads) != len(spec.channels) or _other_channels(spec, reads):
        raise _refusal("image channels", spec, reads, spec.channels, hint)
    if source.labels is None:
        return
    names = called(source.labels, spec.renamed).names
    if names != spec.labels.names:
        raise _refusal("structures", spec, names, spec.labels.names, hint)
    if source.labels.values != spec.labels.values:
        found, told = (
            [f"{n}={v}" for n, v in zip(s.names, s.values, strict=True)] for s in (source.labels, spec.labels)
        )
        raise _refusal("values of structures", spec, found, told, hint)


def called(labels: LabelSpace, renamed: Mapping[str, str]) -> LabelSpace:
    """A label space with other names for some structures.

    Args:
        labels: names as the expert's files have them.
        renamed: ``{their name: the new one}``.

    Raises:
        ExpertError: for a structure that there is not, a name that is none, or one that two would have.
    """
    unknown = [old for old in renamed if old not in labels.names]
    if unknown:
        raise ExpertError("the expert has no structure of this name to rename", where="--map",
                          got=", ".join(map(ascii, unknown)), expected=", ".join(labels.names))  # fmt: skip
    names = tuple(renamed.get(name, name) for name in labels.names)
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ExpertError("two structures of the expert would have one name", where="--map",
                          got=", ".join(map(ascii, twice)), expected="a name for each")  # fmt: skip
    for new in renamed.values():
        check_name(new, "structure", where="--map", error=ExpertError)
    return LabelSpace(names, labels.values, labels.exclusive)


def _other_channels(spec: ExpertSpec, reads: Sequence[str]) -> bool:
    if spec.kind == "nnunet":
        return [c.casefold() for c in reads] != [c.casefold() for c in spec.channels]
    return order_of(reads, spec.channels) != tuple(range(len(reads)))


def _refusal(what: str, spec: ExpertSpec, found: Sequence[str], told: Sequence[str], hint: str | None) -> ExpertError:
    return ExpertError(
        f"the expert's files and its description name different {what}",
        where=f"expert {spec.name!r} ({spec.path})",
        got=f"files: {', '.join(found)}",
        expected=f"as described: {', '.join(told)}",
        hint=hint or train_hint(spec.task),
    )
