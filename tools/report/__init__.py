"""``python -m tools report``: one self-contained HTML page out of finished runs."""

from .command import comparison_report, report

__all__ = ["comparison_report", "report"]
