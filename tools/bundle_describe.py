"""What metadata and documents say of weights: what their card and the scores beside them say, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from common.card import ModelCard
from common.contract import Contract
from common.data.datasets.dataset_json import SPLITS
from common.engine.evaluation.score_form import checked_evaluation
from common.errors import ConfigError
from common.literals import is_plain
from common.methods.ka2er.planned import student_overlap

from .bundle_files import walk

__all__ = [
    "check_metadata_text",
    "conditions",
    "data_lines",
    "describe_weights",
    "score_lines",
    "tiles_told",
    "trained_on",
]

UNKNOWN = "not recorded by the training of these weights"
UNSTATED = "licence not stated"
_SENTENCE = re.compile(r"(?<=\.)\s+(?=[A-Z])")
_OURS = re.compile(r"\bphantom\b", re.IGNORECASE)
_SIGNS = str.maketrans({"$": "", "%": "", "#": "", "`": "'", "|": "/", "<": "(", ">": ")", "@": " at "})
_LONGEST = 400
_PREFERRED = ("test", "validation", "training")


def describe_weights(meta: dict[str, Any], card: ModelCard, scores: Sequence[Mapping[str, Any]] = ()) -> None:
    """Bring a bundle's metadata to what a weights file's card says: data, licences, channels, description and scores.

    Args:
        meta: content of ``metadata.json``, changed in place.
        card: of the weights.
        scores: evaluations of just these weights, from :func:`common.engine.evaluation.score_record.read_scores`.

    Raises:
        WeightError: when the card's contract has another form than is written.
        DataError: for such scores.
        ConfigError: when something in the metadata is no plain text.
    """
    contract = Contract.of_card(card)
    meta["data_source"] = trained_on(contract)
    kept = [t for t in _SENTENCE.split(str(meta.get("description", ""))) if not _OURS.search(t)]
    meta["description"] = f"{' '.join(kept)} These weights were trained on: {trained_on(contract)}. Structures: " + (
        ", ".join(card.labels.names) + "."
    )
    meta["licenses"] = {**meta.get("licenses", {}), "data": conditions(contract)}
    meta["eval_metrics"] = _metrics(scores)
    image = next(iter(meta["network_data_format"]["inputs"].values()))
    if card.channels:
        image["num_channels"] = len(card.channels)
        image["channel_def"] = {str(i): name for i, name in enumerate(card.channels)}
    kinds = [str(m.get("kind") or name) for name, m in contract.modalities.items()] if contract.complete else []
    if kinds:
        image["modality"] = ", ".join(dict.fromkeys(kinds))
    check_metadata_text(meta)


def check_metadata_text(meta: Mapping[str, Any], where: object = "metadata.json") -> None:
    """Refuse text in metadata that MONAI, which evaluates them as it does any configuration, would not take for itself.

    Whatever writes a ``metadata.json`` asks this first.

    Args:
        meta: its content.
        where: the file.

    Raises:
        ConfigError: naming the entry, for an expression, a reference, a macro or a component to build.
    """
    for place, node in walk(meta):
        texts = [node] if isinstance(node, str) else []
        keys = list(node) if isinstance(node, dict) else []
        built = [k for k in keys if not isinstance(k, str) or (k.startswith("_") and k.endswith("_"))]
        odd = [t for t in (*texts, *map(str, keys)) if not is_plain(t.replace("#", "::"))]  # as MONAI reads "#"
        if odd or built:
            raise ConfigError("metadata hold plain text alone", where=f"{where}, {ascii(place)[1:-1]}",
                              got=f"{[*odd, *built][0]!a:.100}", expected="words that no configuration evaluates",
                              hint="change that text in the bundle, the card, the scores or the licence")  # fmt: skip


def trained_on(contract: Contract) -> str:
    """The data sets that a model learned from, with the number of their cases, in one sentence."""
    return "; ".join(map(_data_set, contract.data)) or UNKNOWN


def conditions(contract: Contract) -> str:
    """Under what each data set may be used."""
    said = [f"{_said(d.get('name'))}: {_licence(d)}{_reference(d)}" for d in contract.data]
    return "; ".join(said) or UNKNOWN


def score_lines(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table (Markdown) of the evaluation that describes a model best; no line when there is none."""
    chosen = _chosen(scores)
    if chosen is None:
        return []
    rows = [*chosen["structures"].items(), ("mean of structures", chosen["mean"])]
    tasks = ", ".join(map(_said, chosen.get("tasks", ())))
    split, cases = chosen.get("split") or "?", chosen.get("cases", "?")
    head = f"Measured on the split {split} of {tasks}: {cases} cases, means with 95 % bootstrap"
    lines = [f"{head} intervals.", "", "| structure | Dice | HD95 (mm) |", "|---|---|---|"]
    return lines + [f"| {_said(n)} | {_interval(r['dice'], 3)} | {_interval(r['hd95'], 1)} |" for n, r in rows]


