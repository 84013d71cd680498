"""``python -m tools experts``: describe somebody's expert; give a trained mixture one more.

Read :mod:`.command`, then :mod:`.describe` and :mod:`.decoder`.
"""
