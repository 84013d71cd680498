"""What a chain has done and has to do, in words."""

from __future__ import annotations

from collections.abc import Sequence

from ..run_files import CHAIN, check_record, inside
from ..terminal import one_line
from .artefacts import changed
from .record import CHANGED, Record
from .step import Step

__all__ = ["plan_text", "status_text"]


def plan_text(steps: Sequence[Step], record: Record | None, indent: int = 0) -> str:
    """Each step with its command, whether it is done, and why one that was done is to do again.

    Args:
        steps: in an order that respects their needs.
        record: of the chain, None where there is none yet.
        indent: blanks before each line.
    """
    lines, open_steps = [], dict[str, Step]()
    for step in steps:
        why = "" if record is None else record.lacks(step)
        waits = next((open_steps[need] for need in step.needs if need in open_steps), None)
        if waits and record is not None and record.row(step).get("status") == "done" and why in (None, CHANGED):
            why = f"{waits.title}, which it needs, is to do"
            if waits.output_dir != step.output_dir:
                why += " (it stays if that comes out the same)"
        if why is not None:
            open_steps[step.id] = step
        lines.append(f"{'to do' if why is not None else 'done':>6}  {step.title}" + (f": {why}" if why else ""))
        lines += [f"        {step.command}"] if step.argv else []
    return "\n".join(" " * indent + one_line(line) for line in lines)


def status_text(record: Record) -> str:
    """The recorded state of every step, and what is no longer as it was recorded.

    Raises:
        DataError: for a record with a value of a wrong kind, or one that names a place outside its folder.
    """
    lines = []
    path = record.folder / "chain.json"
    check_record(record.data, CHAIN, path)
    for i, row in enumerate(record.data["steps"]):
        place = inside(record.folder, row["output_dir"], where=f"{path}, steps[{i}].output_dir")
        for name in row.get("sha256") or {}:
            inside(place, name, where=f"{path}, steps[{i}].sha256")
        wrong = changed(place, row.get("sha256") or {}) if row["status"] == "done" else ""
        state, title = "damaged" if wrong else row["status"], row.get("title", row["id"])
        told = f"{state:>8}  {row.get('seconds') or 0:>7.0f} s  {title}" + (f": {wrong}" if wrong else "")
        lines.append(one_line(told))
    return "\n".join(lines)