def data_lines(contract: Contract) -> list[str]:
    """A table (Markdown) of the data sets, and what was taught on what."""
    if not contract.data:
        return [f"Training data: {UNKNOWN}."]
    lines = ["| data set | modality | cases | licence | sha256 of the training images |", "|---|---|---|---|---|"]
    for data in contract.data:
        cases = _cases(data)
        counts = ", ".join(f"{_said(c.get('number'))} {s}" for s, c in cases.items())
        digest = str(cases.get("training", {}).get("sha256", ""))
        shown = f"`{digest}`" if re.fullmatch("[0-9a-f]{64}", digest) else ""
        names = ", ".join(map(_said, data.get("modalities") or ()))
        lines.append(f"| {_said(data.get('name'))} | {names} | {counts} | {_licence(data)} | {shown} |")
    taught = [f"- taught on {_said(name)}: {', '.join(map(_said, found))}" for name, found in contract.taught.items()]
    told = [d for d in contract.data if d.get("description")]
    about = [f"- {_said(d.get('name'))}: {_said(d['description'])}{_reference(d)}" for d in told]
    return [*lines, "", *about, *taught]


def tiles_told(card: ModelCard, where: object = "the card") -> str:
    """How the tiles of a pass lie and whose these are; nothing of weights whose card does not say it.

    Args:
        card: of the weights.
        where: their file.

    Raises:
        WeightError: for an overlap that is none.
    """
    settings = card.extra.get("settings") or {}
    if "overlap" not in settings:
        return ""
    overlap = student_overlap(settings=settings, path=str(where))
    names = ", ".join(map(_said, settings.get("overlap_from") or ()))
    told = f"tiles overlap by {overlap:g} of their size and step by {1 - overlap:g}"
    return f"{told}, as at home those of {names}" if names else f"{told}, as nnU-Net's"


def _cases(data: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Numbers and hashes by split, in the splits' order."""
    said = data.get("cases")
    found = said if isinstance(said, Mapping) else {}
    return {s: found[s] for s in SPLITS if isinstance(found.get(s), Mapping)}


def _data_set(data: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{_said(c.get('number'))} {s}" for s, c in _cases(data).items())
    names = ", ".join(map(_said, data.get("modalities") or ()))
    return f"{_said(data.get('name'))} ({'; '.join(t for t in (names, f'cases: {counts}' if counts else '') if t)})"


def _reference(data: Mapping[str, Any]) -> str:
    said = data.get("reference") or data.get("citation") or data.get("source")
    return f" ({_said(said)})" if said else ""


def _licence(data: Mapping[str, Any]) -> str:
    return _said(data.get("licence") or "") or UNSTATED


def _said(value: Any) -> str:
    """Text from data as plain words of one line: no sign of a configuration, of Markdown or of HTML."""
    words = "".join(c if c.isprintable() else " " for c in str(value)).translate(_SIGNS).split()
    text = " ".join(words)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _chosen(scores: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The newest evaluation on the most independent split; none on data that the model was not made for."""
    sound = [checked_evaluation(s, f"the scores, evaluations[{i}]") for i, s in enumerate(scores)]
    fair = [s for s in sound if not s.get("ignore_card") and s.get("structures") and s.get("mean")]
    for split in _PREFERRED:
        own: list[Mapping[str, Any]] = [s for s in reversed(fair) if s.get("split") == split]
        if own:
            return max(own, key=_size)
    return fair[-1] if fair else None


def _size(entry: Mapping[str, Any]) -> int:
    return len(entry.get("tasks", ()))


def _metrics(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    chosen = _chosen(scores)
    if chosen is None:
        return {}
    found: dict[str, Any] = {"split": chosen.get("split", ""), "cases": chosen.get("cases", 0)}
    for name, row in [("mean", chosen["mean"]), *chosen["structures"].items()]:
        for measure in ("dice", "hd95"):
            value = row[measure]
            if value["mean"] is not None:
                key = f"{name}_{measure}"
                found |= {key: value["mean"], f"{key}_interval": [value["low"], value["high"]]}
    return found


def _interval(value: Mapping[str, Any], digits: int) -> str:
    if value["mean"] is None:
        return "–"
    return f"{value['mean']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"
