"""One iteration: of a plain training, of a training by clicks, of a training after corrections.

Read :mod:`.steps` first, with :mod:`.precision`, what it computes in; :mod:`.click_training` and :mod:`.refine` build
on MONAI's trainer in the same way.
"""
