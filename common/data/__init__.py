"""Datasets, collections, reading, checking and transforming volumes.

Read :mod:`.io` (volumes in, label maps out) and :mod:`.pictures` (photographs) first; :mod:`.remarks` is what a user is
told of a scan. Of a whole training set: :mod:`.survey` (what it is), :mod:`.survey_union` (two as one),
:mod:`.starts` (whether weights were taught on it).
"""
