"""M4oE: a Swin-Unet whose perceptrons are modality experts under a gate, with a head per label space.

Read :mod:`.phase_one` (experts learn to rebuild slices) and :mod:`.network` first; :mod:`.build` makes it from plain
values, :mod:`.start` from files, :mod:`.volume` takes volumes and :mod:`.single` is its export. :mod:`.gate_maps` with
:mod:`.gate_usage`, and :mod:`.rebuilt`, show what it does.
"""
