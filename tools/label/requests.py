"""What a request to the label server may hold: every key and value is compared with what the model offers.

MONAI Label copies values of a request into a bundle's configuration and parses it again, where a text can be code, and
takes paths from requests. This file needs Python alone: it is copied beside the server's app.
"""

from __future__ import annotations

import math
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from os.path import realpath
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Offer", "RequestError", "check_name", "check_place", "check_plain", "check_study", "checked_infer"]
__all__ += ["checked_train", "is_inert"]

_SIGNS = ("$", "@", "%", "#", "::", "/", "\\")
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2060-\u206f\u2800\u3164\ufdd0-\ufdef\ufe00-\ufe0f"
                    "\uffa0\ufff0-\ufffc\ufffe\uffff\U000e0000-\U000e0fff]")  # fmt: skip
_JOINING = re.compile("[\u200c\u200d\ufe00-\ufe0f]")  # parts of words and of emoji, which files are called by
_LONGEST, _MOST = 128, 10_000
_RANGES: dict[str, tuple[float, float]] = {"overlap": (0, 0.99), "val_split": (-1, 0.99), "max_epochs": (1, 100_000)}
_DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "float32", "float64")
_EXTENSION = re.compile(r"\.(nii|nii\.gz|nrrd|seg\.nrrd|mha|mhd|png|jpg|tif|tiff|bmp)")
_DEVICE = re.compile(r"cpu|mps|cuda(:[0-9]{1,2})?")
_UPLOADED = re.compile(r"tmp\w{4,16}(\.\w+)*")
_LEVELS = "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"
_SERVERS = ("model", "image", "images", "session", "description", "bundle_path", "_id", "_image_id")
_DATASETS = ("Dataset", "CacheDataset", "PersistentDataset", "SmartCacheDataset")


class RequestError(Exception):
    """A request holds what the model does not offer.

    Args:
        key: of the request.
        got: its value.
        expected: what is offered.
    """

    def __init__(self, key: object, got: object, expected: str) -> None:
        shown = ascii(got)
        self.key, self.expected = str(key), expected
        self.got = shown if len(shown) < 200 else shown[:197] + "..."
        told = f"\n  got:      {self.got}\n  expected: {expected}"
        super().__init__(f"{ascii(self.key)[1:-1]}: the request is refused{told}")


class Offer(NamedTuple):
    """What a model offers to requests.

    Args:
        options: what its panel shows, with the default or the list of choices.
        structures: of all models of the server: a viewer sends clicks by structure.
        models: names of all models, each of which may have a part of a training's request.
    """

    options: Mapping[str, Any]
    structures: Iterable[str] = ()
    models: Iterable[str] = ()


def check_plain(request: Mapping[str, Any]) -> None:
    """Refuse a request whose values are not plain: numbers, switches, and names."""
    for key, value in request.items():
        if key == "client_id":
            _words(key, value)
        elif isinstance(value, str):
            check_name(key, value, empty=True)
        else:
            _entry(key, value, 4)  # no lists


def check_study(tag: object, taught: Any, asked: object = None, by_modality: Any = None) -> None:
    """Refuse a study that is none of what the model was taught on, or that DICOM calls something else than the request.

    Args:
        tag: DICOM's Modality of the study.
        taught: the tags that fit, from the model's ``taught.json``; nothing is compared where nobody knows.
        asked: the request's ``modality``, or a list that begins with the default.
        by_modality: the tags that fit each of the model's modalities, likewise.
    """
    if not isinstance(tag, str) or tag in ("", "UNK", "OT"):
        return
    if taught and tag not in taught:
        raise RequestError("image", tag, f"a study of {' or '.join(map(str, taught))}, which the model was taught on")
    chosen = asked[0] if isinstance(asked, (list, tuple)) and asked else asked
    own = by_modality.get(chosen) if isinstance(by_modality, Mapping) and isinstance(chosen, str) else None
    if own and tag not in own:
        fitting = [str(name) for name, tags in by_modality.items() if not tags or tag in tags]
        raise RequestError("modality", chosen, f"what the study is, by DICOM {tag}: {', '.join(fitting)}")


def is_inert(text: str) -> bool:
    """Whether a configuration takes a text for nothing but itself."""
    return not text.startswith(("$", "@", "%")) and not any(s in text for s in ("#", "@::", "%::"))


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") or _BLANK.match(character) is not None


def check_name(key: str, value: object, *, empty: bool = False) -> str:
    """Refuse what is no plain name: signs of configurations and paths, invisible characters, or nothing at all."""
    if empty and value in ("", None):
        return ""
    if not isinstance(value, str) or not value.strip(". ") or len(value) > _LONGEST:
        raise RequestError(key, value, f"a name of at most {_LONGEST} characters")
    if any(s in value for s in _SIGNS) or any(map(_hidden, value)):
        raise RequestError(key, value, f"a name without {' '.join(_SIGNS)} and invisible characters")
    return value


