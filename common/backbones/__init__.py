"""Encoders and networks that the methods build on.

Of one file each: :mod:`.mae` (a masked autoencoder) and :mod:`.skresnet` (a network of selective kernels).
"""
