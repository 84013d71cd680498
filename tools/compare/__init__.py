"""``python -m tools compare``: methods and baselines on one collection, one split and one budget.

Read :mod:`.command`, then :mod:`.members`, :mod:`.budget`, :mod:`.plan` and :mod:`.run`.
"""
