"""What the ``dataset.json`` of an nnU-Net says: its structures and its channels, in nnU-Net's own form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...channel_order import contradict
from ...errors import WeightError
from ...labels import BACKGROUND, LabelSpace
from ...literals import check_channel

__all__ = ["channel_names", "check_description", "labels_of", "output_channels", "reorients"]


def check_description(dataset_json: Mapping[str, Any], *, where: object | None = None) -> tuple[str, ...]:
    """Refuse what nnU-Net does not read.

    Args:
        dataset_json: content of the file.
        where: the file or model that it comes from.

    Returns:
        the names of the channels.

    Raises:
        WeightError: for labels or channels of another form, and where ``background`` is not declared as 0, or twice.
        LabelError: for structures that are none.
    """
    labels_of(dataset_json, where=where)
    given = dataset_json["labels"]
    ground = given.get(BACKGROUND)
    others = [str(n) for n in given if str(n).strip().casefold() == BACKGROUND and n != BACKGROUND]
    if others or isinstance(ground, bool) or ground not in (0, "0"):
        raise WeightError('the dataset.json does not declare the label "background"', where=where,
                          got=", ".join(map(ascii, others)) or ascii(ground)[:100], expected='"background": 0',
                          hint="nnU-Net reads no other spelling of it" if others else None)  # fmt: skip
    names = channel_names(dataset_json, where=where)
    if not names:
        raise WeightError("the dataset.json names no channels", where=where, expected='such as {"0": "CT"}')
    return tuple(check_channel(name, where=where, error=WeightError) for name in names)


def labels_of(dataset_json: Mapping[str, Any], *, where: object | None = None) -> LabelSpace:
    """Label space of a nnU-Net ``dataset.json``; regions overlap, the ignore label is no structure.

    Raises:
        WeightError: when its labels are not names with whole numbers.
    """
    regions, given = dataset_json.get("regions_class_order"), dataset_json.get("labels")
    if not isinstance(given, Mapping) or not given:
        raise _no_labels(given, where)
    pairs = {str(n): v for n, v in given.items() if n not in ("background", "ignore")}
    if not pairs or any(v == [] for v in pairs.values()):
        raise _no_labels(given, where)
    if regions is not None and any(isinstance(v, list | tuple) and len(v) > 1 for v in pairs.values()):
        if not isinstance(regions, list | tuple) or len(regions) != len(pairs):
            got = ascii(regions)[:200]
            expected = f"regions_class_order with {len(pairs)} whole numbers"
            raise WeightError("the regions do not fit the labels", where=where, got=got, expected=expected)
        return LabelSpace.of(
            tuple(pairs), tuple(_whole(v, given, where) for v in regions), exclusive=False, where=where
        )
    values = {n: _whole(v[0] if isinstance(v, list | tuple) else v, given, where) for n, v in pairs.items()}
    return LabelSpace.from_json(values, where=where)


def _whole(value: Any, given: Any, where: object | None) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e9 or value != int(value):
        raise _no_labels(given, where)
    return int(value)


def _no_labels(given: Any, where: object | None) -> WeightError:
    expected = '"labels" with names and whole numbers, such as {"background": 0, "liver": 1}'
    return WeightError(
        "the dataset.json does not name the labels", where=where, got=ascii(given)[:200], expected=expected
    )


def output_channels(labels: LabelSpace) -> int:
    """Number of logits of a network: ``K + 1`` with softmax, ``K`` when structures overlap."""
    return labels.num_classes if labels.exclusive else len(labels)


def channel_names(dataset_json: Mapping[str, Any], *, where: object | None = None) -> tuple[str, ...]:
    """Image channel names of a ``dataset.json`` in channel order.

    Args:
        dataset_json: its content.
        where: the file or model that it comes from.

    Raises:
        WeightError: when they are not names by number, or ``channel_names`` and ``modality`` contradict each other.
    """
    said, other = dataset_json.get("channel_names"), dataset_json.get("modality")
    names = _numbered((other or {}) if said is None else said, where)
    others = (other,) if isinstance(other, str) else _numbered(other, where) if said is not None and other else names
    if contradict(names, others):
        got = ascii(f"channel_names: {', '.join(names)}; modality: {', '.join(others)}")
        problem = "channel_names and modality of the dataset.json contradict each other"
        raise WeightError(problem, where=where, got=got)
    return names


def _numbered(names: Any, where: object | None) -> tuple[str, ...]:
    numbered = isinstance(names, Mapping) and all(re.fullmatch(r"[0-9]{1,6}", str(key)) for key in names)
    if not numbered or not all(isinstance(name, str | int | float) for name in names.values()):
        expected = '"channel_names" by number, such as {"0": "CT"}'
        problem = "the dataset.json does not name the channels"
        raise WeightError(problem, where=where, got=ascii(names)[:200], expected=expected)
    return tuple(str(names[key]) for key in sorted(names, key=int))


def reorients(plans: Mapping[str, Any]) -> bool:
    """Whether nnU-Net's own reader turned the scans to RAS before the network saw them.

    Args:
        plans: nnU-Net's.
    """
    return plans.get("image_reader_writer") in ("NibabelIOWithReorient", "SimpleITKIOWithReorient")
