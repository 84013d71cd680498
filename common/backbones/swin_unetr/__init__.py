"""Swin UNETR with encoder and decoder apart, interchangeable with MONAI's weight for weight.

Read :mod:`.network` first; its halves are :mod:`.encoder` and :mod:`.blocks`; :mod:`.weights` reads MONAI's file.
"""
