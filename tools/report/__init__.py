"""``python -m tools report``: one self-contained HTML page out of finished runs."""
