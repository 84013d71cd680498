"""H-SAM, SAM's encoder with two mask decoders, the second of which builds on the first one's masks.

Read :mod:`.network` first; then :mod:`.decoder`, which uses :mod:`.attention`; :mod:`.weights` reads public files.
"""
