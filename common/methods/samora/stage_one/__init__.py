"""The first stage: one LoRA expert of a frozen encoder, and what teaches it.

Read :mod:`.expert` first; then :mod:`.students`, :mod:`.teachers` (and :mod:`.teacher_file`) and :mod:`.objectives`.
:mod:`.build` composes them, :mod:`.expert_folder` writes the expert, :mod:`.volume` shows it on whole volumes and
:mod:`.views` draws that.
"""
