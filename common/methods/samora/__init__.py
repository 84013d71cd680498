"""SAMora: self-supervised LoRA experts of a frozen SAM encoder, fused in every block.

Both stages stand on :mod:`.base`, the frozen encoder. First stage: :mod:`.expert`, :mod:`.students`, :mod:`.teachers`
(and :mod:`.teacher_file`), :mod:`.objectives`, built by :mod:`.stage_one` and written by :mod:`.expert_folder`. Second
stage: :mod:`.network`, :mod:`.loss`, built by :mod:`.build` from what :mod:`.start` finds; :mod:`.plain` is the same
the long way, and :mod:`.weight_search` weighs experts without gradients. Both take volumes (:mod:`.expert_volume`,
:mod:`.volume`) and find again what no checkpoint holds (:mod:`.unchanged`). :mod:`.views`, :mod:`.fusion_pictures` and
:mod:`.expert_views` show what they do.
"""
