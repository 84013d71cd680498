"""SAM-Med3D: a volume is encoded once, then every click is answered by a small decoder.

Read :mod:`.network` first; it joins :mod:`.encoder`, :mod:`.prompt` and :mod:`.decoder`. :mod:`.weights` reads public
files.
"""
