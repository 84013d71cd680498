"""Experts: frozen networks that were trained elsewhere and answer on the student's own crop.

Read :mod:`.spec` (what must be known) and :mod:`.expert_set` (who is asked) first; in between lie :mod:`.sources`
(opening them), :mod:`.trust` and :mod:`.bundle_config` (for those that are code), :mod:`.frame` and :mod:`.normalise`
(their own axes and intensities), :mod:`.features` and :mod:`.windows` (what is taken of their networks) and
:mod:`.fit` (may they be asked?). :mod:`.describe` and :mod:`.export` write descriptions; :mod:`.ensemble` is all of
them as one untrained model.

Also here: :mod:`.claims` (does the description agree with the files?), :mod:`.profile` (the program that an expert
lives in), :mod:`.regions` (what overlapping structures consist of), :mod:`.tiles` (how far its windows step, and so a
student's), :mod:`.training_files` (how its training scans lay), :mod:`.kinds`, :mod:`.script`.
"""
