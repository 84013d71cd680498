"""Scores of an evaluation: per structure and case, over cases, and as handlers.

Read :mod:`.scores` (one case, by :mod:`common.overlap`), :mod:`.score_summary` (many),
:mod:`.metrics` (in MONAI's evaluators). :mod:`.score_record` keeps what was found beside the weights;
:mod:`.score_form` judges what lies there.
"""
