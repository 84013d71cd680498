"""``python -m tools bench``: figures of this machine, each beside a check that both ways give the same.

Read :mod:`.command` and :mod:`.measure` first; then what is measured: :mod:`.ka2er`, :mod:`.m4oe`, :mod:`.sam`,
:mod:`.samora`, :mod:`.ic_moe`, :mod:`.sam_med3d_moe` (against :mod:`.sam_med3d_plain`);
:mod:`.pipeline` measures how fast samples come, on the scans of :mod:`.synthetic`; :mod:`.step` a training step in 32
bits and in bf16, :mod:`.curve` its losses in both, :mod:`.stored` one with stored answers beside the student alone,
:mod:`.augment` what augmentation costs within samples and batched, :mod:`.passes` a student's pass beside those of the
five nnU-Nets of :mod:`.parts`.
"""
