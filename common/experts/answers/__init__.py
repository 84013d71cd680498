"""Answers: what an expert says about a whole scan, asked once, in its own way, and kept small.

Read :mod:`.at_home` first (nnU-Net experts by nnU-Net's own inference, brought to the student's grid once) and
:mod:`.record` (an answer in five bytes a voxel). :mod:`.agreement` asks whether an answer is what the expert's own
software says; :mod:`.joint` makes one map of several, and counts what they dispute.
"""
