"""SAMora: self-supervised LoRA experts of a frozen SAM encoder, fused in every block.

``stage_one`` trains the experts, one after the other, ``stage_two`` fuses them; neither imports the other. Both stand
on :mod:`.base`, the frozen encoder, and find again what no checkpoint holds (:mod:`.unchanged`).
"""
