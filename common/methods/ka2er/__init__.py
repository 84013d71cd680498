"""KA2ER: a student that is trained while it may ask frozen experts, and works without them afterwards.

Read :mod:`.network` first, with :mod:`.student`, :mod:`.head`, :mod:`.experts` and :mod:`.loss`. :mod:`.script` is the
student for TorchScript; :mod:`.attention_maps` shows where it asks. The student may be an nnU-Net instead:
:mod:`.begin` plans it, :mod:`.planned` reads it from a card, :mod:`.results` hands it to nnU-Net.
"""