def check_place(key: str, value: object, folders: Iterable[str | Path]) -> str:
    """Refuse a path that lies in none of the folders, wherever its links and dots lead; uploads pass."""
    if not isinstance(value, str) or not value or any(map(_hidden, _JOINING.sub("", value))):
        raise RequestError(key, value, "the id of a study")
    path, temporary = Path(realpath(value)), Path(tempfile.gettempdir()).resolve()  # links that lead to themselves, too
    uploaded = path.parent == temporary and _UPLOADED.fullmatch(path.name) is not None
    if not uploaded and not any(path.is_relative_to(Path(f).resolve()) for f in folders):
        raise RequestError(key, value, "the id of a study of this server, or a file in its folder of studies")
    return value


def checked_infer(request: Mapping[str, Any], offer: Offer) -> dict[str, Any]:
    """The request of an inference, alone or one of many; numbers that a browser sent as text are numbers.

    Image and session are judged by who knows the studies.

    Raises:
        RequestError: for a key that is not offered, or a value of another type or range.
    """
    return _checked(request, offer, _INFER)


def checked_train(request: Mapping[str, Any], offer: Offer) -> dict[str, Any]:
    """The request of a training, also one with a part for each model.

    Raises:
        RequestError: as :func:`checked_infer`.
    """
    return _checked(request, offer, _TRAIN, nested=True)


def _checked(
    request: Mapping[str, Any], offer: Offer, known: Mapping[str, Callable[[str, Any], Any]], *, nested: bool = False
) -> dict[str, Any]:
    if not isinstance(request, Mapping):
        raise RequestError("request", request, "keys and values")
    structures, models = {str(s).casefold() for s in offer.structures}, set(offer.models)
    result: dict[str, Any] = {}
    for key, value in request.items():
        if key in _SERVERS:
            result[key] = value
        elif key == "device":
            result[key] = value if _is_device(value) else _option(key, value, offer.options.get("device", ("cpu",)))
        elif key in known:
            result[key] = known[key](key, _chosen(key, value, offer))
        elif key in offer.options:
            result[key] = _option(key, value, offer.options[key])
        elif isinstance(key, str) and key.casefold() in structures and not nested:
            result[key] = _points(key, value)
        elif nested and key in models and isinstance(value, Mapping):
            result[key] = _checked(value, offer, known)
        else:
            offered = sorted({*known, *map(str, offer.options)})
            raise RequestError(key, value, f"one of {', '.join(offered)}, or a structure")
    return result


def _is_device(value: Any) -> bool:
    return isinstance(value, str) and _DEVICE.fullmatch(value) is not None


def _chosen(key: str, value: Any, offer: Offer) -> Any:
    """The entry of a list that a viewer shows for choosing, where it sent the whole list."""
    return value[0] if isinstance(value, list) and value and value == list(_listed(offer.options.get(key))) else value


def _listed(choices: Any) -> Sequence[Any]:
    return choices if isinstance(choices, (list, tuple)) else ()


def _option(key: str, value: Any, default: Any) -> Any:
    """A value as its option's default says: a choice, a switch, a number within its range, or the default itself."""
    choices = _listed(default)
    if choices:
        if value == list(choices) or value in choices:
            return value
        if isinstance(value, list) and len(value) == 1 and value[0] in choices:
            return value
        raise RequestError(key, value, "one of " + ", ".join(map(str, choices)))
    if isinstance(default, bool):
        return _switch(key, value)
    if isinstance(default, (int, float)):
        low, high = _RANGES.get(key, (0, 1_000_000))
        return _number(key, value, low, high, whole=isinstance(default, int))
    if value == default or (value in ("", None) and not default):
        return value
    raise RequestError(key, value, repr(default))


def _number(key: str, value: Any, low: float, high: float, *, whole: bool = False) -> Any:
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}(\.\d{1,17})?(e-?\d{1,2})?", value, re.ASCII):
        value = float(value) if not whole else int(value) if re.fullmatch(r"-?\d+", value) else value
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not low <= value <= high
        or not math.isfinite(value)
        or (whole and value != int(value))
    ):
        raise RequestError(key, value, f"a {'whole ' if whole else ''}number from {low:g} to {high:g}")
    return int(value) if whole else value


