"""``python -m tools experts``: describe and check somebody's expert; give a trained mixture one more.

Read :mod:`.command`, then :mod:`.describe` with :mod:`.told` and :mod:`.profile`, :mod:`.check`, :mod:`.decoder` and
:mod:`.modality`.
"""
