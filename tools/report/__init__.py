"""``python -m tools report``: one self-contained HTML page out of finished runs.

Read :mod:`.command`, :mod:`.results` (what runs left), :mod:`.page` (a study) with :mod:`.sections`, and :mod:`.frame`
(the document around). Figures in words: :mod:`.numbers`, :mod:`.significance`, :mod:`.cells` (a table),
:mod:`.markdown` (once more as text). Drawings: :mod:`.figures`, :mod:`.pair_figures`, :mod:`.diagram` (what was
amalgamated), :mod:`.gallery` (pictures of runs), :mod:`.viewer` with its :mod:`.volumes`. Of a comparison:
:mod:`.comparison` (its folder), :mod:`.comparison_rows`, :mod:`.comparison_tables`, :mod:`.comparison_files`,
:mod:`.comparison_page`.
"""
