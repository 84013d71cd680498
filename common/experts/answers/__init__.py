"""Answers: what an expert says about a whole scan, asked once, in its own way, and kept small.

Read :mod:`.at_home` (nnU-Net experts by nnU-Net's own inference, brought to the student's grid once) and :mod:`.record`
(an answer in at most five bytes a voxel) first.
"""
