"""Reading weights without executing code, and loading them with a coverage report."""

from __future__ import annotations

import hashlib
import logging
import pickle
import re
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .card import CARD_ATTRIBUTE, ModelCard
from .errors import WeightError
from .integrity import verify
from .paths import check_path

__all__ = ["Coverage", "digest", "load_weights", "read_beside_weights", "read_card", "read_state_dict"]

logger = logging.getLogger(__name__)

WRAPPERS = ("state_dict", "network_weights", "model_state_dict", "model", "objects", "network")

Rename = Mapping[str, str] | Callable[[str], str]


@dataclass(frozen=True)
class Coverage:
    """What became of every tensor when weights were loaded.

    Args:
        matched: names that were loaded.
        missing: ``(name, shape)`` of tensors of the network that got nothing.
        unexpected: ``(name, shape)`` of tensors of the file that the network does not have.
        mismatched: ``(name, network's shape, file's shape)``.
    """

    matched: tuple[str, ...]
    missing: tuple[tuple[str, tuple[int, ...]], ...] = ()
    unexpected: tuple[tuple[str, tuple[int, ...]], ...] = ()
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()

    @property
    def fraction(self) -> float:
        """Loaded tensors / tensors of the network, 0..1."""
        total = len(self.matched) + len(self.missing) + len(self.mismatched)
        return len(self.matched) / total if total else 0.0

    def summary(self) -> str:
        """One line for the log."""
        return (
            f"{len(self.matched)} of {len(self.matched) + len(self.missing) + len(self.mismatched)} tensors loaded, "
            f"{len(self.missing)} missing, {len(self.mismatched)} with another shape, {len(self.unexpected)} unused"
        )

    def table(self, limit: int = 40) -> str:
        """One row per tensor that did not fit: status, name, shape in the network, shape in the file."""
        rows = [("status", "tensor", "network", "file")]
        rows += [("shape", n, _shape(a), _shape(b)) for n, a, b in self.mismatched]
        rows += [("missing", n, _shape(s), "-") for n, s in self.missing]
        rows += [("unused", n, "-", _shape(s)) for n, s in self.unexpected]
        shown = rows[: limit + 1]
        widths = [max(len(row[i]) for row in shown) for i in range(4)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in shown]
        if len(rows) > len(shown):
            lines.append(f"... and {len(rows) - len(shown)} more")
        return "\n".join([self.summary(), *lines]) if len(rows) > 1 else self.summary()


