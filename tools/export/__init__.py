"""``python -m tools export``: a bundle's inference network as one file that runs without this repository.

Read :mod:`.command`, then :mod:`.networks`. A student that is an nnU-Net also leaves as nnU-Net's results.
"""
