"""SAM-Med3D-MoE: fine-tuned mask decoders beside the general one, and a gate that decides who answers a prompt.

Read :mod:`.network` and :mod:`.loss` first; :mod:`.start` makes it from files and :mod:`.trained` reads it back.
:mod:`.forgetting` measures what was gained and lost; :mod:`.forgetting_table` and :mod:`.forgetting_picture` show it.
"""