def read_state_dict(
    path: Path | str, names: Mapping[str, str] | None = None
) -> tuple[dict[str, Tensor], ModelCard | None]:
    """Read the tensors of a ``.pt``, ``.pth`` or ``.safetensors`` file; no code in the file is ever executed.

    Known wrappers (``state_dict``, ``model``, ``network_weights``, ``model_state_dict``, and our own run checkpoints)
    are taken off; state dicts side by side (SimCLRv2's ``{"resnet": ..., "head": ...}``) become one, their names before
    those of the tensors. nnU-Net's checkpoints contain numpy scalars and SAM-Med3D's the command line that it was
    trained with (`argparse.Namespace`); these are admitted by name and nothing else is. A file that has its sha256
    beside it (``model.pt.sha256``) is compared with that first.

    Args:
        path: the weights file.
        names: other names for what the card names, ``{old: new}``.

    Returns:
        the flat state dict on the CPU, and the card when the file has one.

    Raises:
        WeightError: for a missing, damaged, changed or hostile file, or one that holds no tensors.
    """
    path = check_path(path, what="weights file", error=WeightError)
    if not path.is_file():
        raise WeightError("there is no such weights file", where=path, hint="check the path, or train it first")
    verify(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path, names)
    content = _unpickle(path)
    card_text = getattr(content, CARD_ATTRIBUTE, None)
    if isinstance(content, Mapping) and card_text is None:
        card_text = content.get("card")
    for _ in range(3):
        if not isinstance(content, Mapping) or any(isinstance(v, Tensor) for v in content.values()):
            break
        inner = next((content[k] for k in WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            content = _side_by_side(content)
            break
        content = inner
    if not isinstance(content, Mapping) or not any(isinstance(v, Tensor) for v in content.values()):
        keys = list(content)[:8] if isinstance(content, Mapping) else type(content).__name__
        raise WeightError("the file holds no weights", where=path, got=keys, expected=f"tensors, or {WRAPPERS}")
    tensors: dict[str, Tensor] = OrderedDict((str(k), v) for k, v in content.items() if isinstance(v, Tensor))
    if hasattr(content, "_metadata"):
        tensors._metadata = content._metadata  # type: ignore[attr-defined]
    return tensors, ModelCard.from_json(card_text, where=path, names=names) if isinstance(card_text, str) else None


def read_card(path: Path | str) -> ModelCard | None:
    """The card inside a weights file, None when it has none."""
    return read_state_dict(path)[1]


def load_weights(
    module: nn.Module,
    source: Path | str | Mapping[str, Tensor],
    *,
    strip: str | Sequence[str] = (),
    rename: Rename | None = None,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    minimum: float = 1.0,
    where: object | None = None,
) -> Coverage:
    """Load weights into a module and refuse whatever the caller did not allow; nothing is changed when refused.

    Args:
        module: receives the tensors.
        source: a file, or names and tensors.
        strip: prefixes to take off the source's names, e.g. ``("module.", "_orig_mod.")``.
        rename: regular expressions and their replacements, or a function from old to new name; after ``strip``.
        allow_missing: glob patterns of the module's names that may stay as they are (also with another shape).
        allow_unexpected: glob patterns of the source's names that may remain unused.
        minimum: fraction (0..1) of the module's other tensors that must match. 1 also refuses unused tensors.
        where: what the message should name when ``source`` is no file.

    Returns:
        the coverage report.

    Raises:
        WeightError: when too little fits, a tensor is not finite, or an allowed pattern names nothing.
    """
    if not 0.0 <= minimum <= 1.0:
        raise WeightError("minimum is a fraction", where=where, got=minimum, expected="0..1")
    where = where if where is not None or isinstance(source, Mapping) else source
    tensors = dict(source) if isinstance(source, Mapping) else read_state_dict(source)[0]
    target = module.state_dict()
    for pattern in allow_missing:
        if not any(fnmatchcase(name, pattern) for name in target):
            raise WeightError("a pattern in allow_missing matches no tensor of the network", where=where, got=pattern)
    renamed = _rename(tensors, (strip,) if isinstance(strip, str) else tuple(strip), rename, where)
    coverage = _compare(target, renamed)
    problem = _refusal(coverage, allow_missing, allow_unexpected, minimum)
    if problem:
        raise WeightError(
            problem, where=where, got="\n" + coverage.table(), hint=_suggest_prefix(target, renamed, coverage)
        )
    broken = [n for n in coverage.matched if renamed[n].is_floating_point() and not bool(renamed[n].isfinite().all())]
    if broken:
        raise WeightError("weights contain NaN or infinite values", where=where, got=", ".join(broken[:5]))
    module.load_state_dict({n: renamed[n] for n in coverage.matched}, strict=False)
    logger.info("%s: %s", where if where is not None else "weights", coverage.summary())
    return coverage


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 over names and bytes of tensors."""
    found = hashlib.sha256()
    for name, value in tensors:
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _compare(target: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> Coverage:
    same = [n for n in target if n in source and target[n].shape == source[n].shape]
    return Coverage(
        matched=tuple(same),
        missing=tuple((n, tuple(t.shape)) for n, t in target.items() if n not in source),
        unexpected=tuple((n, tuple(t.shape)) for n, t in source.items() if n not in target),
        mismatched=tuple(
            (n, tuple(t.shape), tuple(source[n].shape))
            for n, t in target.items()
            if n in source and t.shape != source[n].shape
        ),
    )


def _refusal(
    coverage: Coverage, allow_missing: Sequence[str], allow_unexpected: Sequence[str], minimum: float
) -> str | None:
    if not coverage.matched:
        return "no tensor of the file fits the network: nothing would be loaded"
    names = [n for n, _ in coverage.missing] + [n for n, _, _ in coverage.mismatched]
    lacking = [n for n in names if not _any_match(n, allow_missing)]
    fraction = len(coverage.matched) / (len(coverage.matched) + len(lacking))
    if fraction < minimum:
        return f"only {fraction:.1%} of the network's tensors fit, {minimum:.1%} are required"
    unused = [n for n, _ in coverage.unexpected if not _any_match(n, allow_unexpected)]
    if minimum == 1.0 and unused:
        return f"{len(unused)} tensors of the file have no place in the network"
    return None


def _any_match(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _rename(
    tensors: Mapping[str, Tensor], strip: Sequence[str], rename: Rename | None, where: object | None
) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    for original, tensor in tensors.items():
        name = original
        for prefix in strip:
            name = name.removeprefix(prefix)
        if callable(rename):
            name = rename(name)
        elif rename is not None:
            for pattern, replacement in rename.items():
                name = re.sub(pattern, replacement, name)
        if name in result:
            raise WeightError("two tensors get the same name", where=where, got=f"{original} -> {name}")
        result[name] = tensor
    return result


def _suggest_prefix(target: Mapping[str, Tensor], source: Mapping[str, Tensor], found: Coverage) -> str | None:
    """Would taking a leading part off the names help? Then say so."""
    parts = {name[: m.end()] for name in source for m in re.finditer(r"\.", name)}
    best, gain = "", len(found.matched)
    for prefix in parts:
        hits = sum(n.startswith(prefix) and n[len(prefix) :] in target for n in source)
        if hits > gain:
            best, gain = prefix, hits
    if best:
        return f"strip=({best!r},) would match {gain} tensors"
    return "compare both files: python -m tools weights compare A B"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _side_by_side(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """``{"a": {"w": tensor}, "b": ...}`` as ``{"a.w": tensor, ...}``; anything else as it is."""
    parts = list(content.values())
    if not parts or not all(isinstance(p, Mapping) and all(isinstance(v, Tensor) for v in p.values()) for p in parts):
        return content
    return {f"{name}.{key}": value for name, part in content.items() for key, value in part.items()}


def _harmless() -> list[Any]:
    """What public checkpoints need beyond tensors: numpy numbers and plain namespaces, nothing that runs code."""
    scalar = np.float64(0).__reduce__()[0]  # multiarray.scalar, whose module was renamed in numpy 2
    dtypes = [type(np.dtype(name)) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [Namespace, np.dtype, *dtypes, *((scalar, name) for name in names)]


def read_beside_weights(path: Path | str, key: str) -> Any:
    """One entry that a checkpoint holds beside its tensors, such as nnU-Net's ``inference_allowed_mirroring_axes``.

    Args:
        path: a ``.pt`` or ``.pth`` file; nothing in it is executed.
        key: name of the entry.

    Returns:
        the entry, None when there is none.

    Raises:
        WeightError: for a missing, damaged, changed or hostile file.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightError("there is no such weights file", where=path, hint="check the path, or train it first")
    verify(path)
    content = _unpickle(path)
    return content.get(key) if isinstance(content, Mapping) else None


def _unpickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"GLOBAL\s+(\S+)", str(error))
        raise WeightError(
            "the file contains more than weights and was not opened, because reading it could execute code",
            where=path,
            got=unsafe.group(1) if unsafe else str(error).splitlines()[0][:200],
            expected="tensors, numbers and text",
            hint="ask its author for a state dict or a .safetensors file",
        ) from error
    except Exception as error:  # torch's reader raises a dozen types for damaged files
        raise WeightError(
            "the weights file is damaged or incomplete",
            where=path,
            got=(str(error) or repr(error)).splitlines()[0][:200],
        ) from error


def _read_safetensors(path: Path, names: Mapping[str, str] | None) -> tuple[dict[str, Tensor], ModelCard | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = OrderedDict((key, file.get_tensor(key)) for key in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightError("the weights file is damaged or incomplete", where=path, got=str(error)[:200]) from error
    if not tensors:
        raise WeightError("the file holds no weights", where=path)
    return tensors, ModelCard.from_json(metadata["card"], where=path, names=names) if "card" in metadata else None
