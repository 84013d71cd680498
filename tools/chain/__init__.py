"""``python -m tools chain``: experts first, then the student that absorbs them, then the comparison.

Read :mod:`.command`, then :mod:`.plan` (what has to be done: :mod:`.step`, :mod:`.overlays`, :mod:`.checks`,
:mod:`.experts`, :mod:`.evaluate`), :mod:`.record` with :mod:`.artefacts` (what was done, and is still there),
:mod:`.run` (doing it) and :mod:`.text` (saying it). :mod:`.trained` finds what chains left and puts it into the bundle.
"""
