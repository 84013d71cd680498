"""Prepared volumes on disk: what a deterministic chain of transforms makes of a case, read crop by crop.

A case is prepared once, by whoever needs it first, and is then read by phases, variants, seeds, validations, restarts
and methods that have the same chain. In the order of a case: :mod:`.sources` (what the files hold), :mod:`.chain` (what
is done to them), :mod:`.quantised` and :mod:`.layout` (numbers, and in which pieces), :mod:`.content` (all the rest),
:mod:`.entry` (one case on disk), :mod:`.place` (where all lie), :mod:`.owned` (what there may be deleted), :mod:`.fill`
(many cases, in several processes), :mod:`.cases`, the data set over it, :mod:`.stacked` (several arrays as one), and
:mod:`.facts` (what was found in the files, as the intensities of all CTs).
"""
