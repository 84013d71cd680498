"""SAM without prompts, or with one box, and with one mask per class.

Read :mod:`.network` first; it joins :mod:`.encoder`, :mod:`.prompt` and :mod:`.head`. :mod:`.weights` reads public
files.
"""
