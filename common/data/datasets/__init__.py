"""Datasets and collections on disk: their ``dataset.json``, how one comes about, and what may be wrong with it.

Read :mod:`.dataset_json` (entries), :mod:`.dataset` (one task) and :mod:`.datalist` (a collection) first.
:mod:`.convert` with :mod:`.pairs`, :mod:`.convert_channels` and :mod:`.convert_seg`, :mod:`.merge`, :mod:`.subset` and
:mod:`.splits` make datasets; :mod:`.verify` finds their problems, :mod:`.verify_contents` and :mod:`.naming`, with the
words of :mod:`.organs` and of :mod:`.spelling`, what is doubtful.
:mod:`.part_labelled` lists what a training with few labels learns from, :mod:`.fitting` asks
whether a trained model can read them, :mod:`.known_cases` whether it learned from them,
:mod:`.described` what a ``dataset.json`` beside scans says of them.
"""
