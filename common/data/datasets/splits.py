"""Reproducible splits by subject, independent of the order of files and of the machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ...errors import ConfigError

__all__ = ["hash_fraction", "hashed_split"]


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
