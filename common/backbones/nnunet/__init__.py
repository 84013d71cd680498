"""nnU-Net v2 as a backbone: its plans, arrays and weights, without its folders, settings and trainer classes.

Read :mod:`.network` first (networks and results folders; :mod:`.allowed` is what plans may name,
:mod:`.kept` what a card may keep of them). A training goes
:mod:`.fingerprint`, :mod:`.plan`, :mod:`.recipe`, :mod:`.data`; :mod:`.window` predicts whole volumes,
:mod:`.scripting` makes TorchScript of a network.
"""
