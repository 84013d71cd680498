"""The 2-D Swin-Unet, with the feed-forward of its blocks given from outside.

:mod:`.network` is all of it; :mod:`.weights` reads Swin's, timm's and M4oE's files.
"""
