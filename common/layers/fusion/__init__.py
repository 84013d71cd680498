"""How the answers of several experts become one.

:mod:`.amalgamation` (KA2ER asks), :mod:`.hl_attention` (SAMora's levels), :mod:`.voting` (IC-MoE's pixels), and
:mod:`.fusers`, which the others are compared with.
"""
