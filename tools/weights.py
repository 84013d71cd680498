"""`python -m tools weights`: what is inside a weights file, and how two files differ."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from torch import Tensor

from common.weights import read_state_dict

from .terminal import console

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
            table.add_row(name, _shape(tensor), str(tensor.dtype).removeprefix("torch."))
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
                table.add_row(*row)
            terminal.print(table)
        same = len({*first, *second}) - len(rows)
        terminal.print(f"{same} tensors are equal, {len(rows)} differ")


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
