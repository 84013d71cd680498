"""Neural layers that the methods share.

Around a network's input: :mod:`.image_channels` (grey images for networks of several channels), :mod:`.slice_by_slice`
(volumes for networks of slices), :mod:`.window_mask` (what is hidden from one that learns to rebuild). Its parts:
:mod:`.channel_norm`, :mod:`.instance_norm`, :mod:`.sam_adapters` (bottlenecks beside frozen blocks),
:mod:`.pixel_decoder` (tokens to an image). What makes it quick or light: :mod:`.memory_format`,
:mod:`.frozen_features` (kept for the next time), :mod:`.same_weights` (wrapped, yet saved as the network itself).
"""
