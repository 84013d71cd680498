"""Attention: across two sets of tokens, and within windows without padding.

:mod:`.cross` is the plain one; :mod:`.window` with :mod:`.window_grad` is Swin's, :mod:`.sam` is SAM's and
:mod:`.released_bias` SAM-Med3D's.
"""
