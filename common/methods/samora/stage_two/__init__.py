"""The second stage: experts fused in every block of SAM, H-SAM or SAM2.

Read :mod:`.network` and :mod:`.loss` first; :mod:`.build` composes them and :mod:`.start` finds the experts.
:mod:`.plain` is the same the long way, and :mod:`.weight_search` weighs experts without gradients. :mod:`.volume` takes
volumes; :mod:`.views` and :mod:`.fusion_pictures` show what the experts do.
"""
