"""Reproducible splits by subject, and parts of the labels, independent of the order of files and of the machine."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

from ...errors import ConfigError

__all__ = ["hash_fraction", "hashed_split", "labelled"]


def hash_fraction(*parts: str) -> float:
    """``first 64 bits of sha256("part/part/...") / 2**64``, a number in [0, 1) that never changes."""
    digest = hashlib.sha256("/".join(parts).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def hashed_split(dataset: str, subjects: Iterable[str], fractions: dict[str, float]) -> dict[str, str]:
    """Assign every subject to a split by the hash of ``dataset/subject``.

    Adding or removing a subject never moves another one, except that the first split is never empty and no split with
    a fraction > 0 stays empty while another holds more than one subject.

    Args:
        dataset: the dataset's name.
        subjects: subject names; repeats are ignored.
        fractions: ``{split: fraction}``; fractions in [0, 1) of all splits but the first, which takes the rest.

    Returns:
        ``{subject: split}`` in sorted order of subjects.

    Raises:
        ConfigError: when fractions are negative or leave nothing for the first split.
    """
    first, *others = fractions
    share = {s: float(fractions[s]) for s in others}
    if any(not 0 <= f < 1 for f in share.values()) or sum(share.values()) >= 1:
        raise ConfigError("split fractions must be in [0, 1) and leave some for training", got=share)
    ranked = sorted(set(subjects), key=lambda s: (hash_fraction(dataset, s), s))
    result: dict[str, str] = {}
    for subject in ranked:
        position, upper = hash_fraction(dataset, subject), 0.0
        result[subject] = first
        for split in others:
            upper += share[split]
            if position < upper:
                result[subject] = split
                break
    _fill_empty(result, ranked, first, [s for s in others if share[s] > 0])
    return dict(sorted(result.items()))


def _fill_empty(result: dict[str, str], ranked: list[str], first: str, others: list[str]) -> None:
    """Move single subjects (in hash order) so that no wanted split stays empty where that is possible."""
    for split in (first, *others):
        counts = {s: list(result.values()).count(s) for s in (first, *others)}
        if counts[split] or max(counts.values(), default=0) < (1 if split == first else 2):
            continue
        donor = max(counts, key=lambda s: counts[s])
        candidates = [s for s in ranked if result[s] == donor]
        result[candidates[-1] if split == first else candidates[0]] = split


def labelled(names: Sequence[str], *, fraction: float = 1.0, count: int | None = None, seed: int = 0) -> list[int]:
    """Positions of a part of a list: the names whose hash with the seed is smallest.

    A smaller part is contained in every larger one, and other names do not change the order of two.

    Args:
        names: different names.
        fraction: share of the names above 0 and up to 1, rounded, at least one.
        count: how many instead, 1 .. the number of names.
        seed: another seed takes other names.

    Returns:
        Positions in ascending order.

    Raises:
        ConfigError: for an impossible fraction, or more names than there are.
    """
    if not 0 < fraction <= 1 or (count is not None and fraction != 1):
        expected = "a share above 0 and up to 1, and 1 where a count is given"
        raise ConfigError("a part of the labelled data", where="labelled_fraction", got=fraction, expected=expected)
    if count is not None and not 1 <= count <= len(names):
        raise ConfigError(
            "a part of the labelled data", where="labelled_count", got=count, expected=f"1 .. {len(names)}"
        )
    wanted = max(1, math.floor(fraction * len(names) + 0.5)) if count is None else count
    order = sorted(range(len(names)), key=lambda i: (hash_fraction(str(seed), names[i]), names[i]))
    return sorted(order[:wanted])
