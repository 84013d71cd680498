"""Objectives: one idea per file, each with an independent naive twin in its test.

Against annotations: :mod:`.segmentation` (first), :mod:`.batch_dice`, :mod:`.stages` (deep supervision), :mod:`.refine`
(corrections of a served network). Against experts: :mod:`.marginal` (each in its own terms), :mod:`.distillation`
(features and logits), :mod:`.contrastive`. Of a network itself: :mod:`.balance` (its gate), :mod:`.reconstruction`
(hidden patches). :mod:`.processes` sums over all processes.
"""