def _switch(key: str, value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise RequestError(key, value, "true or false")
    return value


def _points(key: str, value: Any) -> list[Any]:
    fits = isinstance(value, list) and len(value) <= _MOST
    if not fits or not all(isinstance(p, list) and 2 <= len(p) <= 4 and all(map(_finite, p)) for p in value):
        raise RequestError(key, value, "a list of points [i, j, k]")
    return list(value)


def _numbers(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > 12 or not all(map(_finite, value)):
        raise RequestError(key, value, "a list of numbers")
    return list(value)


def _finite(number: Any) -> bool:
    return isinstance(number, (int, float)) and not isinstance(number, bool) and abs(number) < 1e7


def _slice(key: str, value: Any) -> Any:
    return None if value is None else _number(key, value, -1, 1e6)


def _plain(number: Any) -> bool:
    """A finite number; a whole one may have more digits than any other kind of number, and is refused then."""
    return isinstance(number, (int, float)) and abs(number) < 1e300


def _name(key: str, value: Any) -> str:
    return check_name(key, value, empty=True)


def _words(key: str, value: Any) -> Any:
    """Who asks, which no path or configuration is made of: an address of mail, too."""
    if value is not None and not isinstance(value, str):
        raise RequestError(key, value, "text")
    _entry(key, value, 0)
    return value


def _label(key: str, value: Any) -> Any:
    """The structure that is asked for, or a map that was uploaded with the request."""
    if isinstance(value, str) and "/" in value:
        return check_place(key, value, ())
    return None if value is None else check_name(key, value, empty=True)


def _segments(key: str, value: Any) -> Any:
    """Names and colours of segments, as viewers list them."""
    if not isinstance(value, list) or len(value) > _MOST or not all(isinstance(s, dict) for s in value):
        raise RequestError(key, value, "a list of segments")
    for segment in value:
        for name, entry in segment.items():
            _entry(f"{key} {name}", entry, 0)
    return value


def _entry(key: str, entry: Any, depth: int) -> None:
    if isinstance(entry, (list, dict)) and depth < 4:
        for part in entry.values() if isinstance(entry, dict) else entry:
            _entry(key, part, depth + 1)
    elif isinstance(entry, str):
        if any(map(_hidden, entry)) or not is_inert(entry) or len(entry) > 1000:
            if re.fullmatch(r"#[0-9A-Fa-f]{3,8}", entry) is None:  # a colour
                raise RequestError(key, entry, "plain text")
    elif not (entry is None or isinstance(entry, bool) or _plain(entry)):
        raise RequestError(key, entry, "text or a number")


def _one_of(*choices: str) -> Callable[[str, Any], Any]:
    def check(key: str, value: Any) -> Any:
        if value not in choices:
            raise RequestError(key, value, "one of " + ", ".join(map(repr, choices)))
        return value

    return check


def _matching(pattern: re.Pattern[str], words: str) -> Callable[[str, Any], Any]:
    def check(key: str, value: Any) -> Any:
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise RequestError(key, value, words)
        return value

    return check


def _between(low: float, high: float, *, whole: bool = False) -> Callable[[str, Any], Any]:
    return partial(_number, low=low, high=high, whole=whole)


_GPUS = _matching(re.compile(r"all|[0-9]{1,2}(,[0-9]{1,2}){0,15}"), "all, or numbers with commas")
_INFER: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("result_compress", "result_write_to_file", "save_label", "restore_label_idx"), _switch),
    **dict.fromkeys(("reset_state", "multi_gpu"), _switch),
    "label_tag": _name,
    "client_id": _words,
    **dict.fromkeys(("foreground", "background"), _points),
    "label": _label,
    "label_info": _segments,
    "roi": _numbers,
    "slice": _slice,
    "result_extension": _matching(_EXTENSION, "the ending of an image file, such as .nii.gz"),
    "result_dtype": _one_of(*_DTYPES),
    "logging": _one_of(*_LEVELS),
    "timeout": _between(1, 86_400),
    "gpus": _GPUS,
    "max_workers": _between(0, 256, whole=True),
    "max_batch_size": _between(0, 1e9, whole=True),
}
_TRAIN: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("pretrained", "multi_gpu", "force_multi_gpu"), _switch),
    **dict.fromkeys(("tracking_experiment_name", "tracking_run_name", "name"), _name),
    "client_id": _words,
    "max_epochs": _between(*_RANGES["max_epochs"], whole=True),
    "val_split": _between(*_RANGES["val_split"]),
    "train_batch_size": _between(1, 4096, whole=True),
    "val_batch_size": _between(1, 4096, whole=True),
    "dataset": _one_of(*_DATASETS),
    "run_id": _one_of("", "run"),
    "local_rank": _between(0, 1024, whole=True),  # of the process that trains
    "gpus": _GPUS,
}
