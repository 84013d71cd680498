"""LoRA experts on the queries and values of a frozen transformer, held and stored by PEFT.

Read :mod:`.qkv` (what is adapted) and :mod:`.experts` (adding and switching) first; then :mod:`.mix` (several at once)
and :mod:`.files`.
"""
