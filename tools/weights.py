"""`python -m tools weights`: what is inside a weights file, and how two files differ."""

from __future__ import annotations

import json
from pathlib import Path

from rich.table import Table
from torch import Tensor

from common.card import save_weights
from common.errors import ConfigError, WeightError
from common.integrity import SUFFIX
from common.paths import check_new
from common.weights import read_state_dict

from .terminal import console, one_line, say

__all__ = ["Weights"]


class Weights:
    """Inspect and compare weights files without executing what is in them."""

    def inspect(self, file: str, limit: int = 200) -> None:
        """List a file's tensors and its card.

        Args:
            file: ``.pt``, ``.pth`` or ``.safetensors``.
            limit: most rows to show; 0 shows all.
        """
        tensors, card = read_state_dict(Path(str(file)))
        terminal = console()
        table = Table("tensor", "shape", "type", title=str(file))
        for name, tensor in list(tensors.items())[: limit or None]:
            table.add_row(one_line(name), _shape(tensor), str(tensor.dtype).removeprefix("torch."))
        terminal.print(table)
        if limit and len(tensors) > limit:
            terminal.print(f"... and {len(tensors) - limit} more (--limit 0 shows all)")
        count = sum(t.numel() for t in tensors.values())
        terminal.print(f"{len(tensors)} tensors, {count:,} values")
        terminal.print("no card inside" if card is None else f"card: {card.to_json()}")

    def compare(self, a: str, b: str, limit: int = 200) -> None:
        """List the tensors in which two files differ.

        Args:
            a: first file.
            b: second file.
            limit: most rows to show; 0 shows all.
        """
        first, second = read_state_dict(Path(str(a)))[0], read_state_dict(Path(str(b)))[0]
        rows = [
            (name, status, _shape(first.get(name)), _shape(second.get(name)))
            for name in dict.fromkeys([*first, *second])
            if (status := _difference(first.get(name), second.get(name)))
        ]
        terminal = console()
        if rows:
            table = Table("tensor", "difference", Path(str(a)).name, Path(str(b)).name)
            for row in rows[: limit or None]:
                table.add_row(*map(one_line, row))
            terminal.print(table)
        same = len({*first, *second}) - len(rows)
        terminal.print(f"{same} tensors are equal, {len(rows)} differ")

    def rename(self, old: str, new: str, names: dict[str, str]) -> None:
        """Write a weights file anew whose card names structures, channels or modalities differently.

        For files of earlier versions whose names are refused today; the weights stay as they are.

        Args:
            old: ``.pt``, ``.pth`` or ``.safetensors`` with a card.
            new: file to write.
            names: ``"{'old name': 'new name'}"``.
        """
        target = Path(new)
        if check_new(target, ("", SUFFIX), error=ConfigError).exists():
            raise ConfigError("the file exists", where=target, hint="give another name for the new file")
        tensors, card = read_state_dict(Path(old), {str(k): str(v) for k, v in names.items()})
        if card is None:
            raise WeightError("the file has no card, and so no names", where=old)
        unused = [ascii(before) for before, after in names.items() if json.dumps(str(after)) not in card.to_json()]
        if unused:
            expected = ", ".join((*card.labels.names, *card.channels))
            raise WeightError("the card names nothing so", where=old, got=", ".join(unused), expected=expected)
        say(f"wrote {save_weights(target, tensors, card)}: {', '.join(card.labels.names)}")


def _difference(a: Tensor | None, b: Tensor | None) -> str:
    if a is None or b is None:
        return "only in the second" if a is None else "only in the first"
    if a.shape != b.shape:
        return "shape"
    largest = float((a.double() - b.double()).abs().max()) if a.numel() else 0.0
    if largest == 0.0:
        return "" if a.dtype == b.dtype else f"type {a.dtype} / {b.dtype}"
    return f"values, at most {largest:.3g}"


def _shape(tensor: Tensor | None) -> str:
    return "-" if tensor is None else ("x".join(map(str, tensor.shape)) or "scalar")
