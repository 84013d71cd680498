"""Answers: what an expert says about a whole scan, asked once, in its own way, and kept small.

Read :mod:`.at_home` first (nnU-Net experts by nnU-Net's own inference, brought to the student's grid once;
:mod:`.windows` is for the others) and :mod:`.record` (an answer in five bytes a voxel). :mod:`.ask` is the transform
that asks, :mod:`.kept` the store of what was said, :mod:`.cases` the training set with the answers of all experts, and
:mod:`.teaching` the loss by which they teach. :mod:`.together` makes one label map of several answers, by :mod:`.joint`
where they dispute; :mod:`.foreground` tells a planner by it where structures are. :mod:`.beside` says which experts
stay beside a trained student, and :mod:`.united` puts their word into its label map, with answers that :mod:`.saved`
has from an earlier step. :mod:`.agreement` asks whether an answer is what the expert's own software says.
"""
