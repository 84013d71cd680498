"""SAM2's image path as a network for slices.

Read :mod:`.network` first; :mod:`.hiera` is its encoder; :mod:`.weights` reads public files.
"""
