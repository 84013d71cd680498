"""``python -m tools label``: a trained model behind MONAI Label, for 3D Slicer and OHIF.

Read :mod:`.command`, then :mod:`.layout` with :mod:`.config` and :mod:`.refine` (what the server is given),
:mod:`.server` (starting it) and what runs in it: :mod:`.app` behind :mod:`.guard`, and :mod:`.requests` and
:mod:`.uploads`, which judge what it is asked and what it is sent.
"""
