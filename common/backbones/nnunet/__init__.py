"""nnU-Net v2 as a backbone: its plans, arrays and weights, without its folders, settings and trainer classes.

Read :mod:`.network` first (networks and results folders; :mod:`.allowed` is what plans may name,
:mod:`.form` which entries they have, :mod:`.description` what ``dataset.json`` says, :mod:`.kept` what a card may keep
of both, :mod:`.folds` which folds there are; nnU-Net is asked through :mod:`.calls`). A training goes
:mod:`.fingerprint`, :mod:`.planner`, :mod:`.plan` (of several data sets :mod:`.collection`), :mod:`.recipe`,
:mod:`.data`, whose arrays lie as :mod:`.grid` says; :mod:`.widen` begins one from a trained network. :mod:`.window`
predicts whole volumes, those of many classes by :mod:`.streamed`; :mod:`.scripting` makes TorchScript of a network.
"""
